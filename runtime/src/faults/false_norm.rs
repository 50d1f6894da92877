//! Reports, and claims, a squared norm that is not that of its gradient: with a huge or infinite
//! one every update is clipped to nothing, with one that is no number none is clipped.

use concord_proto::TensorNorm;

use super::FaultHooks;

#[derive(Debug)]
pub(super) struct FalseNorm {
    pub(super) from_step: u32,
    pub(super) squared: f32,
}

impl FaultHooks for FalseNorm {
    fn after_norms(&self, step: u32, norms: &mut [TensorNorm]) {
        if let (true, Some(first)) = (step >= self.from_step, norms.first_mut()) {
            first.squared = self.squared.into();
        }
    }
}
