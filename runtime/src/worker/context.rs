//! What outlives the sessions of a worker.

use std::sync::mpsc::SyncSender;

use concord_kernels::Device;
use concord_proto::Keypair;
use concord_proto::session::Hello;

use super::WorkerOptions;
use crate::heads::Heads;
use crate::serving::transport::StageHandle;
use crate::training::engine::EngineEvent;
use crate::witness::Witness;

/// Effects that may wait for the driver.
pub(super) const EFFECTS_MAX: usize = 256;

/// What every session of a worker is handed.
pub(super) struct WorkerContext {
    pub(super) options: WorkerOptions,
    pub(super) key: Keypair,
    pub(super) witness: Witness,
    pub(super) heads: Heads,
    pub(super) hello: Hello,
    pub(super) events: SyncSender<EngineEvent>,
    pub(super) stage: StageHandle,
    /// For stages that serve: the engine of training keeps a thread of its device.
    pub(super) stage_device: Device,
}
