//! How low-rank factors begin: A uniform in `+-1/sqrt(in)` (as peft does), B zero.

use concord_kernels::Tensor;
use concord_kernels::rng::Philox;

use crate::decoder::TrainableTensor;

/// The first value of a low-rank factor. `index` is the tensor's place in the list of what is
/// trained: the random stream is keyed by (seed, index, element).
pub fn lora_init(tensor: &TrainableTensor, index: usize, seed: u64) -> Tensor {
    let mut value = Tensor::zeros(&tensor.shape);
    if tensor.name.ends_with("lora_A.weight") {
        let stream = Philox::new(seed, index as u64);
        let bound = 1.0 / (tensor.shape[1] as f32).sqrt();
        for (counter, v) in (0..).zip(value.data_mut()) {
            *v = (2.0 * stream.unit(counter) - 1.0) * bound;
        }
    }
    value
}
