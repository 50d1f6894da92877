//! The speeds that the GPU can reach, measured here and not taken from a data sheet.

use concord_kernels::KernelError;
use concord_kernels::cuda::Cuda;
use concord_kernels::cuda::peak::{self, Copied, Unit};
use serde::Serialize;

use super::SuiteSize;
use super::clock::Clock;

/// The most bytes that are copied to measure copies.
const COPIED_MAX: u64 = 1 << 30;

/// The highest speeds that a GPU reaches.
#[derive(Clone, Debug, Serialize)]
pub struct Ceilings {
    /// Bytes per second of copies; bytes that are read and bytes that are written both count.
    pub copy_bytes_per_second: f64,
    /// Bytes of one copy.
    pub copied_bytes: u64,
    /// The multiplying units, slowest first.
    pub units: Vec<UnitRate>,
}

/// How fast a unit multiplies integers from registers.
#[derive(Clone, Debug, Serialize)]
pub struct UnitRate {
    /// The unit.
    pub unit: String,
    /// Multiplications and additions per second.
    pub operations_per_second: f64,
}

impl Ceilings {
    /// Measures them.
    ///
    /// # Errors
    /// [`KernelError::Cuda`] where the GPU fails.
    pub fn measure(cuda: &Cuda, clock: &Clock<'_>, size: SuiteSize) -> Result<Self, KernelError> {
        let report = cuda.memory();
        let free = report.device.map_or(report.limit, |device| device.free);
        let (copied_bytes, rounds) = match size {
            SuiteSize::Small => (1 << 16, 1),
            SuiteSize::Full => (COPIED_MAX.min(free / 8), 20_000),
        };
        let copied = Copied::new(cuda, copied_bytes as usize)?;
        let copy_seconds = clock.seconds(|| copied.copy())?;
        drop(copied);
        let mut units = Vec::new();
        for &unit in Unit::of(cuda.arch()) {
            let mut operations = 0;
            let seconds = clock.seconds(|| {
                operations = peak::multiply(cuda, unit, rounds)?;
                Ok(())
            })?;
            units.push(UnitRate {
                unit: unit.to_string(),
                operations_per_second: operations as f64 / seconds,
            });
        }
        units.sort_by(|a, b| a.operations_per_second.total_cmp(&b.operations_per_second));
        Ok(Self {
            copy_bytes_per_second: 2.0 * copied_bytes as f64 / copy_seconds,
            copied_bytes,
            units,
        })
    }

    /// The name and the rate of the fastest unit.
    pub fn best_unit(&self) -> (&str, f64) {
        match self.units.last() {
            Some(best) => (&best.unit, best.operations_per_second),
            None => ("nothing", f64::INFINITY),
        }
    }

    /// As text.
    pub fn text(&self) -> String {
        let mut text = format!(
            "ceilings: copies of {} MiB {:.0} GB/s",
            self.copied_bytes >> 20,
            self.copy_bytes_per_second / 1e9
        );
        for unit in &self.units {
            let rate = unit.operations_per_second / 1e12;
            text += &format!(", {} {rate:.1} Top/s", unit.unit);
        }
        text
    }
}
