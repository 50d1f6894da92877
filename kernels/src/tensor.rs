//! A dense row-major f32 tensor, and the error of every operation on it.

#[cfg(target_endian = "big")]
compile_error!("elements are hashed as they lie in memory: little-endian machines only");

use std::borrow::Cow;
use std::fmt;

use blake3::hazmat::HasherExt;

use crate::Buffer;
use crate::cuda::{Cuda, CudaError, Slice};

/// What an operation refuses, by name, with the values that it refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KernelError {
    /// A NaN or an infinity stands where a finite number is needed.
    #[error("{tensor}: element {index} is {value}: not a finite number")]
    NotFinite {
        /// Name of the tensor, as the caller knows it.
        tensor: String,
        /// Flat row-major index of the first such element.
        index: usize,
        /// The value found.
        value: f32,
    },
    /// The data does not fill the shape.
    #[error("a tensor of shape {shape:?} needs {expected} elements, got {got}")]
    ShapeMismatch {
        /// The shape asked for.
        shape: Vec<usize>,
        /// Product of the shape.
        expected: usize,
        /// Elements given.
        got: usize,
    },
    /// Pages, rows or token ids of a request do not fit what is there: they come over the wire.
    #[error("a request that does not fit: {0}")]
    DoesNotFit(String),
    /// Devices that share a product cannot go on.
    #[error("devices that share a product cannot go on: {0}")]
    Collective(String),
    /// A GPU cannot do what it was asked for.
    #[error(transparent)]
    Cuda(#[from] CudaError),
}

/// A dense row-major tensor of f32, on the host or in the memory of a GPU.
///
/// Activations are `[tokens, features]`; weights are `[out, in]`, as Hugging Face stores them.
#[derive(Clone, PartialEq)]
pub struct Tensor {
    shape: Vec<usize>,
    elements: Buffer<f32>,
}

impl Tensor {
    /// A tensor of zeros, on the host.
    pub fn zeros(shape: &[usize]) -> Self {
        Self {
            shape: shape.to_vec(),
            elements: Buffer::Host(vec![0.0; shape.iter().product()]),
        }
    }

    /// A tensor over `elements`, row-major.
    ///
    /// # Errors
    /// [`KernelError::ShapeMismatch`] where `elements` do not fill `shape`.
    pub fn new(shape: &[usize], elements: impl Into<Buffer<f32>>) -> Result<Self, KernelError> {
        let elements = elements.into();
        let expected = shape.iter().product();
        if expected == elements.len() {
            Ok(Self {
                shape: shape.to_vec(),
                elements,
            })
        } else {
            Err(KernelError::ShapeMismatch {
                shape: shape.to_vec(),
                expected,
                got: elements.len(),
            })
        }
    }

