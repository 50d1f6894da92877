//! Times products with the shapes of models, compared with cuBLAS where the machine has it, and
//! each engine on one product.

use concord_kernels::coded::{Coded, Precision};
use concord_kernels::cuda::cublas::{Cublas, MatrixKind};
use concord_kernels::cuda::{Cuda, ProductEngine, matmul};
use concord_kernels::{Device, KernelError};
use serde::Serialize;

use super::SuiteSize;
use super::bench::{TimingBench, percent, random, rate, time};
use super::check::Subjects;
use super::clock::Clock;
use crate::support::table::table;

/// Products with fewer rows are bound by reading the weights.
const FEW_ROWS: usize = 16;
/// A product of x `[m, k]` and w `[n, k]`.
#[derive(Clone, Debug, Serialize)]
pub struct TimedProduct {
    /// Rows of x, rows of w, length of the summed axis.
    pub shape: [usize; 3],
    /// Bits of the codes of x and of w.
    pub bits: [u32; 2],
    /// Seconds of one product, without coding.
    pub seconds: f64,
    /// Multiplications and additions of whole codes a second.
    pub operations_per_second: f64,
    /// Share of the ceiling: of all digit products, or of reading the codes of w once.
    pub share: f64,
    /// Which ceiling.
    pub ceiling: String,
    /// Speed as a multiple of cuBLAS's.
    pub cublas: Ratios,
}

/// Speed as a multiple of cuBLAS's on operands of each type; `None` where cuBLAS is absent or
/// refuses the shape.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Ratios {
    pub f32: Option<f64>,
    /// f16 with f32 sums.
    pub f16: Option<f64>,
    /// bf16 with f32 sums.
    pub bf16: Option<f64>,
    /// int8 with int32 sums.
    pub int8: Option<f64>,
}

/// One product by one engine.
#[derive(Clone, Debug, Serialize)]
pub struct TimedEngine {
    pub engine: String,
    /// As in [`TimedProduct`].
    pub shape: [usize; 3],
    /// Bits of the codes of both sides.
    pub bits: u32,
    pub seconds: f64,
    /// Multiplications and additions of whole codes a second.
    pub operations_per_second: f64,
}

/// The library with which our products are compared.
pub struct OtherEngines(Option<Cublas>);

impl OtherEngines {
    /// cuBLAS, where the machine has it.
    ///
    /// # Errors
    /// [`KernelError::Cuda`] where the GPU is lost.
    pub fn open(cuda: &Cuda) -> Result<Self, KernelError> {
        Ok(Self(Cublas::open(cuda)?))
    }

    /// Whether the machine has it.
    pub fn has_cublas(&self) -> bool {
        self.0.is_some()
    }

    /// Seconds of a product of each type.
    fn seconds(&self, clock: &Clock<'_>, shape: [usize; 3]) -> Result<Ratios, KernelError> {
        let one = |kind| -> Result<Option<f64>, KernelError> {
            let Some(cublas) = &self.0 else {
                return Ok(None);
            };
            let Some(operands) = cublas.operands(kind, shape)? else {
                return Ok(None);
            };
            let mut is_done = true;
            let seconds = clock.seconds(|| {
                is_done &= cublas.multiply(&operands)?;
                Ok(())
            })?;
            Ok(is_done.then_some(seconds))
        };
        Ok(Ratios {
            f32: one(MatrixKind::F32)?,
            f16: one(MatrixKind::F16)?,
            bf16: one(MatrixKind::Bf16)?,
            int8: one(MatrixKind::Int8)?,
        })
    }
}

impl Ratios {
    /// The library's seconds divided by ours.
    fn over(self, ours: f64) -> Self {
        let ratio = |theirs: Option<f64>| theirs.map(|theirs| theirs / ours);
        Self {
            f32: ratio(self.f32),
            f16: ratio(self.f16),
            bf16: ratio(self.bf16),
            int8: ratio(self.int8),
        }
    }
}

