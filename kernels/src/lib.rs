//! Tensors, and every operation that a decoder needs, with the same bits on every device.

#![deny(unsafe_op_in_unsafe_fn)]

mod buffer;
pub mod coded;
pub mod collective;
pub mod conformance;
pub mod cpu;
pub mod cuda;
mod device;
mod ids;
pub mod isa;
pub mod math;
pub mod ops;
pub mod reference;
pub mod rng;
pub mod tables;
mod tensor;

pub use buffer::Buffer;
pub use device::Device;
pub use ids::{Ids, NO_ID};
pub use tensor::{KernelError, Tensor};
