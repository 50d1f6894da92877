//! The error of every operation.

use crate::gpu::CudaError;

/// What an operation refuses, by name, with the values that it refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KernelError {
    /// A NaN or an infinity stands where a finite number is needed.
    #[error("{tensor}: element {index} is {value}: not a finite number")]
    NotFinite {
        /// Name of the tensor, as the caller knows it.
        tensor: String,
        /// Flat row-major index of the first such element.
        index: usize,
        /// The value found.
        value: f32,
    },
    /// The data does not fill the shape.
    #[error("a tensor of shape {shape:?} needs {expected} elements, got {got}")]
    ShapeMismatch {
        /// The shape asked for.
        shape: Vec<usize>,
        /// Product of the shape.
        expected: usize,
        /// Elements given.
        got: usize,
    },
    /// Pages, rows or token ids of a request do not fit what is there: they come over the wire.
    #[error("a request that does not fit: {0}")]
    DoesNotFit(String),
    /// Devices that share a product cannot go on.
    #[error("devices that share a product cannot go on: {0}")]
    Collective(String),
    /// A GPU cannot do what it was asked for.
    #[error(transparent)]
    Cuda(#[from] CudaError),
}