fn bits(precision: Precision) -> u32 {
    match precision {
        Precision::I8 => 8,
        Precision::I14 => 14,
        Precision::I16 => 16,
    }
}

/// Products of 8-bit digits in one of two codes.
fn digit_products(x: Precision, w: Precision) -> f64 {
    let digits = |precision| if precision == Precision::I8 { 1.0 } else { 2.0 };
    digits(x) * digits(w)
}

/// Times products.
///
/// # Errors
/// Where the GPU fails, except for a lack of memory.
pub fn time_all(
    bench: &mut TimingBench<'_>,
    rivals: &OtherEngines,
    size: SuiteSize,
) -> Result<Vec<TimedProduct>, KernelError> {
    let shapes: &[[usize; 3]] = match size {
        SuiteSize::Small => &[[1, 64, 64], [32, 64, 64]],
        // The matrices of an 8B model on 2,048 tokens, on a batch and on one token; two squares.
        SuiteSize::Full => &[
            [2_048, 4_096, 4_096],
            [2_048, 14_336, 4_096],
            [2_048, 4_096, 14_336],
            [16, 14_336, 4_096],
            [1, 14_336, 4_096],
            [1, 4_096, 14_336],
            [4_096, 4_096, 4_096],
            [8_192, 8_192, 8_192],
        ],
    };
    let mut timed = Vec::new();
    for &shape in shapes {
        let name = format!("product {shape:?}");
        bench.group(&name, |bench| {
            let theirs = rivals.seconds(&bench.clock, shape)?;
            for (x, w) in [
                (Precision::I8, Precision::I8),
                (Precision::I16, Precision::I8),
                (Precision::I16, Precision::I16),
            ] {
                timed.push(time_one(bench, shape, (x, w), theirs)?);
            }
            Ok(())
        })?;
    }
    Ok(timed)
}

fn time_one(
    bench: &TimingBench<'_>,
    [m, n, k]: [usize; 3],
    (x, w): (Precision, Precision),
    theirs: Ratios,
) -> Result<TimedProduct, KernelError> {
    let device = bench.device;
    let (xc, wc) = (coded(device, m, k, x)?, coded(device, n, k, w)?);
    let seconds = bench.clock.seconds(|| device.matmul(&xc, &wc).map(drop))?;
    let operations_per_second = operations(m, n, k) / seconds;
    let (share, ceiling) = if m <= FEW_ROWS {
        let code_bytes = size_of::<i16>() * n * k;
        let copies = bench.ceilings.copy_bytes_per_second;
        (code_bytes as f64 / seconds / copies, "copies")
    } else {
        let (unit, best) = bench.ceilings.best_unit();
        (digit_products(x, w) * operations_per_second / best, unit)
    };
    Ok(TimedProduct {
        shape: [m, n, k],
        bits: [bits(x), bits(w)],
        seconds,
        operations_per_second,
        share,
        ceiling: ceiling.to_string(),
        cublas: theirs.over(seconds),
    })
}

fn coded(
    device: &Device,
    rows: usize,
    cols: usize,
    precision: Precision,
) -> Result<Coded, KernelError> {
    device.code(&device.place(random(&[rows, cols])?)?, cols, precision)
}

fn operations(m: usize, n: usize, k: usize) -> f64 {
    2.0 * m as f64 * n as f64 * k as f64
}

