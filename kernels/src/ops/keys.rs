//! Keys and values of one sequence that grow with its tokens.

use crate::coded::{Coded, Precision};
use crate::cpu::keys::HostKeys;
use crate::cuda::keys::GpuKeys;
use crate::reference::attention::{AttentionShape, CodedKv};
use crate::{Buffer, Device, KernelError};

/// Coded keys and values of one sequence in one layer, from position 0.
#[derive(Clone, Debug)]
pub enum KeyValues {
    /// One run on the host.
    Host(CodedKv),
    /// Pages on the host, of codes of 8 bits.
    Pages(HostKeys),
    /// Pages of a GPU.
    Cuda(GpuKeys),
}

impl KeyValues {
    /// Tokens that it holds, which is the position of the next.
    pub fn tokens(&self, shape: &AttentionShape) -> usize {
        match self {
            Self::Host(kv) => kv.k.rows / shape.kv_heads,
            Self::Pages(pages) => pages.tokens(),
            Self::Cuda(pages) => pages.tokens(),
        }
    }
}

impl Device {
    /// Keys and values of no tokens.
    ///
    /// # Errors
    /// [`KernelError::Cuda`] where a GPU is out of memory.
    pub fn new_keys(
        &self,
        shape: &AttentionShape,
        precision: Precision,
    ) -> Result<KeyValues, KernelError> {
        if let Self::Cuda(gpu) = self {
            return Ok(KeyValues::Cuda(GpuKeys::new(gpu, shape, precision)?));
        }
        if let (Self::Cpu(_), Precision::I8) = (self, precision) {
            return Ok(KeyValues::Pages(HostKeys::new(shape)));
        }
        let empty = || Coded {
            rows: 0,
            cols: shape.head_dim,
            precision,
            q: Buffer::Host(Vec::new()),
            exp: Buffer::Host(Vec::new()),
        };
        Ok(KeyValues::Host(CodedKv {
            k: empty(),
            v: empty(),
        }))
    }

    /// Puts the keys and values of new tokens after those in `keys`.
    ///
    /// # Errors
    /// [`KernelError::Cuda`] where a GPU is out of memory or lost.
    pub fn append_keys(&self, keys: &mut KeyValues, new: &CodedKv) -> Result<(), KernelError> {
        match keys {
            KeyValues::Host(kv) => {
                kv.k.append(&new.k)?;
                kv.v.append(&new.v)
            }
            KeyValues::Pages(pages) => {
                pages.append(&CodedKv {
                    k: new.k.on_host()?.into_owned(),
                    v: new.v.on_host()?.into_owned(),
                });
                Ok(())
            }
            KeyValues::Cuda(pages) => pages.append(new),
        }
    }
}
