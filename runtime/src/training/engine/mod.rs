//! The thread that owns the device while a worker trains: events in, effects out, one unit of work
//! at a time.
//!
//! A [`StageJob`] holds a [`CommittedStage`] and the [`run::StepRun`] in progress. Each of them
//! gets the [`EngineContext`] by reference, and a run gets the stage: nothing is taken out and put
//! back.

mod claim;
mod committed;
mod context;
mod job;
#[cfg(test)]
mod kept_tests;
mod leaves;
mod openings;
mod run;
mod sending;
mod sums;
#[cfg(test)]
pub(crate) mod tests;

use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError};

use concord_kernels::Tensor;
use concord_proto::session::{AuditedStep, Scalars, ToCoordinator};
use concord_proto::wire::FrameHeader;
use concord_proto::{Digest, JobId};

use super::assignment::FetchedStage;
use super::data::Microbatch;
use crate::RuntimeError;
use crate::blobs::OpenBlob;
use crate::witness::AttemptPlace;
use committed::CommittedStage;
use job::StageJob;

pub(crate) use context::{EngineContext, EngineShared};
pub(crate) use openings::Openings;

/// What happens to the engine.
pub(crate) enum EngineEvent {
    /// A stage and its state are at hand.
    Load(Box<FetchedStage>),
    /// A step starts, with the microbatches that the stage needs.
    Step {
        job: JobId,
        epoch: u32,
        step: u32,
        at: AttemptPlace,
        batches: Vec<(u32, Microbatch)>,
    },
    /// Tensors of another worker, checked against their digest and signature.
    Frame(Box<ReceivedFrame>),
    /// Hidden states of a microbatch are on the link to the next stage.
    Sent(SentMicrobatch),
    /// The scalars of the step.
    Scalars {
        job: JobId,
        epoch: u32,
        scalars: Scalars,
    },
    /// The step is final.
    Commit {
        job: JobId,
        epoch: u32,
        step: u32,
        release_below: u32,
    },
    /// Of a final step, these leaves may be asked for.
    Audited(AuditedStep),
    /// The plan is no more, or the coordinator is gone.
    Abort { job: JobId },
    /// The committed state is to be put into the store.
    Flush { job: JobId },
    /// The job is over.
    Forget { job: JobId },
}

/// A microbatch that is on its way.
pub(crate) struct SentMicrobatch {
    pub(crate) job: JobId,
    pub(crate) epoch: u32,
    pub(crate) step: u32,
    pub(crate) microbatch: u32,
}

/// Tensors that came from another worker.
pub(crate) struct ReceivedFrame {
    pub(crate) header: FrameHeader,
    pub(crate) tensors: Vec<Arc<Tensor>>,
    pub(crate) digests: Vec<Digest>,
}

/// What the engine wants done.
pub(crate) enum EngineEffect {
    /// Tell the coordinator.
    Report(ToCoordinator),
    /// Send tensors, which lie on the host, to a worker.
    Send {
        endpoint: String,
        header: Box<FrameHeader>,
        tensors: Vec<Arc<Tensor>>,
    },
    /// Put a state into the store, then tell the coordinator.
    Upload {
        job: JobId,
        epoch: u32,
        blobs: Vec<OpenBlob>,
        then: ToCoordinator,
    },
    /// The GPU cannot go on. The coordinator has been told.
    GpuGone(RuntimeError),
}

/// The engine of a worker that trains.
pub(crate) struct TrainingEngine {
    context: EngineContext,
    job: Option<StageJob>,
}

impl TrainingEngine {
    /// An engine without a job.
    pub(crate) fn new(context: EngineContext) -> Self {
        Self { context, job: None }
    }

    /// Works until the other end of `events` is gone.
    pub(crate) fn run(mut self, events: Receiver<EngineEvent>) {
        let device = self.context.device.clone();
        device.on_its_threads(move || {
            loop {
                match events.try_recv() {
                    Ok(event) => self.apply(event),
                    Err(TryRecvError::Disconnected) => return,
                    Err(TryRecvError::Empty) if self.work() => {}
                    Err(TryRecvError::Empty) => match events.recv() {
                        Ok(event) => self.apply(event),
                        Err(_) => return,
                    },
                }
            }
        });
    }

    fn apply(&mut self, event: EngineEvent) {
        let context = &self.context;
        match event {
            EngineEvent::Load(fetched) => self.load(*fetched),
            EngineEvent::Step {
                job,
                epoch,
                step,
                at,
                batches,
            } => {
                if let Some(held) = of_plan(&mut self.job, job, epoch) {
                    held.start_step(context, (at, step), batches);
                }
            }
            EngineEvent::Frame(frame) => {
                if let Some(held) = of_id(&mut self.job, frame.header.job) {
                    held.receive(*frame);
                }
            }
            EngineEvent::Sent(sent) => {
                if let Some(held) = of_plan(&mut self.job, sent.job, sent.epoch) {
                    held.sent(sent.step, sent.microbatch);
                }
            }
            EngineEvent::Scalars {
                job,
                epoch,
                scalars,
            } => {
                if let Some(held) = of_plan(&mut self.job, job, epoch) {
                    held.update(context, &scalars);
                }
            }
            EngineEvent::Commit {
                job,
                epoch,
                step,
                release_below,
            } => {
                if let Some(held) = of_id(&mut self.job, job) {
                    if held.epoch() == epoch {
                        held.commit(context, step);
                    }
                    context.openings(|openings| openings.release(&job, release_below));
                }
            }
            EngineEvent::Audited(audited) => context.openings(|openings| openings.keep(&audited)),
            EngineEvent::Abort { job } => {
                if let Some(held) = of_id(&mut self.job, job) {
                    held.abort(context);
                }
            }
            EngineEvent::Flush { job } => {
                if let Some(held) = of_id(&mut self.job, job) {
                    held.flush(context);
                }
            }
            EngineEvent::Forget { job } => {
                if of_id(&mut self.job, job).is_some() {
                    self.job = None;
                    context.set_held(None);
                }
                context.openings(|openings| openings.release(&job, u32::MAX));
            }
        }
    }

    /// Does one unit of work. False where there is none.
    fn work(&mut self) -> bool {
        let (context, job) = (&self.context, &mut self.job);
        job.as_mut().is_some_and(|job| job.work(context))
    }

    fn load(&mut self, fetched: FetchedStage) {
        let context = &self.context;
        let (job, epoch) = (fetched.job, fetched.plan.epoch);
        // Two stages may be more than the device holds.
        if let Some(old) = &mut self.job {
            old.unload(context);
        }
        match StageJob::load(context, fetched) {
            Ok(held) => {
                context.set_held(Some(held.held()));
                self.job = Some(held);
                context.report(ToCoordinator::Ready { job, epoch });
            }
            Err(error) => context.fail(job, epoch, error),
        }
    }
}

/// The job held, if it is this one.
fn of_id(held: &mut Option<StageJob>, job: JobId) -> Option<&mut StageJob> {
    held.as_mut().filter(|held| held.id() == job)
}

/// The job held, if it is this one under the plan of this epoch.
fn of_plan(held: &mut Option<StageJob>, job: JobId, epoch: u32) -> Option<&mut StageJob> {
    of_id(held, job).filter(|held| held.epoch() == epoch)
}
