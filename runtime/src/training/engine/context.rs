//! What the engine works with, whichever job it holds: device, key, and its channels.

use std::sync::{Arc, Mutex, PoisonError};

use concord_kernels::Device;
use concord_proto::session::{Held, ToCoordinator};
use concord_proto::{JobId, Keypair};
use tokio::sync::mpsc;

use super::{EngineEffect, Openings};
use crate::RuntimeError;
use crate::faults::Faults;

/// What the engine shares with the gRPC server.
#[derive(Clone, Default)]
pub(crate) struct EngineShared {
    /// What audits may ask for.
    pub(crate) openings: Arc<Mutex<Openings>>,
    /// The state held, for the next hello.
    pub(crate) held: Arc<Mutex<Option<Held>>>,
}

/// The context of every unit of work: no state of a job is in it.
pub(crate) struct EngineContext {
    pub(crate) device: Device,
    pub(crate) device_name: String,
    pub(crate) key: Keypair,
    pub(crate) shared: EngineShared,
    pub(crate) effects: mpsc::Sender<EngineEffect>,
    pub(crate) faults: Faults,
}

impl EngineContext {
    /// Says that a job cannot go on here under its present plan.
    pub(super) fn fail(&self, job: JobId, epoch: u32, error: RuntimeError) {
        let reason = error.to_string();
        if error.out_of_memory().is_some()
            && let Err(error) = self.openings(Openings::fetch)
        {
            // The next work on the GPU fails, too, and is reported.
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

    pub(super) fn set_held(&self, held: Option<Held>) {
        let mut shared = self
            .shared
            .held
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *shared = held;
    }

    pub(super) fn openings<R>(&self, action: impl FnOnce(&mut Openings) -> R) -> R {
        let openings = self.shared.openings.lock();
        action(&mut openings.unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn report(&self, message: ToCoordinator) {
        self.effect(EngineEffect::Report(message));
    }

    /// Hands an effect to the driver. If the driver is gone, the worker ends.
    pub(super) fn effect(&self, effect: EngineEffect) {
        if self.effects.blocking_send(effect).is_err() {
            tracing::debug!("the driver is gone; an effect is dropped");
        }
    }
}
