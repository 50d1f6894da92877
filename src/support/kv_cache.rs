//! The option that says with how many bits keys and values are kept.

use concord_kernels::coded::Precision;

/// The values of `--kv-cache-dtype`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum KvCacheDtype {
    /// 16 bits, as activations.
    #[default]
    Auto,
    /// Codes of 8 bits.
    Int8,
}

/// With how many bits keys and values are kept.
#[derive(Clone, Copy, Debug, Default, clap::Args)]
pub struct KvCacheArgs {
    /// How keys and values are kept: auto with 16 bits, int8 with 8, in about half the memory.
    /// These are rounded more coarsely, so answers are others; receipts say so.
    #[arg(long, value_enum, value_name = "DTYPE", default_value = "auto")]
    pub kv_cache_dtype: KvCacheDtype,
}

impl KvCacheArgs {
    /// The precision of their codes.
    pub fn precision(self) -> Precision {
        match self.kv_cache_dtype {
            KvCacheDtype::Auto => Precision::I16,
            KvCacheDtype::Int8 => Precision::I8,
        }
    }

    /// The bits of their codes.
    pub fn bits(self) -> u8 {
        match self.kv_cache_dtype {
            KvCacheDtype::Auto => 16,
            KvCacheDtype::Int8 => 8,
        }
    }
}
