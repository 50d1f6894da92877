//! Codes of keys and values in the memory of a GPU: 16 bits each, or bytes where they have 8.

use super::{Cuda, Kernel, Result, Slice};
use crate::coded::Precision;

/// Codes of pages. A clone shares the memory.
#[derive(Clone, Debug)]
pub(super) enum PageCodes {
    Words(Slice<i16>),
    Bytes(Slice<i8>),
}

/// Whether codes of this precision lie as bytes.
pub(super) fn are_bytes(precision: Precision) -> bool {
    precision == Precision::I8
}

/// The kernel that puts codes of this precision into pages.
pub(super) fn append_kernel(precision: Precision) -> Kernel {
    Kernel {
        module: "attention",
        name: match are_bytes(precision) {
            true => "attention_append_bytes",
            false => "attention_append",
        },
    }
}

impl PageCodes {
    /// `len` codes of any content.
    pub(super) fn alloc(cuda: &Cuda, precision: Precision, len: usize) -> Result<Self> {
        Ok(match are_bytes(precision) {
            true => Self::Bytes(cuda.alloc(len)?),
            false => Self::Words(cuda.alloc(len)?),
        })
    }

    /// `len` codes of 0.
    pub(super) fn zeros(cuda: &Cuda, precision: Precision, len: usize) -> Result<Self> {
        Ok(match are_bytes(precision) {
            true => Self::Bytes(cuda.zeros(len)?),
            false => Self::Words(cuda.zeros(len)?),
        })
    }

    /// A copy in memory of its own.
    pub(super) fn copied(&self, cuda: &Cuda) -> Result<Self> {
        match self {
            Self::Words(codes) => {
                let own = cuda.alloc(codes.len())?;
                cuda.copy(codes, &own)?;
                Ok(Self::Words(own))
            }
            Self::Bytes(codes) => {
                let own = cuda.alloc(codes.len())?;
                cuda.copy(codes, &own)?;
                Ok(Self::Bytes(own))
            }
        }
    }

    /// Where code `index` lies.
    pub(super) fn address_of(&self, index: usize) -> u64 {
        match self {
            Self::Words(codes) => codes.part(index, 0).address().0,
            Self::Bytes(codes) => codes.part(index, 0).address().0,
        }
    }

    pub(super) fn is_shared(&self) -> bool {
        match self {
            Self::Words(codes) => codes.is_shared(),
            Self::Bytes(codes) => codes.is_shared(),
        }
    }
}
