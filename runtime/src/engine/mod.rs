//! The thread that owns the device: events in, effects out, one unit of work at a time.

mod job;
mod leaves;
mod openings;
mod run;

use std::sync::mpsc::{Receiver, TryRecvError};
use std::sync::{Arc, Mutex};

use concord_kernels::{Device, Tensor};
use concord_proto::session::{Held, Scalars, ToCoordinator};
use concord_proto::wire::FrameHeader;
use concord_proto::{Digest, JobId, Keypair};

use crate::RuntimeError;
use crate::data::Microbatch;

pub(crate) use job::{Job, LoadedStage};
pub(crate) use openings::Openings;

/// What happens to the engine.
pub(crate) enum EngineEvent {
    /// A stage and its state are at hand.
    Load(Box<LoadedStage>),
    /// A step starts, with the microbatches that the stage needs.
    Step {
        job: JobId,
        epoch: u32,
        step: u32,
        batches: Vec<(u32, Microbatch)>,
    },
    /// Tensors of another worker, checked against their digest and signature.
    Frame(Box<ReceivedFrame>),
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
    /// Openings below a step may go.
    Release { job: JobId, below: u32 },
    /// The plan is no more; or the coordinator is gone, with epoch 0 for any.
    Abort { job: JobId },
    /// The committed state is wanted in the store.
    Flush { job: JobId },
    /// The job is over.
    Forget { job: JobId },
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
    /// Put tensors into the store, then tell the coordinator.
    Upload {
        job: JobId,
        epoch: u32,
        tensors: Vec<Arc<Tensor>>,
        then: ToCoordinator,
    },
    /// The GPU cannot go on. The coordinator has been told.
    GpuGone(RuntimeError),
}

/// What engine and gRPC server share.
#[derive(Clone, Default)]
pub(crate) struct Shared {
    /// What audits may ask for.
    pub(crate) openings: Arc<Mutex<Openings>>,
    /// The state held, for the next hello.
    pub(crate) held: Arc<Mutex<Option<Held>>>,
}

/// The engine of a worker.
pub(crate) struct Engine {
    pub(crate) device: Device,
    pub(crate) device_name: String,
    pub(crate) key: Keypair,
    pub(crate) shared: Shared,
    pub(crate) effects: tokio::sync::mpsc::Sender<EngineEffect>,
    pub(crate) job: Option<Job>,
    #[cfg(feature = "wrong-data")]
    pub(crate) wrong_data: Option<crate::wrong_data::WrongData>,
    #[cfg(feature = "liars")]
    pub(crate) lie: Option<crate::liar::Lie>,
}

impl Engine {
    /// Works until the other end of `events` is gone.
    pub(crate) fn run(mut self, events: Receiver<EngineEvent>) {
        let device = self.device.clone();
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
        match event {
            EngineEvent::Load(loaded) => self.load(*loaded),
            EngineEvent::Step {
                job,
                epoch,
                step,
                batches,
            } => {
                self.with_job(job, |engine, held| {
                    if held.plan.epoch == epoch {
                        held.start_step(engine, step, batches);
                    }
                });
            }
            EngineEvent::Frame(frame) => {
                self.with_job(frame.header.job, |_, held| held.receive(*frame));
            }
            EngineEvent::Scalars {
                job,
                epoch,
                scalars,
            } => {
                self.with_job(job, |engine, held| {
                    if held.plan.epoch == epoch {
                        held.update(engine, &scalars);
                    }
                });
            }
            EngineEvent::Commit {
                job,
                epoch,
                step,
                release_below,
            } => {
                self.with_job(job, |engine, held| {
                    if held.plan.epoch == epoch {
                        held.commit(engine, step);
                    }
                    engine.openings(|openings| openings.release(&job, release_below));
                });
            }
            EngineEvent::Release { job, below } => {
                self.openings(|openings| openings.release(&job, below));
            }
            EngineEvent::Abort { job } => self.with_job(job, |engine, held| held.abort(engine)),
            EngineEvent::Flush { job } => self.with_job(job, |engine, held| held.flush(engine)),
            EngineEvent::Forget { job } => {
                if self.job.as_ref().is_some_and(|held| held.id == job) {
                    self.job = None;
                    self.set_held(None);
                }
                self.openings(|openings| openings.release(&job, u32::MAX));
            }
        }
    }

    /// Does one unit of work. False where there is none.
    fn work(&mut self) -> bool {
        let Some(mut job) = self.job.take() else {
            return false;
        };
        let worked = match job.work(self) {
            Ok(worked) => worked,
            Err(error) => {
                job.fail(self, error);
                false
            }
        };
        self.job = Some(job);
        worked
    }

    fn load(&mut self, loaded: LoadedStage) {
        let (job, epoch) = (loaded.job, loaded.plan.epoch);
        // Two stages may be more than the device holds.
        if let Some(mut old) = self.job.take() {
            old.unload(self);
            self.job = Some(old);
        }
        match Job::load(&self.device, loaded) {
            Ok(held) => {
                self.set_held(Some(held.held()));
                self.job = Some(held);
                self.report(ToCoordinator::Ready { job, epoch });
            }
            Err(error) => self.fail(job, epoch, error),
        }
    }

    /// Says that a job cannot go on here under its present plan.
    pub(crate) fn fail(&self, job: JobId, epoch: u32, error: RuntimeError) {
        let reason = error.to_string();
        if error.out_of_memory().is_some()
            && let Err(error) = self.openings(Openings::fetch)
        {
            // Whatever works on the GPU next says so, too.
            tracing::warn!("openings cannot be fetched: {error}");
        }
        if error.gpu_is_gone() {
            // The next plan must not count on this worker while it takes its leave.
            self.report(ToCoordinator::Drain);
        }
        self.report(match error.out_of_memory() {
            Some((needed_bytes, limit_bytes)) => ToCoordinator::OutOfMemory {
                job,
                epoch,
                reason,
                needed_bytes,
                limit_bytes,
            },
            None => ToCoordinator::Failed {
                job,
                epoch,
                reason,
                permanent: error.is_of_job(),
            },
        });
        if error.gpu_is_gone() {
            self.effect(EngineEffect::GpuGone(error));
        }
    }

    /// Runs `action` on the job, if it is the one held.
    fn with_job(&mut self, job: JobId, action: impl FnOnce(&mut Self, &mut Job)) {
        let Some(mut held) = self.job.take() else {
            return;
        };
        if held.id == job {
            action(self, &mut held);
        }
        self.job = Some(held);
    }

    pub(crate) fn set_held(&self, held: Option<Held>) {
        *self
            .shared
            .held
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner) = held;
    }

    pub(crate) fn openings<R>(&self, action: impl FnOnce(&mut Openings) -> R) -> R {
        let mut openings = self
            .shared
            .openings
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        action(&mut openings)
    }

    pub(crate) fn report(&self, message: ToCoordinator) {
        self.effect(EngineEffect::Report(message));
    }

    /// Hands an effect to the driver. Where the driver is gone, so is the worker.
    pub(crate) fn effect(&self, effect: EngineEffect) {
        if self.effects.blocking_send(effect).is_err() {
            tracing::debug!("the driver is gone; an effect is dropped");
        }
    }
}
