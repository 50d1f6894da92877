//! The operations on every instruction set and thread count of this machine, and what they refuse:
//! a file for each operation.

mod adamw_8bit;
mod code;
mod conformance;
mod elementwise;
mod experts;
mod lion;
mod lion_8bit;
mod logprobs;
mod matmul;
mod pages;
mod random;
mod route;
mod sample;
mod sgd;

use concord_kernels::{Device, KernelError};

/// Devices that must refuse the same.
fn hosts() -> [Device; 2] {
    [Device::Reference, Device::cpu(2)]
}

/// The reason of a request that does not fit.
fn reason<T: std::fmt::Debug>(result: Result<T, KernelError>) -> String {
    match result {
        Err(KernelError::DoesNotFit(reason)) => reason,
        other => panic!("{other:?}"),
    }
}
