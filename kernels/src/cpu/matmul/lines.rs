//! Memory in cache lines, kept by a thread for its next product.

/// 64 aligned bytes.
#[derive(Clone, Copy)]
#[repr(align(64))]
pub(super) struct CacheLine([i16; 32]);

impl CacheLine {
    /// A line of zeros.
    pub(super) const ZERO: Self = Self([0; 32]);
    /// `i32` in a line.
    pub(super) const I32: usize = 16;

    /// The line as 32 codes.
    pub(super) fn codes_mut(&mut self) -> &mut [i16; 32] {
        &mut self.0
    }

    /// The line as a vector.
    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(super) fn load(&self) -> std::arch::x86_64::__m512i {
        // SAFETY: a line is 64 bytes, aligned to 64.
        unsafe { std::arch::x86_64::_mm512_load_si512((&raw const self.0).cast()) }
    }

    /// Stores a vector.
    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(super) fn store(&mut self, lanes: std::arch::x86_64::__m512i) {
        // SAFETY: as for `load`.
        unsafe { std::arch::x86_64::_mm512_store_si512((&raw mut self.0).cast(), lanes) }
    }
}

/// The first `len` elements of a buffer, which grows to hold them and is not cleared.
pub(super) fn grow<T: Clone>(buffer: &mut Vec<T>, len: usize, zero: T) -> &mut [T] {
    if buffer.len() < len {
        buffer.resize(len, zero);
    }
    &mut buffer[..len]
}
