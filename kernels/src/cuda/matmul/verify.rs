//! Products with known sums, run when a GPU is opened: a card, a driver or a compiler that
//! multiplies wrongly is found before it works on a job.

use super::ProductEngine;
use super::{GpuOperand, Results, launch, multiply};
use crate::KernelError;
use crate::coded::Precision;
use crate::cuda::{Cuda, CudaError, Result};
use crate::math::pow2_f64;
use crate::rng::Philox;

const ROWS: usize = 19;
const COLS: usize = 69;
/// Past the depth after which the sums of f16 tensor cores move to integers.
const DEPTH: usize = 605;
/// Rows of codes start a multiple of 8 apart, as those that are read 8 at a time do.
const ROW_STRIDE: usize = 608;
/// The same for columns of codes, which are read 4 at a time.
const COL_STRIDE: usize = 72;

const PAIRS: [(Precision, Precision); 4] = [
    (Precision::I8, Precision::I8),
    (Precision::I8, Precision::I16),
    (Precision::I16, Precision::I8),
    (Precision::I16, Precision::I16),
];

/// Multiplies codes at their limits and random ones by every engine of the GPU, and compares with
/// sums that the host has made.
///
/// # Errors
/// [`CudaError::WrongProducts`] names the engine that differs; else as any operation.
pub fn verify(cuda: &Cuda) -> std::result::Result<(), KernelError> {
    for &engine in ProductEngine::of(cuda.arch()) {
        let by_engine = |a: &GpuOperand, b: &GpuOperand, into: Results<'_>| match into {
            Results::Rounded { out, left } => multiply(cuda, engine, a, b, out, left),
            Results::Sums(_) => launch(cuda, engine, a, b, into),
        };
        verify_by(cuda, &engine.to_string(), &by_engine)?;
    }
    Ok(())
}

/// What makes a product under test.
pub(super) type Multiply<'a> = dyn Fn(&GpuOperand, &GpuOperand, Results<'_>) -> Result<()> + 'a;

/// As [`verify`], for products by `multiply`, which an error calls `name`.
pub(super) fn verify_by(cuda: &Cuda, name: &str, multiply: &Multiply<'_>) -> Result<()> {
    for (a, b) in PAIRS {
        let (a, b) = (Side::new(ROWS, a), Side::new(COLS, b));
        let expected = sums(&a, &b);
        for along_depth in [true, false] {
            let (x, y) = (a.place(cuda, along_depth)?, b.place(cuda, along_depth)?);
            let sums = cuda.zeros::<i64>(ROWS * COLS)?;
            multiply(&x, &y, Results::Sums(&sums))?;
            let place = |what| Place {
                card: cuda.name(),
                engine: name,
                what,
                sides: (&a, &b),
            };
            place("sums").compare(&cuda.download(&sums)?, &expected)?;
            let out = cuda.alloc::<f32>(ROWS * COLS)?;
            let left = &[][..];
            multiply(&x, &y, Results::Rounded { out: &out, left })?;
            let numbers = cuda.download(&out)?.into_iter();
            let numbers: Vec<i64> = numbers.map(|number| number.to_bits().into()).collect();
            place("numbers").compare(&numbers, &rounded(&a, &b, &expected))?;
        }
    }
    Ok(())
}

/// One side of a product on the host, row-major.
struct Side {
    codes: Vec<i16>,
    exp: Vec<i32>,
    rows: usize,
    precision: Precision,
}

impl Side {
    /// Three rows in four are at a limit: the largest codes, and those of the largest digits. Their
    /// signs agree in some pairs of rows, so that sums grow as far as they can.
    fn new(rows: usize, precision: Precision) -> Self {
        let limit = precision.limit() as i16;
        // The digits 127 and -128, where there are two.
        let loudest = if limit == 127 { 127 } else { 127 * 256 - 128 };
        let code = |i: usize| match i / DEPTH % 4 {
            0 => limit,
            1 => -loudest,
            2 => loudest,
            _ => {
                let range = 2 * u32::from(limit.unsigned_abs()) + 1;
                let word = Philox::new(rows as u64, 0).words(i as u64)[0];
                ((word % range) as i32 - i32::from(limit)) as i16
            }
        };
        Self {
            codes: (0..rows * DEPTH).map(code).collect(),
            exp: (0..rows).map(|row| row as i32 * 7 % 31 - 40).collect(),
            rows,
            precision,
        }
    }

    fn row(&self, row: usize) -> &[i16] {
        &self.codes[row * DEPTH..(row + 1) * DEPTH]
    }

    /// On the GPU; the gaps between rows hold codes that must not count.
    fn place(&self, cuda: &Cuda, along_depth: bool) -> Result<GpuOperand> {
        let (row_stride, depth_stride, len) = if along_depth {
            (ROW_STRIDE, 1, self.rows * ROW_STRIDE)
        } else {
            (1, COL_STRIDE, DEPTH * COL_STRIDE)
        };
        let mut laid = vec![1i16; len];
        for (i, &code) in self.codes.iter().enumerate() {
            laid[i / DEPTH * row_stride + i % DEPTH * depth_stride] = code;
        }
        Ok(GpuOperand {
            q: cuda.upload(&laid)?,
            rows: self.rows,
            depth: DEPTH,
            row_stride,
            depth_stride,
            exp: Some(cuda.upload(&self.exp)?),
            precision: self.precision,
        })
    }
}

fn sums(a: &Side, b: &Side) -> Vec<i64> {
    let dot = |x: &[i16], y: &[i16]| {
        let products = x.iter().zip(y).map(|(&x, &y)| i64::from(x) * i64::from(y));
        products.sum::<i64>()
    };
    let rows = 0..a.rows;
    rows.flat_map(|m| (0..b.rows).map(move |n| dot(a.row(m), b.row(n))))
        .collect()
}

/// The bits of the rounded products.
fn rounded(a: &Side, b: &Side, sums: &[i64]) -> Vec<i64> {
    let number = |(i, &sum): (usize, &i64)| {
        let (ea, eb) = (a.exp[i / b.rows], b.exp[i % b.rows]);
        (sum as f64 * pow2_f64(ea) * pow2_f64(eb)) as f32
    };
    let numbers = sums.iter().enumerate().map(number);
    numbers.map(|number| i64::from(number.to_bits())).collect()
}

/// What is compared.
struct Place<'a> {
    card: &'a str,
    engine: &'a str,
    what: &'a str,
    sides: (&'a Side, &'a Side),
}

impl Place<'_> {
    fn compare(&self, got: &[i64], wanted: &[i64]) -> Result<()> {
        let mut pairs = got.iter().zip(wanted);
        let Some(at) = pairs.position(|(got, wanted)| got != wanted) else {
            return Ok(());
        };
        let (a, b) = self.sides;
        Err(CudaError::WrongProducts {
            card: self.card.to_string(),
            engine: self.engine.to_string(),
            case: format!(
                "{} of {:?} by {:?}, row {} column {}: {} in place of {}",
                self.what,
                a.precision,
                b.precision,
                at / b.rows,
                at % b.rows,
                got[at],
                wanted[at]
            ),
        }
        .into())
    }
}
