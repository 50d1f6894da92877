//! Answers under way: their updates, their ends, and their moves to other pipelines.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use concord_proto::serving::{Control, Finish, Generation, Update, Usage};
use concord_scheduler::{Event, Evicted, Refusal};

use super::claiming::Claiming;
use super::{FinishedAnswer, Pipeline};
use crate::serving::router::{Arrival, CHATTER_MAX, PipelineInput, Submission};

/// Room for updates that is reserved for those that have to arrive.
const LAST_WORDS: usize = CHATTER_MAX / 4;

/// Why an answer ends whose adapter is gone.
pub(super) const UNLOADED: &str = "the adapter was unloaded";

/// A complete answer, until its stages have claimed it.
pub(super) struct Done {
    pub(super) generation: Generation,
    pub(super) answer: Vec<u32>,
    pub(super) finish: Finish,
    pub(super) usage: Usage,
    pub(super) before: u32,
    pub(super) since: Instant,
    /// Present once claims are ordered, until the receipt signer has them.
    pub(super) claiming: Option<Claiming>,
    /// The stage that was asked for the headers that it received.
    pub(super) asked: Option<usize>,
}

/// Whether an update may be left out where its reader is slow.
fn is_chatter(update: &Update) -> bool {
    match update {
        Update::Queued { .. } | Update::Prefill { .. } | Update::Paused | Update::Resumed => true,
        Update::Prompt(_) | Update::Token(_) | Update::Finished { .. } | Update::Failed { .. } => {
            false
        }
    }
}

impl Pipeline {
    /// Takes in a generation. It counts as on its way until the scheduler's events are queued.
    pub(super) fn on_submit(&mut self, submission: Submission, arrival: Arrival) {
        let Submission {
            sequence,
            mut answer,
            answered,
            allowed,
        } = submission;
        answer.home.store(self.index, Ordering::Relaxed);
        answer.begin();
        let generation = answer.generation.clone();
        // Others may have come in between.
        let refusal = self.state.lock().scheduler.refusal(&generation);
        self.answers.insert(sequence, answer);
        let adapter = generation.spec.adapter;
        if adapter.is_some_and(|adapter| !self.context.adapters.contains(&adapter)) {
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
        drop(arrival);
    }

    pub(super) fn on_control(&mut self, sequence: u64, control: Control, home: Arc<AtomicU32>) {
        if self.answers.contains_key(&sequence) {
            self.events.push_back(Event::Control { sequence, control });
            return;
        }
        let input = |home| PipelineInput::Control {
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
        self.send_on(home, |home| PipelineInput::Cancel { sequence, home });
    }

    /// Sends an input on to the pipeline that its sequence has moved to.
    fn send_on(&self, home: Arc<AtomicU32>, input: impl FnOnce(Arc<AtomicU32>) -> PipelineInput) {
        let index = home.load(Ordering::Relaxed);
        if index != self.index && self.context.router.try_send(index, input(home)).is_err() {
            tracing::warn!("a pipeline is overloaded: what a client says of its answer is lost");
        }
    }

    /// Tells the client. One that does not read until its channel is full has given its answer up.
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
                self.context.status.resumed(lost.elapsed());
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

    pub(super) fn on_answered(&mut self, sequence: u64, finished: FinishedAnswer) {
        let Some(known) = self.answers.get(&sequence) else {
            return;
        };
        let done = Done {
            generation: known.generation.clone(),
            answer: finished.answer,
            finish: finished.finish,
            usage: finished.usage,
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

    /// Ends an answer that no pipeline can give.
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
        // A client that is gone misses nothing.
        let _ = answer.updates.try_send(failed);
    }

    /// Moves all answers to another pipeline, where there is one.
    pub(super) fn move_out(&mut self) {
        let router = self.context.router.clone();
        let mut evicted = self.state.lock().scheduler.evict().into_iter();
        while let Some(one) = evicted.next() {
            let Some(answer) = self.answers.remove(&one.sequence) else {
                continue;
            };
            let Some(chosen) = router.choose(&one.generation, Some(self.index)) else {
                // No other pipeline takes them: they wait here.
                self.answers.insert(one.sequence, answer);
                self.events.extend(one.events());
                self.events
                    .extend(evicted.by_ref().flat_map(Evicted::events));
                return;
            };
            let (sequence, there) = (one.sequence, chosen.index);
            let home = answer.home.clone();
            let submission = Submission {
                sequence,
                answer,
                answered: one.answer,
                allowed: one.allowed,
            };
            if let Err(submission) = chosen.hand_over(submission) {
                self.answers.insert(sequence, submission.answer);
                self.fail(
                    sequence,
                    "the pool is overloaded after the loss of a worker",
                );
                continue;
            }
            // What its client says from now on is sent after it, unless it has arrived already and
            // its new pipeline has stored where it is.
            let here = self.index;
            let _ = home.compare_exchange(here, there, Ordering::Relaxed, Ordering::Relaxed);
        }
    }

    /// No worker came that could hold the pipeline.
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
