//! Tensors, and every operation that a decoder needs, with the same bits on every device.
//!
//! [`ops`] has the operations as methods of [`Device`]; [`mod@reference`] has each as scalar code
//! that reads like NUMERICS.md; [`cpu`] has it with SIMD and threads, [`cuda`] on a [`gpu`]. A
//! product on the reference and on the best instruction set of this machine:
//!
//! ```
//! use concord_kernels::coded::Precision;
//! use concord_kernels::{Device, Tensor};
//!
//! let x = Tensor::new(&[2, 3], vec![0.1, -2.0, 3.5, 1e-6, 0.0, 7.0])?;
//! let w = Tensor::new(&[2, 3], vec![1.0, 0.3, -0.7, 1e-3, 5.0, 0.2])?;
//! let product = |device: &Device| {
//!     let code = |x: &Tensor| device.code(x, 3, Precision::I16);
//!     device.matmul(&code(&x)?, &code(&w)?)
//! };
//! let (reference, fast) = (product(&Device::Reference)?, product(&Device::cpu(2))?);
//! assert_eq!(reference.shape(), [2, 2]);
//! let bits = |y: &Tensor| y.data().iter().map(|v| v.to_bits()).collect::<Vec<_>>();
//! assert_eq!(bits(&reference), bits(&fast));
//! # Ok::<(), concord_kernels::KernelError>(())
//! ```

#![deny(unsafe_op_in_unsafe_fn)]

mod buffer;
pub mod coded;
pub mod collective;
pub mod conformance;
pub mod cpu;
pub mod cuda;
mod device;
mod error;
pub mod gpu;
mod ids;
pub mod isa;
pub mod math;
mod moment;
pub mod ops;
pub mod packed;
pub mod reference;
pub mod rng;
pub mod tables;
mod tensor;
mod weight;

pub use buffer::Buffer;
pub use device::Device;
pub use error::KernelError;
pub use ids::{Ids, NO_ID};
pub use moment::{MomentKind, PackedMoment};
pub use tensor::Tensor;
pub use weight::{Weight, WeightRef};
