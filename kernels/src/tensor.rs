//! A dense row-major f32 tensor.

#[cfg(target_endian = "big")]
compile_error!("elements are hashed as they lie in memory: little-endian machines only");

use std::borrow::Cow;
use std::fmt;

use crate::gpu::{Cuda, Slice};
use crate::{Buffer, KernelError};

/// A dense row-major tensor of f32, on the host or in the memory of a GPU.
///
/// Activations are `[tokens, features]`; weights are `[out, in]`, as Hugging Face stores them.
///
/// ```
/// use concord_kernels::Tensor;
///
/// let x = Tensor::new(&[2, 3], vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0])?;
/// assert_eq!(x.rows(1, 1).data(), [4.0, 5.0, 6.0]);
/// assert!(Tensor::new(&[2, 3], vec![1.0]).is_err());
/// # Ok::<(), concord_kernels::KernelError>(())
/// ```
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

    /// Refuses NaN and infinity.
    ///
    /// # Errors
    /// [`KernelError::NotFinite`], naming `name` and the first bad element.
    pub fn check_finite(&self, name: &str) -> Result<(), KernelError> {
        check_finite(name, &self.values()?)
    }

    /// The elements, wherever they lie.
    pub(crate) fn elements(&self) -> &Buffer<f32> {
        &self.elements
    }

    /// The elements in the memory of `cuda`.
    pub(crate) fn on(&self, cuda: &Cuda) -> Result<Slice<f32>, KernelError> {
        self.elements.on(cuda)
    }

    /// The elements in the memory of `cuda`, not shared, so that they can be written in place.
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

fn check_finite(name: &str, elements: &[f32]) -> Result<(), KernelError> {
    if elements.iter().fold(true, |all, v| all & v.is_finite()) {
        Ok(())
    } else {
        Err(first_not_finite(name, elements))
    }
}

/// The error that names the first NaN or infinity among `elements`, which have one.
pub(crate) fn first_not_finite(name: &str, elements: &[f32]) -> KernelError {
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
