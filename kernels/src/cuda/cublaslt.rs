//! cuBLASLt's products of bytes, where the machine has the library: on sm_90 and later it reaches
//! tensor cores by instructions that our kernels do not use. Sums of products of bytes are exact,
//! so the bits are the same.

use std::ffi::c_void;
use std::fmt;
use std::mem::size_of;
use std::ptr;

use cudarc::cublaslt::{result, sys};

use super::{Cuda, CudaError, Result, Slice};
use crate::gpu::{ByteProducts, ProductShape};

/// The value of `cublasOperation_t` for a transposed matrix.
static TURNED: i32 = 1;

/// cuBLASLt on one GPU.
pub(super) struct CublasLt {
    handle: sys::cublasLtHandle_t,
    stream: u64,
}

// SAFETY: cuBLASLt lets several threads use one handle.
unsafe impl Send for CublasLt {}
// SAFETY: as above.
unsafe impl Sync for CublasLt {}

impl CublasLt {
    /// The library for this GPU; none where it is not found or does not start, or where the GPU is
    /// not one that it can work on.
    ///
    /// # Errors
    /// [`CudaError::Lost`].
    pub(super) fn open(cuda: &Cuda) -> Result<Option<Self>> {
        let Some(stream) = cuda.raw_stream() else {
            return Ok(None);
        };
        // SAFETY: loading the library runs its initialisers, which ask nothing of the process.
        if !unsafe { sys::is_culib_present() } {
            return Ok(None);
        }
        // Binds the GPU's context to this thread, for which the handle is made.
        cuda.synchronise()?;
        Ok(result::create_handle()
            .ok()
            .map(|handle| Self { handle, stream }))
    }
}

impl ByteProducts for CublasLt {
    fn multiply(
        &self,
        shape: ProductShape,
        a: &Slice<i8>,
        b: &Slice<i8>,
        sums: &Slice<i32>,
        adds: bool,
    ) -> std::result::Result<(), CudaError> {
        // In column-major order, as cuBLASLt counts, this is sums^T = b a^T: b is passed as
        // transposed.
        let product = Product::new(shape).map_err(refused)?;
        let (alpha, beta) = (1i32, i32::from(adds));
        let at = |address: u64| address as usize as *const c_void;
        let out = sums.address().0 as usize as *mut c_void;
        // SAFETY: the handle and the descriptors live; a, b and sums are on its GPU, as large as
        // the shape says, and live until later work of the stream; the scales are read before the
        // call returns. The launches that made a and b have bound the context to this thread.
        let multiplied = unsafe {
            result::matmul(
                self.handle,
                product.operation,
                (&raw const alpha).cast(),
                (&raw const beta).cast(),
                at(b.address().0),
                product.b,
                at(a.address().0),
                product.a,
                out,
                product.sums,
                out,
                product.sums,
                ptr::null(),
                ptr::null_mut(),
                0,
                self.stream as usize as sys::cudaStream_t,
            )
        };
        multiplied.map_err(refused)
    }
}

impl Drop for CublasLt {
    fn drop(&mut self) {
        // SAFETY: the handle is not used any more. What the library says changes nothing here.
        let _ = unsafe { result::destroy_handle(self.handle) };
    }
}

impl fmt::Debug for CublasLt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("cuBLASLt")
    }
}

/// What the library wants to know of a product. A part that could not be made is null.
struct Product {
    operation: sys::cublasLtMatmulDesc_t,
    a: sys::cublasLtMatrixLayout_t,
    b: sys::cublasLtMatrixLayout_t,
    sums: sys::cublasLtMatrixLayout_t,
}

impl Product {
    fn new(shape: ProductShape) -> std::result::Result<Self, result::CublasError> {
        use sys::cudaDataType::{CUDA_R_8I, CUDA_R_32I};
        let mut product = Self {
            operation: ptr::null_mut(),
            a: ptr::null_mut(),
            b: ptr::null_mut(),
            sums: ptr::null_mut(),
        };
        let int32 = sys::cublasComputeType_t::CUBLAS_COMPUTE_32I;
        product.operation = result::create_matmul_desc(int32, CUDA_R_32I)?;
        // SAFETY: the descriptor has just been made; the attribute is of this type.
        unsafe {
            result::set_matmul_desc_attribute(
                product.operation,
                sys::cublasLtMatmulDescAttributes_t::CUBLASLT_MATMUL_DESC_TRANSA,
                (&raw const TURNED).cast(),
                size_of::<i32>(),
            )?;
        }
        let (rows, cols, depth) = (shape.rows as u64, shape.cols as u64, shape.depth as u64);
        product.a = result::create_matrix_layout(CUDA_R_8I, depth, rows, depth as i64)?;
        product.b = result::create_matrix_layout(CUDA_R_8I, depth, cols, depth as i64)?;
        product.sums = result::create_matrix_layout(CUDA_R_32I, cols, rows, cols as i64)?;
        Ok(product)
    }
}

impl Drop for Product {
    fn drop(&mut self) {
        // SAFETY: each part is given back once, and a call keeps nothing of it.
        unsafe {
            for layout in [self.a, self.b, self.sums] {
                if !layout.is_null() {
                    let _ = result::destroy_matrix_layout(layout);
                }
            }
            if !self.operation.is_null() {
                let _ = result::destroy_matmul_desc(self.operation);
            }
        }
    }
}

fn refused(error: result::CublasError) -> CudaError {
    CudaError::Call {
        call: "cublasLtMatmul",
        reason: error.to_string(),
    }
}
