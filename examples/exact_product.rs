//! Computes a product of two tensors on every instruction set of this machine and on the scalar
//! reference: all have the same bits, which an ordinary f32 product does not guarantee.
//!
//! `cargo run --release --example exact_product`

use concord_kernels::coded::Precision;
use concord_kernels::cpu::Cpu;
use concord_kernels::isa::Isa;
use concord_kernels::rng::Philox;
use concord_kernels::{Device, KernelError, Tensor};

/// A matrix of numbers from -1 to 1, a function of `seed`.
fn matrix(seed: u64, rows: usize, cols: usize) -> Result<Tensor, KernelError> {
    let stream = Philox::new(seed, 0);
    let numbers = (0..(rows * cols) as u64).map(|index| 2.0 * stream.unit(index) - 1.0);
    Tensor::new(&[rows, cols], numbers.collect::<Vec<f32>>())
}

/// `y = x w^T` on a device: each row of both sides becomes integers with one exponent, the
/// products of the integers are summed exactly, and every element is rounded once.
fn product(device: &Device, x: &Tensor, w: &Tensor) -> Result<Tensor, KernelError> {
    let (_, depth) = x.rows_cols();
    let x = device.code(x, depth, Precision::I16)?;
    let w = device.code(w, depth, Precision::I16)?;
    device.matmul(&x, &w)
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (x, w) = (matrix(1, 33, 1_000)?, matrix(2, 17, 1_000)?);
    let expected = product(&Device::Reference, &x, &w)?;
    println!("reference: y[0][0] = {}", expected.data()[0]);
    for isa in Isa::ALL.into_iter().filter(|isa| isa.is_available()) {
        for threads in [1, 3] {
            let device = Device::Cpu(Cpu::new(isa, threads));
            let y = product(&device, &x, &w)?;
            let mut pairs = y.data().iter().zip(expected.data());
            if pairs.any(|(got, expected)| got.to_bits() != expected.to_bits()) {
                return Err(format!("{} gives other bits", device.name()).into());
            }
            println!("{}: the same bits", device.name());
        }
    }
    Ok(())
}
