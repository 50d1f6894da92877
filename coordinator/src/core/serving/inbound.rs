//! What workers and the tasks that serve say.

use concord_proto::serving::AnswerVerdict;
use concord_proto::session::ToCoordinator;
use concord_proto::{Layers, WorkerId};

use super::{Deployed, EventContext, ServingEvent, reported};

/// A worker whose stage stream broke while its session goes on is left alone for this long, where
/// others can take over.
const STREAM_PAUSE_US: u64 = 2_000_000;

/// A worker that says that it cannot load its layers, or cannot go on with them.
struct StageFailure {
    epoch: u32,
    reason: String,
    /// Whether another worker would fail in the same way.
    permanent: bool,
}

/// A worker that does not take what the one before it sends.
struct Refusal {
    pipeline: u32,
    epoch: u32,
    stage: u32,
    reason: String,
}

/// A verdict whose words can be shown.
fn printable(verdict: AnswerVerdict) -> AnswerVerdict {
    match verdict {
        AnswerVerdict::Altered { what } => AnswerVerdict::Altered {
            what: reported(what),
        },
        AnswerVerdict::Inconclusive { why } => AnswerVerdict::Inconclusive { why: reported(why) },
        AnswerVerdict::Agrees
        | AnswerVerdict::WrongStage { .. }
        | AnswerVerdict::Gap { .. }
        | AnswerVerdict::WrongDraw { .. }
        | AnswerVerdict::WrongLogprob { .. } => verdict,
    }
}

impl Deployed {
    pub(in crate::core) fn on_message(
        &mut self,
        context: &mut EventContext,
        worker: WorkerId,
        message: ToCoordinator,
    ) {
        match message {
            ToCoordinator::StandsBy {
                deployment, layers, ..
            } => {
                if deployment == self.id {
                    self.on_stands_by(worker, layers);
                }
            }
            ToCoordinator::StageFailed {
                deployment,
                epoch,
                reason,
                permanent,
            } => {
                let failure = StageFailure {
                    epoch,
                    reason: reported(reason),
                    permanent,
                };
                if deployment == self.id {
                    self.on_failed(context, worker, failure);
                }
            }
            ToCoordinator::AnswerVerdict { order, verdict } => {
                self.on_verdict(context, worker, order, printable(verdict));
            }
            // Handled by the session.
            ToCoordinator::Hello(_) | ToCoordinator::Heartbeat | ToCoordinator::Drain => {}
            // About a job that the worker had before: nothing is trained here.
            ToCoordinator::Ready { .. }
            | ToCoordinator::Failed { .. }
            | ToCoordinator::Computed { .. }
            | ToCoordinator::Updated { .. }
            | ToCoordinator::Flushed { .. }
            | ToCoordinator::Verdict { .. }
            | ToCoordinator::Enrolled { .. }
            | ToCoordinator::Revealed { .. }
            | ToCoordinator::OutOfMemory { .. }
            | ToCoordinator::Unreached { .. } => {}
        }
    }

    pub(in crate::core) fn on_event(&mut self, context: &mut EventContext, event: ServingEvent) {
        match event {
            ServingEvent::Running { pipeline, epoch } => self.on_running(context, pipeline, epoch),
            ServingEvent::Lost {
                pipeline,
                epoch,
                worker,
                reason,
                is_here,
            } => {
                let current = self.pipelines.at(pipeline, epoch);
                if current.is_some_and(|p| p.workers().contains(&worker)) {
                    if is_here {
                        context.members.failed(context.now, &worker);
                    } else {
                        let pause = STREAM_PAUSE_US;
                        context.members.pause(context.now, &worker, pause);
                    }
                    let reason = format!("worker {}: {}", worker.short(), reported(reason));
                    self.fill(context, pipeline as usize, &reason);
                }
            }
            ServingEvent::Refused {
                pipeline,
                epoch,
                stage,
                reason,
            } => {
                let refusal = Refusal {
                    pipeline,
                    epoch,
                    stage,
                    reason: reported(reason),
                };
                self.on_refused(context, &refusal);
            }
            ServingEvent::Distrusted { worker, reason } => {
                self.distrust(context, worker, &reported(reason));
            }
            ServingEvent::Guilty {
                worker,
                offence,
                evidence,
            } => self.convict(context, worker, offence, &reported(evidence)),
            ServingEvent::Adapters(adapters) => self.adapters = adapters,
            ServingEvent::Audit {
                receipt,
                name,
                signers,
            } => self.audits.draw(context.now, receipt, name, signers),
        }
    }

    /// One of two neighbours is wrong, and nothing proves which: they are separated. A worker that
    /// has been separated from two others is out.
    fn on_refused(&mut self, context: &mut EventContext, refusal: &Refusal) {
        let current = self.pipelines.at(refusal.pipeline, refusal.epoch);
        let pair = current.and_then(|pipeline| pipeline.neighbours(refusal.stage));
        let Some((sender, receiver)) = pair else {
            return;
        };
        let culprit = self.workers.note_refusal(sender, receiver);
        let (from, to) = (sender.short(), receiver.short());
        let reason = &refusal.reason;
        let reason = format!("worker {to} refuses what worker {from} sends: {reason}");
        match culprit {
            Some(culprit) => self.distrust(context, culprit, &reason),
            None => {
                context
                    .members
                    .pause(context.now, &receiver, STREAM_PAUSE_US);
                self.fill(context, refusal.pipeline as usize, &reason);
            }
        }
    }

    fn on_running(&mut self, context: &mut EventContext, pipeline: u32, epoch: u32) {
        let Some(pipeline) = self.pipelines.at_mut(pipeline, epoch) else {
            return;
        };
        pipeline.run();
        for (worker, layers) in pipeline.holders() {
            self.workers.note_running(worker, layers);
            if let Some(member) = context.members.get_mut(&worker) {
                member.failures = 0;
            }
        }
    }

    fn on_stands_by(&mut self, worker: WorkerId, layers: Vec<Layers>) {
        let known = |layers: &Layers| self.pipelines.have_stage(layers);
        let layers = layers.into_iter().filter(known);
        self.workers.note_standing_by(worker, layers);
    }

    fn on_failed(&mut self, context: &mut EventContext, worker: WorkerId, failure: StageFailure) {
        let holding = self.pipelines.held_by(&worker);
        let epoch = holding.map(|held| self.pipelines.get(held.pipeline).epoch());
        if epoch.is_some_and(|epoch| epoch != failure.epoch) {
            return;
        }
        let reason = failure.reason;
        tracing::warn!(worker = %worker.short(), %reason, "a worker cannot hold its layers");
        context.members.failed(context.now, &worker);
        if failure.permanent {
            self.workers.give_up(worker, &reason);
        }
        let Some(held) = holding else {
            // It only stood by: after its pause it is asked again.
            self.workers.drop_layers(&worker);
            return;
        };
        let layers = self.pipelines.get(held.pipeline).stages()[held.stage];
        if self.workers.note_failure(worker, layers, &reason) {
            let bytes = self.bytes(layers, 0);
            self.workers.limit_room(worker, bytes);
        }
        let reason = format!("worker {}: {reason}", worker.short());
        self.fill(context, held.pipeline, &reason);
    }
}
