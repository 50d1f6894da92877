//! NVIDIA's own products, where the machine has cuBLAS: ours are timed against them. No result of
//! Concord comes from here.

use std::ffi::{c_int, c_void};
use std::fmt;
use std::ptr;

use libloading::Library;

use super::{Cuda, Result, Slice};
use crate::rng::Philox;

/// Names of the library, best first.
const NAMES: [&str; 6] = [
    "libcublas.so.12",
    "libcublas.so.13",
    "libcublas.so.11",
    "libcublas.so",
    "cublas64_12.dll",
    "cublas64_13.dll",
];

/// Values of `cudaDataType`.
mod data_type {
    use std::ffi::c_int;
    pub(super) const F32: c_int = 0;
    pub(super) const F16: c_int = 2;
    pub(super) const INT8: c_int = 3;
    pub(super) const INT32: c_int = 10;
    pub(super) const BF16: c_int = 14;
}

/// Values of `cublasComputeType_t`.
const COMPUTE_F32: c_int = 68;
const COMPUTE_INT32: c_int = 72;
/// Values of `cublasOperation_t`.
const PLAIN: c_int = 0;
const TRANSPOSED: c_int = 1;
/// The value of `cublasGemmAlgo_t` that leaves the choice to cuBLAS.
const ANY_ALGORITHM: c_int = -1;

/// What is multiplied, and added up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MatrixKind {
    /// f32, added in f32.
    F32,
    /// f16, added in f32.
    F16,
    /// bf16, added in f32.
    Bf16,
    /// int8, added in int32: exact.
    Int8,
}

impl MatrixKind {
    /// All kinds.
    pub const ALL: [Self; 4] = [Self::F32, Self::F16, Self::Bf16, Self::Int8];

    /// Types of the operands, of the product, and of the sums.
    fn types(self) -> [c_int; 3] {
        match self {
            Self::F32 => [data_type::F32, data_type::F32, COMPUTE_F32],
            Self::F16 => [data_type::F16, data_type::F16, COMPUTE_F32],
            Self::Bf16 => [data_type::BF16, data_type::BF16, COMPUTE_F32],
            Self::Int8 => [data_type::INT8, data_type::INT32, COMPUTE_INT32],
        }
    }

    /// Bytes of an element of an operand, and of the product.
    fn bytes(self) -> [usize; 2] {
        match self {
            Self::F32 => [4, 4],
            Self::F16 | Self::Bf16 => [2, 2],
            Self::Int8 => [1, 4],
        }
    }

    /// Random numbers of magnitude 1 to 2, or random bytes: the speed of a card depends on how many
    /// bits flip.
    fn numbers(self, seed: u64, len: usize) -> Vec<u8> {
        let stream = Philox::new(seed, 0);
        let word = |i: u64| stream.words(i)[0];
        let words = 0..(len * self.bytes()[0]).div_ceil(4) as u64;
        let kept = |i: u64| match self {
            Self::F32 => word(i) & 0x807f_ffff | 0x3f80_0000,
            Self::F16 => word(i) & 0x83ff_83ff | 0x3c00_3c00,
            Self::Bf16 => word(i) & 0x807f_807f | 0x3f80_3f80,
            Self::Int8 => word(i),
        };
        words.flat_map(|i| kept(i).to_le_bytes()).collect()
    }
}

impl fmt::Display for MatrixKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
            Self::Int8 => "int8",
        })
    }
}

type Handle = *mut c_void;

/// The functions that are used, under cuBLAS's names.
struct Functions {
    set_stream: unsafe extern "C" fn(Handle, *mut c_void) -> c_int,
    destroy: unsafe extern "C" fn(Handle) -> c_int,
    gemm: unsafe extern "C" fn(
        Handle,
        c_int,
        c_int,
        c_int,
        c_int,
        c_int,
        *const c_void,
        *const c_void,
        c_int,
        c_int,
        *const c_void,
        c_int,
        c_int,
        *const c_void,
        *mut c_void,
        c_int,
        c_int,
        c_int,
        c_int,
    ) -> c_int,
}

/// cuBLAS on a GPU.
pub struct Cublas {
    cuda: Cuda,
    handle: Handle,
    functions: Functions,
    /// Holds the functions.
    _library: Library,
}

/// A product that can be repeated: x `[m, k]` times w `[n, k]` transposed.
#[derive(Debug)]
pub struct Operands {
    kind: MatrixKind,
    size: [c_int; 3],
    x: Slice<u8>,
    w: Slice<u8>,
    y: Slice<u8>,
}

impl Cublas {
    /// cuBLAS for this GPU; none where the library is not found or does not start, or the GPU is
    /// emulated.
    ///
    /// # Errors
    /// [`crate::KernelError::Cuda`] where the GPU is lost.
    pub fn open(cuda: &Cuda) -> Result<Option<Self>> {
        let Some(stream) = cuda.raw_stream() else {
            return Ok(None);
        };
        // Binds the GPU's context to this thread.
        cuda.synchronise()?;
        // SAFETY: loading the library runs its initialisers, which ask nothing of the process.
        let mut found = NAMES.iter().map(|name| unsafe { Library::new(*name) });
        let Some(library) = found.find_map(std::result::Result::ok) else {
            return Ok(None);
        };
        // SAFETY: the functions have these types in every version that NAMES can mean.
        let loaded = unsafe { load(&library) };
        let Some((create, functions)) = loaded else {
            return Ok(None);
        };
        let mut handle = ptr::null_mut();
        // SAFETY: it writes the handle; the context is bound.
        if unsafe { create(&mut handle) } != 0 {
            return Ok(None);
        }
        let cublas = Self {
            cuda: cuda.clone(),
            handle,
            functions,
            _library: library,
        };
        // SAFETY: handle and stream live as long as `cublas`.
        let set = unsafe { (cublas.functions.set_stream)(handle, stream as usize as *mut c_void) };
        Ok((set == 0).then_some(cublas))
    }

