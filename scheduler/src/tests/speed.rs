//! The time that the scheduler itself takes.

use std::time::{Duration, Instant};

use concord_proto::serving::{Drawn, PassResult, TokenLogprob};

use super::model::{VOCAB, generation};
use crate::{Scheduler, SchedulerEffect, SchedulerEvent, Settings};

fn pass(effects: &[SchedulerEffect]) -> Option<PassResult> {
    let of = |effect: &SchedulerEffect| match effect {
        SchedulerEffect::Pass { draws, .. } => Some(draws.clone()),
        _ => None,
    };
    let draws = effects.iter().find_map(of)?;
    let drawn = draws.draws.iter().map(|draw| Drawn {
        run: draw.run,
        token: draw.sample.as_ref().map(|_| TokenLogprob {
            token: 5,
            logprob: 0.0.into(),
            top: Vec::new(),
        }),
        scored: Vec::new(),
    });
    Some(PassResult {
        pass: draws.pass,
        drawn: drawn.collect(),
    })
}

/// The hot path: a result of 256 sequences in, 256 tokens and the next pass out. The bound is ten
/// times the usual time, so that the test passes on a busy machine, but not with a quadratic step.
#[test]
fn a_pass_of_256_sequences_takes_microseconds() {
    let mut scheduler = Scheduler::new(Settings::new(VOCAB, 4_096));
    let up = SchedulerEvent::Up {
        stages: 1,
        pages: 2_048,
    };
    scheduler.apply(0, up);
    let mut effects = Vec::new();
    for sequence in 0..256_u64 {
        let prompt = vec![sequence as u32, 1, 2];
        let submit = SchedulerEvent::Submit {
            sequence,
            generation: generation(sequence as u8, prompt, 500),
            answer: Vec::new(),
        };
        effects.extend(scheduler.apply(0, submit));
    }
    let mut times = Vec::new();
    let mut flights: std::collections::VecDeque<PassResult> = effects
        .split_inclusive(|effect| matches!(effect, SchedulerEffect::Pass { .. }))
        .filter_map(pass)
        .collect();
    while let Some(result) = flights.pop_front() {
        let rows = result.drawn.len();
        let start = Instant::now();
        let effects = scheduler.apply(0, SchedulerEvent::Result(result));
        let took = start.elapsed();
        if rows == 256 {
            times.push(took);
        }
        for part in effects.split_inclusive(|effect| matches!(effect, SchedulerEffect::Pass { .. }))
        {
            flights.extend(pass(part));
        }
        if times.len() == 400 {
            break;
        }
    }
    assert_eq!(times.len(), 400, "256 sequences decode in one pass");
    times.sort_unstable();
    let (median, worst) = (times[200], times[399]);
    println!("a result of 256 sequences: median {median:?}, worst {worst:?}");
    assert!(median < Duration::from_millis(1));
}
