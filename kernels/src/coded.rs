//! Row coding: a row of floats as integers that share one power of two, `value = q * 2^exp`.
//!
//! The exponent comes from the bits of the row's largest magnitude and is bumped, never clipped,
//! where rounding would pass the limit. See NUMERICS.md, section 2.

use crate::{Buffer, KernelError};

/// How many bits a coded element has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Precision {
    /// One 8-bit digit, `|q| <= 127`: a quantised mode.
    I8,
    /// Two 7-bit digits, `|q| <= 8,127`.
    I14,
    /// Two balanced 8-bit digits, `|q| <= 32,639`: the default for training.
    I16,
}

impl Precision {
    /// The largest magnitude that `q` may have.
    pub const fn limit(self) -> i32 {
        match self {
            Self::I8 => 127,
            Self::I14 => 8_127,
            Self::I16 => 32_639,
        }
    }
}

/// Rows of integers with one exponent each. Every row is coded on its own: no row sees another.
///
/// ```
/// use concord_kernels::coded::Precision;
/// use concord_kernels::{Device, Tensor};
///
/// let x = Tensor::new(&[2, 2], vec![1.0, -0.5, 1000.0, 3.0])?;
/// let coded = Device::Reference.code(&x, 2, Precision::I16)?;
/// assert_eq!(coded.exp.data(), [-14, -5]);
/// assert_eq!(coded.q.data(), [16_384, -8_192, 32_000, 96]);
/// assert_eq!(coded.decode(), [1.0, -0.5, 1000.0, 3.0]);
/// # Ok::<(), concord_kernels::KernelError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Coded {
    /// Rows, each with an exponent of its own.
    pub rows: usize,
    /// Elements in a row: the axis that a product sums over.
    pub cols: usize,
    /// The limit that every `q` keeps.
    pub precision: Precision,
    /// Codes, row-major. Invariant: `|q| <= precision.limit()`.
    pub q: Buffer<i16>,
    /// One exponent per row; [`crate::reference::code::EMPTY`] for a row of zeros.
    pub exp: Buffer<i32>,
}

/// One side of an integer product, seen as rows by depth with any strides.
///
/// The depth axis is the one that is summed; `exp` scales each row after the sum.
#[derive(Clone, Copy, Debug)]
pub struct Operand<'a> {
    /// Codes; element (row, depth) stands at `row * row_stride + depth * depth_stride`.
    pub q: &'a [i16],
    /// Rows of the operand: one side of the product's shape.
    pub rows: usize,
    /// Length of the summed axis.
    pub depth: usize,
    /// Distance between two rows, in elements.
    pub row_stride: usize,
    /// Distance between two neighbours along the depth, in elements.
    pub depth_stride: usize,
    /// Exponent of each row, or empty where they were folded into the other operand.
    pub exp: &'a [i32],
    /// The limit that every code keeps.
    pub precision: Precision,
}

impl Coded {
    /// The rows as they are: the depth is the column axis. For codes on the host.
    pub fn by_rows(&self) -> Operand<'_> {
        Operand {
            q: self.q.data(),
            rows: self.rows,
            depth: self.cols,
            row_stride: self.cols,
            depth_stride: 1,
            exp: self.exp.data(),
            precision: self.precision,
        }
    }

    /// The columns of rows `[start, start + depth)`, summed over these rows; the exponents of the
    /// rows must have been folded into the other operand. For codes on the host.
    pub fn by_cols(&self, start: usize, depth: usize) -> Operand<'_> {
        assert!(
            start + depth <= self.rows,
            "rows {start}+{depth} of {}",
            self.rows
        );
        Operand {
            q: &self.q.data()[start * self.cols..],
            rows: self.cols,
            depth,
            row_stride: 1,
            depth_stride: self.cols,
            exp: &[],
            precision: self.precision,
        }
    }

    /// The exact values `q * 2^exp` (rounded only where they leave the range of f32). For codes on
    /// the host.
    pub fn decode(&self) -> Vec<f32> {
        (0..self.rows)
            .flat_map(|row| self.decode_row(row))
            .collect()
    }

    /// The values of one row. For codes on the host.
    pub fn decode_row(&self, row: usize) -> impl Iterator<Item = f32> + '_ {
        let scale = crate::math::pow2_f64(self.exp.data()[row]);
        let codes = &self.q.data()[row * self.cols..(row + 1) * self.cols];
        codes.iter().map(move |&q| (f64::from(q) * scale) as f32)
    }

    /// Reserves room for exactly `rows` more rows, on the host.
    ///
    /// # Errors
    /// [`KernelError::Cuda`] where codes lie on a GPU that is lost.
    pub fn reserve(&mut self, rows: usize) -> Result<(), KernelError> {
        self.q.values_mut()?.reserve_exact(rows * self.cols);
        self.exp.values_mut()?.reserve_exact(rows);
        Ok(())
    }

    /// Puts the rows of `other` after these, on the host.
    ///
    /// # Errors
    /// [`KernelError::Cuda`] where codes lie on a GPU that is lost.
    ///
    /// # Panics
    /// Where width or precision differ.
    pub fn append(&mut self, other: &Self) -> Result<(), KernelError> {
        assert_eq!(
            (self.cols, self.precision),
            (other.cols, other.precision),
            "append: rows"
        );
        self.rows += other.rows;
        self.q.values_mut()?.extend_from_slice(&other.q.values()?);
        self.exp
            .values_mut()?
            .extend_from_slice(&other.exp.values()?);
        Ok(())
    }

    /// Rows `[start, start + count)`: a copy on the host, a view on a GPU.
    pub fn part(&self, start: usize, count: usize) -> Self {
        Self {
            rows: count,
            cols: self.cols,
            precision: self.precision,
            q: self.q.part(start * self.cols, count * self.cols),
            exp: self.exp.part(start, count),
        }
    }

    /// The codes on the host: themselves, or a copy of what lies on a GPU.
    ///
    /// # Errors
    /// [`KernelError::Cuda`] where the GPU is lost.
    pub fn on_host(&self) -> Result<std::borrow::Cow<'_, Self>, KernelError> {
        use std::borrow::Cow;
        if let (Buffer::Host(_), Buffer::Host(_)) = (&self.q, &self.exp) {
            return Ok(Cow::Borrowed(self));
        }
        Ok(Cow::Owned(Self {
            q: self.q.values()?.into_owned().into(),
            exp: self.exp.values()?.into_owned().into(),
            ..*self
        }))
    }
}
