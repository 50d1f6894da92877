//! A matrix that stays packed: its bytes, and one exponent per row.

use std::ops::Range;

use super::{BlockFormat, SharedBytes};
use crate::KernelError;
use crate::coded::{Coded, Precision};
use crate::reference::code::{EMPTY, POISON, codes_at, exponent};

/// The rows of a matrix as blocks of a [`BlockFormat`], with the exponents that coding gives their
/// numbers. A product with it has the bits of the product with the codes of its decoded values; it
/// decodes them where they are multiplied, so memory and bandwidth are those of the blocks.
///
/// ```
/// use concord_kernels::coded::Precision;
/// use concord_kernels::packed::{BlockFormat, SharedBytes};
/// use concord_kernels::{Device, Tensor};
///
/// let device = Device::cpu(2);
/// let halves = SharedBytes::from([0x00, 0x3c, 0x00, 0xc0].to_vec()); // 1.0, -2.0
/// let w = device.packed_rows(BlockFormat::F16, [1, 2], halves, Precision::I16)?;
/// let x = device.code(&Tensor::new(&[1, 2], vec![3.0, 0.5])?, 2, Precision::I16)?;
/// assert_eq!(device.matmul(&x, &w)?.data(), [2.0]);
/// # Ok::<(), concord_kernels::KernelError>(())
/// ```
#[derive(Clone, Debug)]
pub struct PackedRows {
    format: BlockFormat,
    rows: usize,
    cols: usize,
    precision: Precision,
    bytes: SharedBytes,
    exp: Vec<i32>,
    /// Whether every row has a [`Self::factor`].
    is_plain: bool,
}

impl PackedRows {
    /// Rows of blocks with the exponents that were found for them, one a row.
    ///
    /// # Errors
    /// [`KernelError::ShapeMismatch`] where a row is no whole number of blocks, or the bytes or the
    /// exponents do not fill the shape.
    pub fn new(
        format: BlockFormat,
        [rows, cols]: [usize; 2],
        bytes: SharedBytes,
        precision: Precision,
        exp: Vec<i32>,
    ) -> Result<Self, KernelError> {
        let have = bytes.as_slice().len();
        let need = format
            .row_bytes(cols)
            .and_then(|width| width.checked_mul(rows));
        if need != Some(have) || exp.len() != rows {
            return Err(KernelError::ShapeMismatch {
                shape: vec![rows, cols],
                expected: rows.saturating_mul(cols),
                got: have / format.bytes() * format.elements(),
            });
        }
        let is_plain = exp.iter().all(|&exp| factor(exp).is_some());
        Ok(Self {
            format,
            rows,
            cols,
            precision,
            bytes,
            exp,
            is_plain,
        })
    }

    /// The exponents of rows of `cols` numbers, by scalar code: those of coding them.
    ///
    /// # Panics
    /// Where a row is no whole number of blocks.
    pub fn exponents(
        format: BlockFormat,
        cols: usize,
        bytes: &[u8],
        precision: Precision,
        exps: &mut [i32],
    ) {
        let width = format.row_bytes(cols).expect("a row is whole blocks");
        let mut values = vec![0.0; cols];
        for (exp, row) in exps.iter_mut().zip(bytes.chunks_exact(width)) {
            format.decode(row, &mut values);
            *exp = exponent(&values, precision);
        }
    }

    /// The format of the blocks.
    pub fn format(&self) -> BlockFormat {
        self.format
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Numbers in a row: the axis that a product sums over.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// The limit that the codes keep.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// One exponent per row, as [`Coded::exp`] has it.
    pub fn exp(&self) -> &[i32] {
        &self.exp
    }

    /// The bytes of the blocks, row after row.
    pub fn bytes(&self) -> &[u8] {
        self.bytes.as_slice()
    }

    /// Bytes of a row.
    pub fn row_bytes(&self) -> usize {
        self.cols / self.format.elements() * self.format.bytes()
    }

    /// The numbers of a row.
    pub fn decode_row(&self, row: usize) -> Vec<f32> {
        let width = self.row_bytes();
        let mut values = vec![0.0; self.cols];
        let bytes = &self.bytes()[row * width..(row + 1) * width];
        self.format.decode(bytes, &mut values);
        values
    }

    /// The numbers of some rows as codes, by scalar code: the definition of all products with them.
    pub fn codes(&self, rows: Range<usize>) -> Coded {
        let values: Vec<f32> = rows.clone().flat_map(|row| self.decode_row(row)).collect();
        let exp = self.exp[rows].to_vec();
        Coded {
            rows: exp.len(),
            cols: self.cols,
            precision: self.precision,
            q: codes_at(&values, self.cols, &exp).into(),
            exp: exp.into(),
        }
    }

    /// Refuses NaN and infinity.
    ///
    /// # Errors
    /// [`KernelError::NotFinite`], naming `name` and the first bad element.
    pub fn check_finite(&self, name: &str) -> Result<(), KernelError> {
        let Some(row) = self.exp.iter().position(|&exp| exp == POISON) else {
            return Ok(());
        };
        let values = self.decode_row(row);
        let found = values.iter().position(|value| !value.is_finite());
        let col = found.expect("a row is poisoned by a number that is not finite");
        Err(KernelError::NotFinite {
            tensor: name.to_string(),
            index: row * self.cols + col,
            value: values[col],
        })
    }

    /// `2^-exp` of a row, by which a number becomes its code, where f32 holds it as a normal
    /// number. 1 for a row of zeros, all of whose codes are 0, and for a poisoned one, whose codes
    /// do not matter, for its scale is NaN.
    pub(crate) fn factor(&self, row: usize) -> Option<f32> {
        factor(self.exp[row])
    }

    /// Whether every row has a [`Self::factor`].
    pub(crate) fn is_plain(&self) -> bool {
        self.is_plain
    }
}

fn factor(exp: i32) -> Option<f32> {
    match exp {
        EMPTY | POISON => Some(1.0),
        -126..=126 => Some(crate::math::pow2_f32(-exp)),
        _ => None,
    }
}
