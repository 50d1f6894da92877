//! Tensors, and every operation that a decoder needs, with the same bits on every device.

#![deny(unsafe_op_in_unsafe_fn)]

pub mod coded;
pub mod cpu;
mod device;
pub mod isa;
pub mod math;
pub mod ops;
pub mod reference;
pub mod rng;
pub mod tables;
mod tensor;

pub use device::Device;
pub use tensor::{KernelError, Tensor};
