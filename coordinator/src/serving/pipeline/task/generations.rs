//! Generations that come, are answered, end, or move to another pipeline; and adapters, on which
//! they depend.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use concord_proto::Digest;
use concord_proto::serving::{Control, ToStage, Update};
use concord_scheduler::{Evicted, Refusal, SchedulerEvent as Event};
use tokio::sync::oneshot;

use super::Pipeline;
use crate::serving::pipeline::answers::FAILURES_MAX;
use crate::serving::router::{Arrival, PipelineInput, RoutedGeneration};

/// Why an answer ends whose adapter is gone.
const UNLOADED: &str = "the adapter was unloaded";

impl Pipeline {
    /// Takes in a generation. It counts as on its way until the scheduler's events are queued.
    pub(super) fn on_submit(&mut self, submission: RoutedGeneration, arrival: Arrival) {
        let RoutedGeneration {
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
            return self.answers.fail(sequence, UNLOADED, false);
        }
        // A generation that has tokens already does not queue again.
        let is_under_way = !answered.is_empty();
        let counts = |why: &Refusal| !(is_under_way && matches!(why, Refusal::Full { .. }));
        if let Some(refusal) = refusal.filter(counts) {
            return self.answers.fail(sequence, &refusal.to_string(), true);
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
        if self.answers.get(sequence).is_some() {
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
        if self.answers.remove(sequence).is_some() {
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

    /// Tells the client.
    pub(super) fn deliver(&mut self, sequence: u64, update: Update) {
        let Some(delivery) = self.answers.deliver(sequence, update) else {
            return;
        };
        if delivery.is_token && self.is_up() {
            self.on_resumed();
        }
        if delivery.is_unwanted {
            self.events.push_back(Event::Cancel { sequence });
        }
    }

    /// Ends an answer that is under way in the scheduler.
    fn abandon(&mut self, sequence: u64, reason: &str, retry: bool) {
        self.answers.fail(sequence, reason, retry);
        self.events.push_back(Event::Cancel { sequence });
    }

    /// A stage has given up: answers on which stages give up again and again end.
    pub(super) fn blame_answers(&mut self) {
        let Some(plan) = &self.plan else {
            return;
        };
        let blamed = self.answers.blame(&plan.passes.sequences());
        for sequence in blamed {
            let reason =
                format!("stages failed {FAILURES_MAX} times in a row while they computed it");
            self.abandon(sequence, &reason, false);
        }
    }

    /// Moves all answers to another pipeline, where there is one.
    pub(super) fn move_out(&mut self) {
        let router = self.context.router.clone();
        let mut evicted = self.state.lock().scheduler.evict().into_iter();
        while let Some(one) = evicted.next() {
            let Some(answer) = self.answers.remove(one.sequence) else {
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
            let submission = RoutedGeneration {
                sequence,
                answer,
                answered: one.answer,
                allowed: one.allowed,
            };
            if let Err(submission) = chosen.hand_over(submission) {
                self.answers.insert(sequence, submission.answer);
                let reason = "the pool is overloaded after the loss of a worker";
                self.answers.fail(sequence, reason, true);
                continue;
            }
            // From now on the inputs of its client follow it to the new pipeline, unless it has
            // arrived there already and that pipeline has stored its own index.
            let here = self.index;
            let _ = home.compare_exchange(here, there, Ordering::Relaxed, Ordering::Relaxed);
        }
    }

    /// No worker came that could hold the pipeline.
    pub(super) fn give_up(&mut self) {
        self.move_out();
        for sequence in self.answers.sequences() {
            let reason = "no worker came to take over a stage that was lost";
            self.abandon(sequence, reason, true);
        }
    }

    pub(super) fn add_adapter(
        &mut self,
        adapter: Digest,
        done: oneshot::Sender<Result<(), String>>,
    ) {
        self.adapters.add(adapter, done);
        // A pipeline that does not run loads it when it does.
        if self.is_up() {
            self.send_all(&ToStage::AddAdapter(adapter));
        }
    }

    pub(super) fn remove_adapter(&mut self, adapter: Digest) {
        self.adapters.cancel(&adapter);
        for sequence in self.answers.using(&adapter) {
            self.abandon(sequence, UNLOADED, false);
        }
        self.work_off();
        // No pass from here on uses it; those in flight may.
        let newest = self.plan.as_ref().and_then(|plan| plan.passes.newest());
        let next = newest.map_or(0, |newest| newest + 1);
        self.adapters.remove(adapter, next);
        self.let_adapters_go();
    }

    /// Has stages drop adapters that no pass in flight uses any more.
    pub(super) fn let_adapters_go(&mut self) {
        let Some(plan) = self.plan.as_ref().filter(|plan| plan.is_up()) else {
            return self.adapters.forget_removed();
        };
        let oldest = plan.passes.oldest().unwrap_or(u64::MAX);
        for adapter in self.adapters.free(oldest) {
            self.send_all(&ToStage::RemoveAdapter(adapter));
        }
    }

    /// A plan is up: its stages load what was added since it was made.
    pub(super) fn load_adapters(&mut self) {
        let Some(plan) = &self.plan else {
            return;
        };
        let wanted = plan.lacks(self.context.adapters.all());
        for adapter in self.adapters.catch_up(wanted) {
            self.send_all(&ToStage::AddAdapter(adapter));
        }
    }
}
