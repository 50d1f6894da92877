//! Times operations on a GPU, and formats the results.

use concord_kernels::cuda::CudaError;
use concord_kernels::rng::Philox;
use concord_kernels::{Device, KernelError, Tensor};
use indicatif::ProgressBar;
use serde::Serialize;

use super::ceilings::Ceilings;
use super::clock::Clock;

/// How many random numbers are drawn; larger tensors repeat them.
const DRAWN: usize = 1 << 16;

/// One operation.
#[derive(Clone, Debug, Serialize)]
pub struct Timed {
    /// The operation.
    pub name: String,
    /// The shape of its operands.
    pub shape: String,
    pub seconds: f64,
    /// Elements per second; `None` for products.
    pub elements_per_second: Option<f64>,
    /// Bytes per second that it must at least read and write; `None` for products.
    pub bytes_per_second: Option<f64>,
    /// Multiplications and additions of whole codes per second; only for products.
    pub operations_per_second: Option<f64>,
    /// The share of the ceiling that it reaches.
    pub share: f64,
    /// Which ceiling.
    pub ceiling: String,
}

/// The least work of an operation.
#[derive(Clone, Copy, Debug)]
pub enum TimedWork {
    /// Memory traffic: elements, and bytes that are read and written.
    Memory { elements: usize, bytes: usize },
    /// Products of 16-bit codes, each made of four products of 8-bit digits: the number of
    /// multiplications and additions.
    Products(f64),
}

/// Products of 8-bit digits in a product of two 16-bit codes.
pub const DIGIT_PRODUCTS: f64 = 4.0;

/// Where operations are timed.
pub struct TimingBench<'a> {
    /// The GPU.
    pub device: &'a Device,
    pub clock: Clock<'a>,
    /// The speeds that it can reach.
    pub ceilings: &'a Ceilings,
    /// The results so far.
    pub timed: Vec<Timed>,
    /// Operations that were left out because the GPU had too little memory.
    pub left_out: Vec<String>,
    /// Shows which operation is being timed.
    pub bar: ProgressBar,
}

impl TimingBench<'_> {
    /// Random numbers in [-1, 1] of shape `shape`, on the GPU.
    ///
    /// # Errors
    /// [`KernelError::Cuda`] where the GPU is out of memory or lost.
    pub fn random(&self, shape: &[usize]) -> Result<Tensor, KernelError> {
        self.device.place(random(shape)?)
    }

    /// Times one operation.
    ///
    /// # Errors
    /// Those of the operation.
    pub fn time(
        &mut self,
        name: &str,
        shape: impl Into<String>,
        work: TimedWork,
        operation: impl FnMut() -> Result<(), KernelError>,
    ) -> Result<(), KernelError> {
        self.bar.set_message(format!("timing {name}"));
        let seconds = self.clock.seconds(operation)?;
        let timed = match work {
            TimedWork::Memory { elements, bytes } => {
                let rate = bytes as f64 / seconds;
                Timed {
                    name: name.to_string(),
                    shape: shape.into(),
                    seconds,
                    elements_per_second: Some(elements as f64 / seconds),
                    bytes_per_second: Some(rate),
                    operations_per_second: None,
                    share: rate / self.ceilings.copy_bytes_per_second,
                    ceiling: "copies".to_string(),
                }
            }
            TimedWork::Products(operations) => {
                let rate = operations / seconds;
                let (unit, best) = self.ceilings.best_unit();
                Timed {
                    name: name.to_string(),
                    shape: shape.into(),
                    seconds,
                    elements_per_second: None,
                    bytes_per_second: None,
                    operations_per_second: Some(rate),
                    share: DIGIT_PRODUCTS * rate / best,
                    ceiling: unit.to_string(),
                }
            }
        };
        self.timed.push(timed);
        Ok(())
    }

    /// Times a group of operations; it is left out where the GPU has too little memory.
    ///
    /// # Errors
    /// Those of the operations, except a lack of memory.
    pub fn group(
        &mut self,
        name: &str,
        time: impl FnOnce(&mut Self) -> Result<(), KernelError>,
    ) -> Result<(), KernelError> {
        self.bar.set_message(format!("timing {name}"));
        match time(self) {
            Err(KernelError::Cuda(error @ CudaError::OutOfMemory { .. })) => {
                self.left_out.push(format!("{name}: {error}"));
                Ok(())
            }
            other => other,
        }
    }
}

/// Random numbers in [-1, 1], on the host.
///
/// # Errors
/// None in practice: the elements fill the shape.
pub fn random(shape: &[usize]) -> Result<Tensor, KernelError> {
    let len: usize = shape.iter().product();
    let stream = Philox::new(0, 0);
    let drawn: Vec<f32> = (0..len.min(DRAWN) as u64)
        .map(|i| 2.0 * stream.unit(i) - 1.0)
        .collect();
    let numbers: Vec<f32> = drawn.iter().copied().cycle().take(len).collect();
    Tensor::new(shape, numbers)
}

/// A time as text, such as "12.3 us".
pub fn time(seconds: f64) -> String {
    match seconds {
        s if s >= 1.0 => format!("{s:.2} s"),
        s if s >= 1e-3 => format!("{:.2} ms", s * 1e3),
        s => format!("{:.1} us", s * 1e6),
    }
}

/// A rate as text, such as "1.23 Gop/s"; "-" for `None`.
pub fn rate(rate: Option<f64>, unit: &str) -> String {
    match rate {
        None => "-".to_string(),
        Some(r) if r >= 1e12 => format!("{:.2} T{unit}", r / 1e12),
        Some(r) if r >= 1e9 => format!("{:.1} G{unit}", r / 1e9),
        Some(r) => format!("{:.1} M{unit}", r / 1e6),
    }
}

/// A share as text, such as "83 %".
pub fn percent(share: f64) -> String {
    format!("{:.0} %", share * 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        assert_eq!(time(0.000_012_34), "12.3 us");
        assert_eq!(time(0.012_34), "12.34 ms");
        assert_eq!(rate(Some(1.5e12), "op/s"), "1.50 Top/s");
        assert_eq!(rate(Some(2.5e9), "B/s"), "2.5 GB/s");
        assert_eq!(rate(None, "B/s"), "-");
        assert_eq!(percent(0.834), "83 %");
    }

    #[test]
    fn random_numbers_fill_any_shape() {
        let numbers = random(&[3, DRAWN]).unwrap();
        assert_eq!(numbers.len(), 3 * DRAWN);
        assert_eq!(numbers.data()[5], numbers.data()[DRAWN + 5]);
        assert_ne!(numbers.data()[5], numbers.data()[6]);
    }
}