    /// Operands of random numbers for products of `[m, n, k]`; none where that is past cuBLAS's
    /// range.
    ///
    /// # Errors
    /// [`crate::KernelError::Cuda`] where the GPU is out of memory or lost.
    pub fn operands(&self, kind: MatrixKind, size: [usize; 3]) -> Result<Option<Operands>> {
        let [m, n, k] = size;
        let [operand, product] = kind.bytes();
        let int = |len: usize| c_int::try_from(len).ok();
        let (Some(rows), Some(cols), Some(depth)) = (int(m), int(n), int(k)) else {
            return Ok(None);
        };
        let numbers = |seed, len| kind.numbers(seed, len)[..len * operand].to_vec();
        Ok(Some(Operands {
            kind,
            size: [rows, cols, depth],
            x: self.cuda.upload(&numbers(1, m * k))?,
            w: self.cuda.upload(&numbers(2, n * k))?,
            y: self.cuda.alloc(m * n * product)?,
        }))
    }

    /// Puts the product into the stream; false where cuBLAS refuses it.
    ///
    /// # Errors
    /// [`crate::KernelError::Cuda`] where the GPU is lost.
    pub fn multiply(&self, operands: &Operands) -> Result<bool> {
        let [m, n, k] = operands.size;
        let [operand, product, compute] = operands.kind.types();
        let (one, zero) = match operands.kind {
            MatrixKind::Int8 => (1i32.to_ne_bytes(), 0i32.to_ne_bytes()),
            _ => (1f32.to_ne_bytes(), 0f32.to_ne_bytes()),
        };
        let at = |slice: &Slice<u8>| slice.address().0 as usize as *mut c_void;
        // SAFETY: the handle lives; the operands are on its GPU, as large as the sizes say; the
        // scales are of the type of the sums and are read before the call returns. In cuBLAS's
        // order, by columns, this is y^T = w x^T.
        let status = unsafe {
            (self.functions.gemm)(
                self.handle,
                TRANSPOSED,
                PLAIN,
                n,
                m,
                k,
                one.as_ptr().cast(),
                at(&operands.w),
                operand,
                k,
                at(&operands.x),
                operand,
                k,
                zero.as_ptr().cast(),
                at(&operands.y),
                product,
                n,
                compute,
                ANY_ALGORITHM,
            )
        };
        Ok(status == 0)
    }
}

impl Drop for Cublas {
    fn drop(&mut self) {
        // A lost GPU has taken the handle with it.
        if self.cuda.synchronise().is_ok() {
            // SAFETY: the handle is not used any more, and no work of it is under way.
            let _ = unsafe { (self.functions.destroy)(self.handle) };
        }
    }
}

impl fmt::Debug for Cublas {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Cublas on {:?}", self.cuda)
    }
}

type Create = unsafe extern "C" fn(*mut Handle) -> c_int;

/// The functions of the library; `None` where it lacks one of them.
///
/// # Safety
/// The library is cuBLAS, and outlives the functions.
unsafe fn load(library: &Library) -> Option<(Create, Functions)> {
    // SAFETY: as the caller vouches; the types are those of cublas_api.h.
    unsafe {
        let create = *library.get::<Create>(b"cublasCreate_v2").ok()?;
        let functions = Functions {
            set_stream: *library.get(b"cublasSetStream_v2").ok()?,
            destroy: *library.get(b"cublasDestroy_v2").ok()?,
            gemm: *library.get(b"cublasGemmEx").ok()?,
        };
        Some((create, functions))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operands_are_of_magnitude_one_to_two() {
        for kind in [MatrixKind::F32, MatrixKind::F16, MatrixKind::Bf16] {
            let bytes = kind.numbers(3, 5);
            let [operand, _] = kind.bytes();
            assert!(
                bytes.len() >= 5 * operand && bytes.len() < 5 * operand + 4,
                "{kind}"
            );
            let exponents = match kind {
                MatrixKind::F32 => bytes
                    .chunks(4)
                    .map(|b| u32::from(b[3] & 0x7f) << 1 | u32::from(b[2] >> 7))
                    .collect(),
                MatrixKind::F16 => bytes
                    .chunks(2)
                    .map(|b| u32::from(b[1] & 0x7c) >> 2)
                    .collect(),
                _ => bytes
                    .chunks(2)
                    .map(|b| u32::from(b[1] & 0x7f) << 1 | u32::from(b[0] >> 7))
                    .collect::<Vec<_>>(),
            };
            let one = if kind == MatrixKind::F16 { 15 } else { 127 };
            assert!(exponents.iter().all(|&e| e == one), "{kind}: {exponents:?}");
        }
    }

    #[cfg(feature = "emulator")]
    #[test]
    fn an_emulated_gpu_has_no_cublas() {
        let cuda = Cuda::emulated(crate::cuda::emulator::EmulatorOptions::default());
        assert!(Cublas::open(&cuda).unwrap().is_none());
    }
}
