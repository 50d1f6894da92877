//! Answers under way: their updates, their ends, and their moves to other pipelines.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use concord_proto::Digest;
use concord_proto::serving::{Control, Finish, Generation, Update, Usage};
use concord_scheduler::{Evicted, Refusal, SchedulerEvent as Event};
use tokio::sync::mpsc;

use super::Pipeline;
use super::claiming::Claiming;
use super::input::{Input, Submitted};
use crate::serving::forward::CHATTER_MAX;

/// Room for updates that is kept for those that have to arrive.
const LAST_WORDS: usize = CHATTER_MAX / 4;

/// Why an answer ends whose adapter is gone.
pub(super) const UNLOADED: &str = "the adapter was unloaded";

/// An answer under way.
pub(in super::super) struct Answer {
    generation: Generation,
    updates: mpsc::Sender<Update>,
    /// The pipeline that has it.
    home: Arc<AtomicU32>,
    /// The most tokens that it can have.
    tokens_max: usize,
    /// Tokens so far.
    tokens: u32,
    /// Tokens that the stages of an earlier plan have drawn.
    pub(super) before: u32,
    /// Plans in a row that a stage gave up while it computed this answer.
    pub(super) failures: u32,
}

/// A complete answer, until its stages have claimed it.
pub(super) struct Done {
    pub(super) generation: Generation,
    pub(super) answer: Vec<u32>,
    pub(super) finish: Finish,
    pub(super) usage: Usage,
    pub(super) before: u32,
    pub(super) since: Instant,
    /// Present once claims are ordered, until they are with the notary.
    pub(super) claiming: Option<Claiming>,
    /// The seat that was asked for the headers that it received.
    pub(super) asked: Option<usize>,
}

impl Answer {
    pub(in super::super) fn new(
        generation: Generation,
        updates: mpsc::Sender<Update>,
        home: Arc<AtomicU32>,
        tokens_max: usize,
    ) -> Self {
        Self {
            generation,
            updates,
            home,
            tokens_max,
            tokens: 0,
            before: 0,
            failures: 0,
        }
    }

    /// Whether it is computed with an adapter.
    pub(super) fn uses(&self, adapter: &Digest) -> bool {
        self.generation.spec.adapter.as_ref() == Some(adapter)
    }

    /// A new plan is in effect: what was drawn until now others have drawn.
    pub(super) fn begin(&mut self) {
        self.before = self.tokens;
    }
}

fn is_chatter(update: &Update) -> bool {
    let words = [Update::Paused, Update::Resumed];
    matches!(update, Update::Queued { .. } | Update::Prefill { .. }) || words.contains(update)
}

impl Pipeline {
    pub(super) fn on_submit(&mut self, submitted: Submitted) {
        let Submitted {
            sequence,
            mut answer,
            answered,
            allowed,
        } = submitted;
        answer.home.store(self.index, Ordering::Relaxed);
        answer.begin();
        let generation = answer.generation.clone();
        // Others may have come in between.
        let refusal = {
            let mut shared = self.shared.lock();
            shared.coming -= 1;
            shared.scheduler.refusal(&generation)
        };
        self.answers.insert(sequence, answer);
        let adapter = generation.spec.adapter;
        if adapter.is_some_and(|adapter| !self.hub.state().adapters.contains(&adapter)) {
            return self.fail_for_good(sequence, UNLOADED);
        }
        // Who has tokens already does not stand in line again.
        let is_under_way = !answered.is_empty();
        let counts = |why: &Refusal| !(is_under_way && matches!(why, Refusal::Full { .. }));
        if let Some(refusal) = refusal.filter(counts) {
            return self.fail(sequence, &refusal.to_string());
        }
        let evicted = Evicted {
            sequence,
            generation,
            answer: answered,
            allowed,
        };
        self.events.extend(evicted.events());
    }

    pub(super) fn on_control(&mut self, sequence: u64, control: Control, home: Arc<AtomicU32>) {
        if self.answers.contains_key(&sequence) {
            self.events.push_back(Event::Control { sequence, control });
            return;
        }
        let input = |home| Input::Control {
            sequence,
            control,
            home,
        };
        self.send_on(home, input);
    }

    pub(super) fn on_cancel(&mut self, sequence: u64, home: Arc<AtomicU32>) {
        if self.answers.remove(&sequence).is_some() {
            self.events.push_back(Event::Cancel { sequence });
            return;
        }
        self.send_on(home, |home| Input::Cancel { sequence, home });
    }

