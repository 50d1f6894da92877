//! How long a token waits beside the prompts of others, over a pipeline whose passes take time.

use std::collections::{BTreeMap, VecDeque};

use concord_proto::serving::{DrawOrder, Drawn, Pass, PassResult, TokenLogprob, Update};

use super::model::{VOCAB, generation};
use crate::pace::ADDED_US;
use crate::{Scheduler, SchedulerEffect, SchedulerEvent, Settings};

/// The time of a pass over all stages, in microseconds.
#[derive(Clone, Copy)]
struct Cost {
    pass: f64,
    row: f64,
    /// For each row and position before it.
    context: f64,
}

/// A processor: 1 ms a row, and as much again for a context of 10,000.
const SLOW: Cost = Cost {
    pass: 5_000.0,
    row: 1_000.0,
    context: 0.1,
};

/// A GPU: the time of a pass is that of reading the weights.
const FAST: Cost = Cost {
    pass: 8_000.0,
    row: 20.0,
    context: 0.005,
};

/// A slow link: passes take longer than prompts may add.
const FAR: Cost = Cost {
    pass: 90_000.0,
    row: 400.0,
    context: 0.01,
};

impl Cost {
    fn of(&self, pass: &Pass) -> f64 {
        let of_run = |run: &concord_proto::serving::SequenceRun| {
            let rows = f64::from(run.count);
            let context = f64::from(run.first) + rows / 2.0;
            rows * (self.row + self.context * context)
        };
        self.pass + pass.runs.iter().map(of_run).sum::<f64>()
    }
}

/// A scheduler over even stages, each of which does one pass at a time.
struct Line {
    scheduler: Scheduler,
    cost: Cost,
    /// When each stage is free.
    free: Vec<f64>,
    /// Passes in flight, and when they are back.
    passes: VecDeque<(f64, PassResult)>,
    now: f64,
    /// When each sequence got its tokens.
    tokens: BTreeMap<u64, Vec<f64>>,
}

impl Line {
    fn new(cost: Cost, stages: u32) -> Self {
        let mut line = Self {
            scheduler: Scheduler::new(Settings::new(VOCAB, 20_000)),
            cost,
            free: vec![0.0; stages as usize],
            passes: VecDeque::new(),
            now: 0.0,
            tokens: BTreeMap::new(),
        };
        let pages = 1_000;
        line.apply(SchedulerEvent::Up { stages, pages });
        line
    }

    fn apply(&mut self, event: SchedulerEvent) {
        let mut claims = Vec::new();
        for effect in self.scheduler.apply(self.now as u64, event) {
            match effect {
                SchedulerEffect::Pass { pass, draws } => self.send(&pass, &draws),
                SchedulerEffect::Update {
                    sequence,
                    update: Update::Token(_),
                } => self.tokens.entry(sequence).or_default().push(self.now),
                SchedulerEffect::Claim { sequence, .. } => claims.push(sequence),
                SchedulerEffect::Fault { reason } => panic!("{reason}"),
                SchedulerEffect::Update { .. }
                | SchedulerEffect::Answered { .. }
                | SchedulerEffect::Forget { .. } => {}
            }
        }
        for sequence in claims {
            self.apply(SchedulerEvent::Claimed { sequence });
        }
    }

    fn send(&mut self, pass: &Pass, draws: &DrawOrder) {
        let share = self.cost.of(pass) / self.free.len() as f64;
        let mut at = self.now;
        for free in &mut self.free {
            at = at.max(*free) + share;
            *free = at;
        }
        let drawn = draws.draws.iter().map(|draw| Drawn {
            run: draw.run,
            token: draw.sample.as_ref().map(|_| TokenLogprob {
                token: 5,
                logprob: 0.0.into(),
                top: Vec::new(),
            }),
            scored: Vec::new(),
        });
        let result = PassResult {
            pass: pass.number,
            drawn: drawn.collect(),
        };
        self.passes.push_back((at, result));
    }

    /// A prompt of its own, without a page in common with another.
    fn submit(&mut self, sequence: u64, prompt: u32, tokens: u32) {
        let token = |at: u32| (at * 7 + sequence as u32 * 13) % VOCAB;
        let prompt = (0..prompt).map(token).collect();
        let submit = SchedulerEvent::Submit {
            sequence,
            generation: generation(sequence as u8, prompt, tokens),
            answer: Vec::new(),
        };
        self.apply(submit);
    }

    /// The oldest pass comes back.
    fn step(&mut self) {
        let (at, result) = self.passes.pop_front().expect("something is in flight");
        self.now = at;
        self.apply(SchedulerEvent::Result(result));
    }

    fn until_tokens(&mut self, sequence: u64, count: usize) {
        while self.tokens.get(&sequence).map_or(0, Vec::len) < count {
            self.step();
        }
    }

    fn first_token(&self, sequence: u64) -> f64 {
        self.tokens[&sequence][0]
    }

