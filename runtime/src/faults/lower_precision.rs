//! Computes with weights of 8 bits, from the first step on: a stage is loaded once.

use concord_kernels::coded::Precision;
use concord_models::decoder::StageOptions;

use super::FaultHooks;

#[derive(Debug)]
pub(super) struct LowerPrecision;

impl FaultHooks for LowerPrecision {
    fn before_loading_stage(&self, options: &mut StageOptions) {
        options.precisions.weights = Precision::I8;
    }
}