/// Times every engine on one product, and cuBLASLt where the machine has it.
///
/// # Errors
/// Where the GPU fails, but for a lack of memory.
pub fn time_engines(
    bench: &mut TimingBench<'_>,
    subjects: &Subjects,
    size: SuiteSize,
) -> Result<Vec<TimedEngine>, KernelError> {
    let shape = match size {
        SuiteSize::Small => [17, 40, 64],
        SuiteSize::Full => [2_048, 4_096, 4_096],
    };
    let mut timed = Vec::new();
    for precision in [Precision::I8, Precision::I16] {
        bench.group("engines", |bench| {
            let cuda = &subjects.cuda;
            let [x, w] = sides(bench.device, shape, precision)?;
            for &engine in ProductEngine::of(cuda.arch()) {
                let product = || matmul::product_by(cuda, engine, &x, &w).map(drop);
                let seconds = bench.clock.seconds(product)?;
                let name = engine.to_string();
                timed.push(TimedEngine::new(name, shape, precision, seconds));
            }
            let Some(cuda) = &subjects.with_library else {
                return Ok(());
            };
            // The second handle has its own pool and stream, and needs its own clock.
            subjects.cuda.trim()?;
            let gpu = Device::Cuda(cuda.clone());
            let [x, w] = sides(&gpu, shape, precision)?;
            let seconds = Clock::new(cuda, size).seconds(|| gpu.matmul(&x, &w).map(drop))?;
            let name = "cuBLASLt".to_string();
            timed.push(TimedEngine::new(name, shape, precision, seconds));
            Ok(())
        })?;
    }
    Ok(timed)
}

fn sides(
    device: &Device,
    [m, n, k]: [usize; 3],
    precision: Precision,
) -> Result<[Coded; 2], KernelError> {
    Ok([
        coded(device, m, k, precision)?,
        coded(device, n, k, precision)?,
    ])
}

impl TimedEngine {
    fn new(engine: String, shape: [usize; 3], precision: Precision, seconds: f64) -> Self {
        let [m, n, k] = shape;
        Self {
            engine,
            shape,
            bits: bits(precision),
            seconds,
            operations_per_second: operations(m, n, k) / seconds,
        }
    }
}

fn shape_text([m, n, k]: [usize; 3]) -> String {
    format!("{m} x {n} x {k}")
}

/// Products as a table.
pub fn product_table(products: &[TimedProduct]) -> String {
    let ratio = |ratio: Option<f64>| ratio.map_or("-".to_string(), |ratio| format!("{ratio:.2}"));
    let row = |product: &TimedProduct| {
        let [x, w] = product.bits;
        [
            shape_text(product.shape),
            format!("{x} x {w}"),
            time(product.seconds),
            rate(Some(product.operations_per_second), "op/s"),
            format!("{} of {}", percent(product.share), product.ceiling),
            ratio(product.cublas.f32),
            ratio(product.cublas.f16),
            ratio(product.cublas.bf16),
            ratio(product.cublas.int8),
        ]
    };
    let headings = [
        "product",
        "bits",
        "time",
        "rate",
        "share",
        "x cuBLAS f32",
        "x f16",
        "x bf16",
        "x int8",
    ];
    let rows: Vec<_> = products.iter().map(row).collect();
    format!("{}\n\n", table(headings, &rows))
}

/// Engines as a table.
pub fn engine_table(engines: &[TimedEngine]) -> String {
    let row = |engine: &TimedEngine| {
        [
            engine.engine.clone(),
            shape_text(engine.shape),
            format!("{0} x {0}", engine.bits),
            time(engine.seconds),
            rate(Some(engine.operations_per_second), "op/s"),
        ]
    };
    let rows: Vec<_> = engines.iter().map(row).collect();
    format!(
        "{}\n\n",
        table(["engine", "product", "bits", "time", "rate"], &rows)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_theirs_over_ours() {
        let theirs = Ratios {
            f32: Some(3.0),
            int8: Some(0.5),
            ..Ratios::default()
        };
        let ratios = theirs.over(1.5);
        assert_eq!((ratios.f32, ratios.f16), (Some(2.0), None));
        let product = TimedProduct {
            shape: [1, 2, 3],
            bits: [16, 8],
            seconds: 1e-3,
            operations_per_second: 1e9,
            share: 0.5,
            ceiling: "copies".to_string(),
            cublas: ratios,
        };
        let text = product_table(&[product]);
        let cells: Vec<&str> = text.lines().nth(1).unwrap().split_whitespace().collect();
        assert_eq!(
            cells[cells.len() - 4..],
            ["2.00", "-", "-", "0.33"],
            "{text}"
        );
    }
}