    /// The time that 99 of 100 tokens of a sequence, after the first `from`, wait for at most.
    fn p99(&self, sequence: u64, from: usize) -> f64 {
        let times = &self.tokens[&sequence][from..];
        let mut gaps: Vec<f64> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
        gaps.sort_by(f64::total_cmp);
        gaps[(gaps.len() * 99).div_ceil(100) - 1]
    }
}

const STREAM: u64 = 1;
const LONG: u64 = 2;
const SHORT: u64 = 3;

/// A stream of one user while others bring prompts of 8,000 tokens: a token waits at most three
/// times as long as undisturbed, plus the time that prompts may add.
#[test]
fn a_long_prompt_does_not_hold_up_the_tokens_of_others() {
    for cost in [SLOW, FAST, FAR] {
        for stages in 1..=3 {
            for prompts in [1, 3] {
                let mut line = Line::new(cost, stages);
                line.submit(STREAM, 20, 10_000);
                line.until_tokens(STREAM, 100);
                let undisturbed = line.p99(STREAM, 10);
                for number in 0..prompts {
                    line.submit(LONG + number, 8_000, 5);
                }
                let from = line.tokens[&STREAM].len();
                (0..prompts).for_each(|number| line.until_tokens(LONG + number, 1));
                let disturbed = line.p99(STREAM, from);
                let most = 3.0 * undisturbed + ADDED_US;
                assert!(
                    disturbed <= most,
                    "{disturbed} us after {undisturbed}: {prompts} prompts, {stages} stages, \
                     {} us a row",
                    cost.row
                );
                // Not even while nothing was known of how long a row takes.
                let times = line.tokens[&STREAM][from..].windows(2);
                let worst = times.map(|pair| pair[1] - pair[0]).fold(0.0, f64::max);
                assert!(worst <= 2.0 * most, "{worst} us");
            }
        }
    }
}

/// Alone, a prompt goes through in the largest passes.
#[test]
fn a_lone_prompt_takes_no_longer_than_in_the_largest_passes() {
    for cost in [SLOW, FAST, FAR] {
        for stages in 1..=3 {
            let mut line = Line::new(cost, stages);
            line.submit(LONG, 8_000, 5);
            line.until_tokens(LONG, 1);
            let passes = (8_000.0_f64 / 512.0).ceil();
            let rows = 8_000.0 * (cost.row + cost.context * 4_000.0);
            let least = passes * cost.pass + rows;
            let took = line.first_token(LONG);
            assert!(took <= 1.1 * least, "{took} us, not {least}");
        }
    }
}

/// Beside a stream a prompt still makes progress; where rows are cheap, almost as fast as alone.
#[test]
fn a_prompt_goes_on_beside_a_stream() {
    let mut line = Line::new(FAST, 1);
    line.submit(STREAM, 20, 10_000);
    line.until_tokens(STREAM, 100);
    let start = line.now;
    line.submit(LONG, 8_000, 5);
    line.until_tokens(LONG, 1);
    // 32 passes of 256 rows, each with a pass of the stream.
    let rows = 8_000.0 * (FAST.row + FAST.context * 4_000.0);
    let took = line.first_token(LONG) - start;
    assert!(took <= 1.5 * (32.0 * 2.0 * FAST.pass + rows), "{took} us");
}

/// A short prompt behind a long one, with a stream beside them or without: it has its first token
/// long before the long one has.
#[test]
fn a_short_prompt_does_not_wait_for_all_of_a_long_one() {
    for stages in 1..=2 {
        for streams in [0, 1] {
            let mut line = Line::new(SLOW, stages);
            if streams > 0 {
                line.submit(STREAM, 20, 10_000);
                line.until_tokens(STREAM, 100);
            }
            line.submit(LONG, 8_000, 5);
            (0..8).for_each(|_| line.step());
            let start = line.now;
            line.submit(SHORT, 100, 5);
            line.until_tokens(LONG, 1);
            let waited = line.first_token(SHORT) - start;
            let long = line.first_token(LONG) - start;
            assert!(
                waited < long / 4.0,
                "{waited} us of {long}: {stages} stages, {streams} streams"
            );
        }
    }
}

/// And a long one is not starved by short ones that keep coming.
#[test]
fn short_prompts_do_not_starve_a_long_one() {
    let mut line = Line::new(SLOW, 1);
    line.submit(STREAM, 20, 10_000);
    line.until_tokens(STREAM, 100);
    let start = line.now;
    line.submit(LONG, 2_000, 5);
    let mut next = 10;
    while !line.tokens.contains_key(&LONG) {
        line.submit(next, 100, 1);
        line.until_tokens(next, 1);
        next += 1;
        assert!(next < 200, "the long prompt stands still");
    }
    // Alone beside the stream it would take 60 passes or so; half of all is its share.
    let took = line.first_token(LONG) - start;
    assert!(took <= 10e6, "{took} us");
}
