//! Elements on the host or in the memory of a GPU.

use std::borrow::Cow;

use crate::KernelError;
use crate::gpu::{Cuda, Element, Slice};

/// Elements of one type, wherever they lie. Every operation takes them from either place, and
/// copies them first where it needs to.
#[derive(Clone, Debug)]
pub enum Buffer<T: Element> {
    /// In the memory of the process.
    Host(Vec<T>),
    /// In the memory of a GPU.
    Cuda(Slice<T>),
}

impl<T: Element> Buffer<T> {
    /// Number of elements.
    pub fn len(&self) -> usize {
        match self {
            Self::Host(elements) => elements.len(),
            Self::Cuda(slice) => slice.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The elements of a buffer that is known to lie on the host.
    ///
    /// # Panics
    /// Where it lies on a GPU: the caller has to fetch it first.
    pub fn data(&self) -> &[T] {
        match self {
            Self::Host(elements) => elements,
            Self::Cuda(_) => panic!("elements on a GPU are read without having been fetched"),
        }
    }

    /// The elements, fetched where they lie on a GPU.
    ///
    /// # Errors
    /// [`KernelError::Cuda`] where the GPU is lost.
    pub fn values(&self) -> Result<Cow<'_, [T]>, KernelError> {
        match self {
            Self::Host(elements) => Ok(Cow::Borrowed(elements)),
            Self::Cuda(slice) => Ok(Cow::Owned(slice.cuda().download(slice)?)),
        }
    }

    /// The elements on the host, to be changed there.
    ///
    /// # Errors
    /// [`KernelError::Cuda`] where the GPU is lost.
    pub fn values_mut(&mut self) -> Result<&mut Vec<T>, KernelError> {
        if let Self::Cuda(slice) = self {
            *self = Self::Host(slice.cuda().download(slice)?);
        }
        match self {
            Self::Host(elements) => Ok(elements),
            Self::Cuda(_) => unreachable!("it has just been fetched"),
        }
    }

    /// The elements as a vector.
    ///
    /// # Errors
    /// [`KernelError::Cuda`] where the GPU is lost.
    pub fn into_values(self) -> Result<Vec<T>, KernelError> {
        match self {
            Self::Host(elements) => Ok(elements),
            Self::Cuda(slice) => Ok(slice.cuda().download(&slice)?),
        }
    }

    /// Elements `[start, start + count)`: a copy on the host, a view on a GPU.
    pub fn part(&self, start: usize, count: usize) -> Self {
        match self {
            Self::Host(elements) => Self::Host(elements[start..start + count].to_vec()),
            Self::Cuda(slice) => Self::Cuda(slice.part(start, count)),
        }
    }

    /// The elements in the memory of `cuda`.
    pub(crate) fn on(&self, cuda: &Cuda) -> Result<Slice<T>, KernelError> {
        match self {
            Self::Host(elements) => Ok(cuda.upload(elements)?),
            Self::Cuda(slice) => Ok(slice.clone()),
        }
    }

    /// The elements in the memory of `cuda`, not shared, so that they can be written in place.
    pub(crate) fn unique_on(&mut self, cuda: &Cuda) -> Result<&Slice<T>, KernelError> {
        if let Self::Host(elements) = self {
            *self = Self::Cuda(cuda.upload(elements)?);
        }
        match self {
            Self::Cuda(slice) => {
                cuda.unique(slice)?;
                Ok(slice)
            }
            Self::Host(_) => unreachable!("it has just been placed"),
        }
    }
}

impl<T: Element> From<Vec<T>> for Buffer<T> {
    fn from(elements: Vec<T>) -> Self {
        Self::Host(elements)
    }
}

impl<T: Element> From<Slice<T>> for Buffer<T> {
    fn from(slice: Slice<T>) -> Self {
        Self::Cuda(slice)
    }
}

/// Compares elements on the host.
impl<T: Element + PartialEq> PartialEq for Buffer<T> {
    fn eq(&self, other: &Self) -> bool {
        self.data() == other.data()
    }
}

impl<T: Element> FromIterator<T> for Buffer<T> {
    fn from_iter<I: IntoIterator<Item = T>>(elements: I) -> Self {
        Self::Host(elements.into_iter().collect())
    }
}
