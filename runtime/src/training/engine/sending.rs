//! Tensors on their way to another stage, signed.

use std::sync::Arc;

use concord_kernels::{KernelError, Tensor};
use concord_proto::AttemptId;
use concord_proto::wire::FrameHeader;
use concord_proto::{Origin, Port, WorkerId};

use super::{CommittedStage, EngineContext, EngineEffect};
use crate::tensor_blob;

/// Signs tensors and sends them.
pub(super) fn send(
    (job, attempt): (&CommittedStage, AttemptId),
    context: &EngineContext,
    to: WorkerId,
    microbatch: u32,
    port: Port,
    tensors: &[Arc<Tensor>],
) -> Result<(), KernelError> {
    let tensors = tensors
        .iter()
        .map(tensor_blob::on_host)
        .collect::<Result<Vec<_>, _>>()?;
    let message = Origin::message(&job.id, &attempt, microbatch, &port);
    let header = FrameHeader {
        job: job.id,
        attempt,
        epoch: job.plan.epoch,
        step: job.step,
        microbatch,
        port,
        origin: Origin::sign(&context.key, &message),
        bytes: tensors
            .iter()
            .map(|tensor| tensor_blob::encoded_len(tensor))
            .sum(),
    };
    let endpoint = job.endpoints[&to].clone();
    context.effect(EngineEffect::Send {
        endpoint,
        header: Box::new(header),
        tensors,
    });
    Ok(())
}
