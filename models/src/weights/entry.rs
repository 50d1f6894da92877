//! Where a tensor lies in a file of weights.

use safetensors::Dtype;

/// A tensor of a file.
#[derive(Clone, Debug)]
pub(super) struct TensorEntry {
    pub(super) dtype: Dtype,
    pub(super) shape: Vec<usize>,
    /// First and one-past-last byte, from the start of the file.
    pub(super) bytes: (usize, usize),
}
