//! A scheduler, its pipeline, and its clients.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use concord_proto::serving::{Control, DrawOrder, Finish, Generation, Pass, TokenLogprob};
use concord_proto::serving::{Update, Usage};

use super::invariants;
use super::model::{Alone, StageModel, allowed, alone};
use crate::{Scheduler, SchedulerEffect, SchedulerEvent, Settings};

/// What a client has seen.
#[derive(Default)]
pub struct Seen {
    pub tokens: Vec<TokenLogprob>,
    pub prompt: Option<Vec<TokenLogprob>>,
    pub finished: Option<(Finish, Usage)>,
    pub failed: Option<(String, bool)>,
    pub queued: Vec<u32>,
    pub prefill: Vec<(u32, u32)>,
    pub is_paused: bool,
    pub answered: Option<Vec<u32>>,
}

impl Seen {
    pub fn is_over(&self) -> bool {
        self.finished.is_some() || self.failed.is_some()
    }
}

pub struct World {
    pub scheduler: Scheduler,
    pub settings: Settings,
    pub stage: StageModel,
    pub shape: (u32, u32),
    pub is_up: bool,
    pub passes: VecDeque<(Pass, DrawOrder)>,
    pub claims: VecDeque<u64>,
    pub asked: BTreeMap<u64, (Generation, Alone)>,
    pub seen: BTreeMap<u64, Seen>,
    pub cancelled: BTreeSet<u64>,
    /// Stopped sequences, and after how many tokens.
    pub stopped: BTreeMap<u64, u32>,
    pub grammars: VecDeque<u64>,
    pub now: u64,
    pub passes_sent: u64,
    pub rows_sent: u64,
    pub next_pass: u64,
}

impl World {
    pub fn new(settings: Settings, stages: u32, pages: u32) -> Self {
        let mut world = Self::down(settings, stages, pages);
        world.up();
        world
    }

    pub fn down(settings: Settings, stages: u32, pages: u32) -> Self {
        Self {
            scheduler: Scheduler::new(settings),
            settings,
            stage: StageModel::new(pages),
            shape: (stages, pages),
            is_up: false,
            passes: VecDeque::new(),
            claims: VecDeque::new(),
            asked: BTreeMap::new(),
            seen: BTreeMap::new(),
            cancelled: BTreeSet::new(),
            stopped: BTreeMap::new(),
            grammars: VecDeque::new(),
            now: 0,
            passes_sent: 0,
            rows_sent: 0,
            next_pass: 0,
        }
    }

    pub fn apply(&mut self, event: SchedulerEvent) {
        self.now += 100;
        let effects = self.scheduler.apply(self.now, event);
        for effect in effects {
            self.effect(effect);
        }
        invariants::check(self);
    }

    fn effect(&mut self, effect: SchedulerEffect) {
        match effect {
            SchedulerEffect::Pass { pass, draws } => {
                invariants::check_pass(self, &pass, &draws);
                assert_eq!(pass.number, self.next_pass, "passes rise by one");
                self.next_pass += 1;
                self.passes_sent += 1;
                self.rows_sent += pass.tokens.len() as u64;
                self.passes.push_back((pass, draws));
            }
            SchedulerEffect::Update { sequence, update } => self.update(sequence, update),
            SchedulerEffect::Answered {
                sequence, answer, ..
            } => {
                let seen = self.seen.get_mut(&sequence).expect("a known one");
                assert!(seen.answered.replace(answer).is_none(), "answered twice");
            }
            SchedulerEffect::Claim {
                sequence,
                prompt,
                positions,
                pages,
                spec,
            } => {
                let (generation, _) = &self.asked[&sequence];
                assert_eq!(spec, generation.spec.digest());
                assert_eq!(prompt as usize, generation.spec.prompt.len());
                let answer = self.seen[&sequence]
                    .answered
                    .as_ref()
                    .expect("answered first");
                assert_eq!(positions as usize, prompt as usize + answer.len() - 1);
                invariants::check_claim(self, sequence, positions, &pages);
                self.claims.push_back(sequence);
            }
            SchedulerEffect::Forget { .. } => {}
            SchedulerEffect::Fault { reason } => panic!("{reason}"),
        }
    }