    /// A word on a sequence that has moved goes after it.
    fn send_on(&self, home: Arc<AtomicU32>, input: impl FnOnce(Arc<AtomicU32>) -> Input) {
        let index = home.load(Ordering::Relaxed);
        if index != self.index && self.hub.try_send_to(index, input(home)).is_err() {
            tracing::warn!("a pipeline does not follow: a word on an answer is lost");
        }
    }

    /// Tells whoever asked. Whoever does not read until its channel is full wants no more.
    pub(super) fn deliver(&mut self, sequence: u64, update: Update) {
        let is_up = self.is_up();
        let Some(answer) = self.answers.get_mut(&sequence) else {
            return;
        };
        if is_chatter(&update) && answer.updates.capacity() <= answer.tokens_max + LAST_WORDS {
            return;
        }
        let is_last = matches!(update, Update::Finished { .. } | Update::Failed { .. });
        if matches!(update, Update::Token(_)) {
            answer.tokens += 1;
            self.tokens += 1;
            if is_up && let Some(lost) = self.lost.take() {
                self.hub.state().last_resume = Some(lost.elapsed().as_secs_f64());
            }
        }
        let is_gone = answer.updates.try_send(update).is_err();
        if is_last {
            self.answers.remove(&sequence);
        } else if is_gone {
            self.answers.remove(&sequence);
            self.events.push_back(Event::Cancel { sequence });
        }
    }

    pub(super) fn on_answered(
        &mut self,
        sequence: u64,
        answer: Vec<u32>,
        (finish, usage): (Finish, Usage),
    ) {
        let Some(known) = self.answers.get(&sequence) else {
            return;
        };
        let done = Done {
            generation: known.generation.clone(),
            answer,
            finish,
            usage,
            before: known.before,
            since: Instant::now(),
            claiming: None,
            asked: None,
        };
        self.done.insert(sequence, done);
    }

    /// Ends an answer that cannot go on here.
    pub(super) fn fail(&mut self, sequence: u64, reason: &str) {
        self.end(sequence, reason, true);
    }

    /// Ends an answer that cannot be had anywhere.
    pub(super) fn fail_for_good(&mut self, sequence: u64, reason: &str) {
        self.end(sequence, reason, false);
    }

    fn end(&mut self, sequence: u64, reason: &str, retry: bool) {
        let Some(answer) = self.answers.remove(&sequence) else {
            return;
        };
        let usage = Usage {
            prompt: answer.generation.spec.prompt.len() as u32,
            cached: 0,
            answer: answer.tokens,
        };
        let failed = Update::Failed {
            reason: reason.to_string(),
            retry,
            usage,
        };
        // Whoever is gone misses nothing.
        let _ = answer.updates.try_send(failed);
    }

    /// Moves all answers to another pipeline, where there is one.
    pub(super) fn move_out(&mut self) {
        let hub = self.hub.clone();
        let mut evicted = self.shared.lock().scheduler.evict().into_iter();
        while let Some(one) = evicted.next() {
            let Some(answer) = self.answers.remove(&one.sequence) else {
                continue;
            };
            let chosen = hub.state().routes.choose(&one.generation, Some(self.index));
            let Some((index, route)) = chosen else {
                // Nobody takes them: they wait here.
                self.answers.insert(one.sequence, answer);
                self.events.extend(one.events());
                self.events
                    .extend(evicted.by_ref().flat_map(Evicted::events));
                return;
            };
            let sequence = one.sequence;
            let home = answer.home.clone();
            let submitted = Submitted {
                sequence,
                answer,
                answered: one.answer,
                allowed: one.allowed,
            };
            if let Err(submitted) = route.hand_over(submitted) {
                self.answers.insert(sequence, submitted.answer);
                self.fail(
                    sequence,
                    "the pool is overloaded after the loss of a worker",
                );
                continue;
            }
            // Words that come here from now on go after it, unless it has arrived and says itself
            // where it is.
            let (here, there) = (self.index, index);
            let _ = home.compare_exchange(here, there, Ordering::Relaxed, Ordering::Relaxed);
        }
    }

    /// Nobody came who could hold the pipeline.
    pub(super) fn give_up(&mut self) {
        self.move_out();
        let sequences: Vec<u64> = self.answers.keys().copied().collect();
        for sequence in sequences {
            self.fail(
                sequence,
                "no worker came to take over a stage that was lost",
            );
            self.events.push_back(Event::Cancel { sequence });
        }
    }
}
