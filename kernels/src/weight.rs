//! A matrix that products take as their second side: codes, or blocks that stay packed.

use std::borrow::Cow;

use crate::coded::{Coded, Precision};
use crate::packed::PackedRows;

/// The weight of a projection, `[out, in]`. Products have the same bits with either of its two
/// forms.
#[derive(Clone, Debug)]
pub struct Weight {
    /// Outputs.
    pub rows: usize,
    /// Inputs: the axis that a product sums over.
    pub cols: usize,
    form: WeightForm,
}

/// How a weight lies in memory.
#[derive(Clone, Debug)]
enum WeightForm {
    Codes(Coded),
    Packed(PackedRows),
}

/// A weight that is lent to a product.
#[derive(Clone, Copy, Debug)]
pub enum WeightRef<'a> {
    /// Integers of 16 bits.
    Codes(&'a Coded),
    /// Blocks, decoded where they are multiplied.
    Packed(&'a PackedRows),
}

impl Weight {
    /// Bytes that it takes in memory; the operating system may drop those of a mapped file and read
    /// them again.
    pub fn bytes(&self) -> usize {
        let exponents = self.rows * size_of::<i32>();
        match &self.form {
            WeightForm::Codes(codes) => codes.q.len() * size_of::<i16>() + exponents,
            WeightForm::Packed(packed) => packed.bytes().len() + exponents,
        }
    }

    /// Whether it stays packed.
    pub fn is_packed(&self) -> bool {
        matches!(self.form, WeightForm::Packed(_))
    }
}

impl From<Coded> for Weight {
    fn from(codes: Coded) -> Self {
        Self {
            rows: codes.rows,
            cols: codes.cols,
            form: WeightForm::Codes(codes),
        }
    }
}

impl From<PackedRows> for Weight {
    fn from(packed: PackedRows) -> Self {
        Self {
            rows: packed.rows(),
            cols: packed.cols(),
            form: WeightForm::Packed(packed),
        }
    }
}

impl<'a> From<&'a Weight> for WeightRef<'a> {
    fn from(weight: &'a Weight) -> Self {
        match &weight.form {
            WeightForm::Codes(codes) => Self::Codes(codes),
            WeightForm::Packed(packed) => Self::Packed(packed),
        }
    }
}

impl<'a> From<&'a Coded> for WeightRef<'a> {
    fn from(codes: &'a Coded) -> Self {
        Self::Codes(codes)
    }
}

impl<'a> From<&'a PackedRows> for WeightRef<'a> {
    fn from(packed: &'a PackedRows) -> Self {
        Self::Packed(packed)
    }
}

impl<'a> WeightRef<'a> {
    /// Outputs and inputs.
    pub fn shape(self) -> [usize; 2] {
        match self {
            Self::Codes(codes) => [codes.rows, codes.cols],
            Self::Packed(packed) => [packed.rows(), packed.cols()],
        }
    }

    /// The limit that the codes keep.
    pub fn precision(self) -> Precision {
        match self {
            Self::Codes(codes) => codes.precision,
            Self::Packed(packed) => packed.precision(),
        }
    }

    /// The values of the codes of a row. For codes on the host.
    pub(crate) fn decoded_row(self, row: usize) -> Vec<f32> {
        match self {
            Self::Codes(codes) => codes.decode_row(row).collect(),
            Self::Packed(packed) => packed.codes(row..row + 1).decode(),
        }
    }

    /// All codes: themselves, or decoded as a whole.
    pub(crate) fn codes(self) -> Cow<'a, Coded> {
        match self {
            Self::Codes(codes) => Cow::Borrowed(codes),
            Self::Packed(packed) => Cow::Owned(packed.codes(0..packed.rows())),
        }
    }
}
