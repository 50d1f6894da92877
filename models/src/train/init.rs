//! Initial values of low-rank factors: A uniform in `+-1/sqrt(in)` (as in peft), B zero.

use concord_kernels::Tensor;
use concord_kernels::rng::Philox;

use crate::decoder::TrainableTensor;

/// The initial value of a low-rank factor. `index` is the tensor's index in the list of trained
/// tensors; the random stream is keyed by (seed, index, element).
pub fn lora_init(tensor: &TrainableTensor, index: usize, seed: u64) -> Tensor {
    if !tensor.name.ends_with("lora_A.weight") {
        return Tensor::zeros(&tensor.shape);
    }
    let stream = Philox::new(seed, index as u64);
    let bound = 1.0 / (tensor.shape[1] as f32).sqrt();
    let value = |counter| (2.0 * stream.unit(counter) - 1.0) * bound;
    let len = tensor.shape.iter().product::<usize>() as u64;
    let values: Vec<f32> = (0..len).map(value).collect();
    Tensor::new(&tensor.shape, values).expect("the values were made for the shape")
}