    /// The shape, outermost axis first.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.elements.len()
    }

    /// Whether it has no elements.
    pub fn is_empty(&self) -> bool {
        self.elements.is_empty()
    }

    /// Rows and columns, all axes but the last folded into the rows.
    pub fn rows_cols(&self) -> (usize, usize) {
        let cols = self.shape.last().copied().unwrap_or(1);
        (self.len().checked_div(cols).unwrap_or(0), cols)
    }

    /// The same elements in another shape.
    ///
    /// # Errors
    /// [`KernelError::ShapeMismatch`] where they do not fill it.
    pub fn reshaped(self, shape: &[usize]) -> Result<Self, KernelError> {
        Self::new(shape, self.elements)
    }

    /// The elements of a tensor that is known to lie on the host, row-major.
    ///
    /// # Panics
    /// Where it lies on a GPU: see [`Self::values`] and [`Self::on_host`].
    pub fn data(&self) -> &[f32] {
        self.elements.data()
    }

    /// The elements, row-major, fetched where they lie on a GPU.
    ///
    /// # Errors
    /// [`KernelError::Cuda`] where the GPU is lost.
    pub fn values(&self) -> Result<Cow<'_, [f32]>, KernelError> {
        self.elements.values()
    }

    /// The elements on the host, to be changed in place there.
    ///
    /// # Errors
    /// [`KernelError::Cuda`] where the GPU is lost.
    pub fn values_mut(&mut self) -> Result<&mut [f32], KernelError> {
        Ok(self.elements.values_mut()?)
    }

    /// The elements, without the shape.
    ///
    /// # Errors
    /// [`KernelError::Cuda`] where the GPU is lost.
    pub fn into_values(self) -> Result<Vec<f32>, KernelError> {
        self.elements.into_values()
    }

    /// Whether the elements lie on the host.
    pub fn is_on_host(&self) -> bool {
        matches!(self.elements, Buffer::Host(_))
    }

    /// The tensor on the host: itself, or a copy of what lies on a GPU.
    ///
    /// # Errors
    /// [`KernelError::Cuda`] where the GPU is lost.
    pub fn on_host(&self) -> Result<Cow<'_, Self>, KernelError> {
        match &self.elements {
            Buffer::Host(_) => Ok(Cow::Borrowed(self)),
            Buffer::Cuda(_) => Ok(Cow::Owned(self.clone().into_host()?)),
        }
    }

    /// Moves the tensor to the host; nothing is copied where it lies there.
    ///
    /// # Errors
    /// [`KernelError::Cuda`] where the GPU is lost.
    pub fn into_host(self) -> Result<Self, KernelError> {
        let elements = Buffer::Host(self.elements.into_values()?);
        Ok(Self { elements, ..self })
    }

    /// The BLAKE3 digest of `prefix` and the elements as little-endian bytes, in the mode that
    /// derives keys: `context_key` is the digest of the context. On a GPU it is taken there.
    ///
    /// # Errors
    /// [`KernelError::Cuda`] where the GPU is lost.
    pub fn derived_digest(
        &self,
        context_key: &[u8; 32],
        prefix: &[u8],
    ) -> Result<[u8; 32], KernelError> {
        match &self.elements {
            Buffer::Host(elements) => {
                let mut hasher = blake3::Hasher::new_from_context_key(context_key);
                hasher.update(prefix);
                hasher.update(bytemuck::cast_slice(elements));
                Ok(*hasher.finalize().as_bytes())
            }
            Buffer::Cuda(slice) => crate::cuda::blake3::derived(slice, context_key, prefix),
        }
    }

    /// Refuses NaN and infinity.
    ///
    /// # Errors
    /// [`KernelError::NotFinite`], naming `name` and the first bad element.
    pub fn check_finite(&self, name: &str) -> Result<(), KernelError> {
        check_finite(name, &self.values()?)
    }

    /// The elements in the memory of `cuda`.
    pub(crate) fn on(&self, cuda: &Cuda) -> Result<Slice<f32>, KernelError> {
        self.elements.on(cuda)
    }

    /// The elements in the memory of `cuda`, to be written there by nobody else.
    pub(crate) fn unique_on(&mut self, cuda: &Cuda) -> Result<&Slice<f32>, KernelError> {
        self.elements.unique_on(cuda)
    }

    /// Rows `[start, start + count)`: a copy on the host, a view on a GPU.
    pub fn rows(&self, start: usize, count: usize) -> Self {
        let (_, cols) = self.rows_cols();
        Self {
            shape: vec![count, cols],
            elements: self.elements.part(start * cols, count * cols),
        }
    }
}

/// Turns every -0 into +0, and refuses NaN and infinity.
pub(crate) fn canonicalise(name: &str, elements: &mut [f32]) -> Result<(), KernelError> {
    let mut all_finite = true;
    for value in elements.iter_mut() {
        all_finite &= value.is_finite();
        *value += 0.0;
    }
    if all_finite {
        Ok(())
    } else {
        Err(first_not_finite(name, elements))
    }
}

fn check_finite(name: &str, elements: &[f32]) -> Result<(), KernelError> {
    if elements.iter().fold(true, |all, v| all & v.is_finite()) {
        Ok(())
    } else {
        Err(first_not_finite(name, elements))
    }
}

fn first_not_finite(name: &str, elements: &[f32]) -> KernelError {
    let index = elements.iter().position(|v| !v.is_finite()).unwrap_or(0);
    KernelError::NotFinite {
        tensor: name.to_string(),
        index,
        value: elements[index],
    }
}

impl fmt::Debug for Tensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tensor{:?}", self.shape)
    }
}
