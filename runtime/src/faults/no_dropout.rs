//! Drops nothing where the job drops inputs of the adapter.

use concord_models::decoder::Batch;

use super::FaultHooks;

#[derive(Debug)]
pub(super) struct NoDropout {
    /// The first false step, from 0.
    pub from_step: u32,
}

impl FaultHooks for NoDropout {
    fn before_forward(&self, step: u32, batch: &Batch) -> Option<Batch> {
        (step >= self.from_step).then(|| {
            let mut whole = batch.clone();
            whole.regularization.lora_dropout = 0.0;
            whole
        })
    }
}