    fn update(&mut self, sequence: u64, update: Update) {
        assert!(
            !self.cancelled.contains(&sequence),
            "news on what is cancelled"
        );
        let seen = self.seen.get_mut(&sequence).expect("a known one");
        assert!(!seen.is_over(), "news after the end: {update:?}");
        match update {
            Update::Queued { ahead } => seen.queued.push(ahead),
            Update::Prefill { done, total } => seen.prefill.push((done, total)),
            Update::Prompt(scores) => {
                assert!(seen.tokens.is_empty() && seen.prompt.is_none());
                seen.prompt = Some(scores);
            }
            Update::Token(token) => {
                assert!(!seen.is_paused, "a token in a pause");
                seen.tokens.push(token);
                if self.asked[&sequence].0.spec.sampling.grammar.is_some() {
                    self.grammars.push_back(sequence);
                }
            }
            Update::Paused => seen.is_paused = true,
            Update::Resumed => {
                assert!(std::mem::take(&mut seen.is_paused));
            }
            Update::Finished { finish, usage } => {
                let answered = seen.answered.as_ref().expect("answered before finished");
                assert_eq!(usage.answer as usize, answered.len());
                seen.finished = Some((finish, usage));
            }
            Update::Failed { reason, retry, .. } => seen.failed = Some((reason, retry)),
        }
    }

    pub fn submit(&mut self, id: u64, generation: Generation) {
        let alone = alone(&generation, self.settings.positions);
        self.seen.insert(id, Seen::default());
        self.asked.insert(id, (generation.clone(), alone));
        if generation.spec.sampling.grammar.is_some() {
            self.grammars.push_back(id);
        }
        self.apply(SchedulerEvent::Submit {
            sequence: id,
            generation,
            answer: Vec::new(),
        });
    }

    /// The oldest pass comes back.
    pub fn step(&mut self) -> bool {
        let Some((pass, draws)) = self.passes.front() else {
            return false;
        };
        let (broken, result) = self.stage.pass(pass, draws);
        if !broken.is_empty() {
            self.apply(SchedulerEvent::Broken {
                pass: result.pass,
                runs: broken,
            });
        }
        self.passes.pop_front();
        self.apply(SchedulerEvent::Result(result));
        true
    }

    pub fn claim(&mut self) -> bool {
        let Some(sequence) = self.claims.pop_front() else {
            return false;
        };
        self.apply(SchedulerEvent::Claimed { sequence });
        true
    }

    /// The client of a grammar says which tokens are allowed next.
    pub fn allow(&mut self) -> bool {
        let Some(sequence) = self.grammars.pop_front() else {
            return false;
        };
        let answer = self.seen[&sequence].tokens.len() as u32;
        let seed = self.asked[&sequence].0.spec.sampling.seed;
        let tokens = allowed(seed, answer);
        self.apply(SchedulerEvent::Control {
            sequence,
            control: Control::Allow { answer, tokens },
        });
        true
    }

    pub fn stop(&mut self, sequence: u64, answer: u32) {
        let Some(seen) = self.seen.get(&sequence) else {
            return;
        };
        if seen.is_over() || self.cancelled.contains(&sequence) {
            return;
        }
        let answer = answer.min(seen.tokens.len() as u32);
        self.stopped.insert(sequence, answer);
        self.apply(SchedulerEvent::Control {
            sequence,
            control: Control::Stop {
                answer,
                finish: Finish::StopText,
            },
        });
    }

    pub fn cancel(&mut self, sequence: u64) {
        if self.seen.get(&sequence).is_some_and(|seen| !seen.is_over()) {
            self.cancelled.insert(sequence);
            self.apply(SchedulerEvent::Cancel { sequence });
        }
    }

    pub fn lose(&mut self) {
        self.is_up = false;
        self.passes.clear();
        let reason = "a test".to_string();
        self.apply(SchedulerEvent::Down { reason });
    }

    pub fn up(&mut self) {
        let (stages, pages) = self.shape;
        self.is_up = true;
        self.passes.clear();
        self.next_pass = 0;
        self.stage = StageModel::new(pages);
        self.apply(SchedulerEvent::Up { stages, pages });
    }

    /// Goes on until nothing is left to do.
    pub fn drain(&mut self) {
        if !self.is_up {
            self.up();
        }
        for _ in 0..200_000 {
            let goes_on = self.allow() | self.claim() | self.step();
            if !goes_on {
                return invariants::check_end(self);
            }
        }
        panic!("it does not come to an end");
    }
}
