//! What goes from worker to worker.

use concord_proto::{AttemptId, JobId, Origin, Port, WorkerId};

use super::arithmetic::PerTensor;

/// What is behind a digest that goes from worker to worker.
#[derive(Clone, Debug)]
pub struct Frame {
    pub to: WorkerId,
    pub job: JobId,
    pub attempt: AttemptId,
    pub epoch: u32,
    pub step: u32,
    pub microbatch: u32,
    pub port: Port,
    pub origin: Origin,
    /// The digests of a sum.
    pub sum: PerTensor,
}
