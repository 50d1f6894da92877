//! Elements in the memory of a GPU.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use super::Cuda;
use super::driver::DeviceAddress;
use super::launch::Argument;
use super::memory_pool::MemoryBlock;

/// A type of element that kernels read and write.
pub trait Element: sealed::Sealed + bytemuck::Pod + Send + Sync + fmt::Debug {}

mod sealed {
    /// Keeps the list of elements closed.
    pub trait Sealed {}
}

macro_rules! elements {
    ($($element:ty),*) => {
        $(
            impl sealed::Sealed for $element {}
            impl Element for $element {}
        )*
    };
}

elements!(f32, i8, u8, i16, i32, u32, i64, u64);

/// Elements in a row in the memory of a GPU. Clones and parts share the memory, which goes back to
/// the pool with the last of them. What is written in place is copied first where it is shared.
#[derive(Clone)]
pub struct Slice<T: Element> {
    block: Arc<MemoryBlock>,
    /// Elements before the first.
    start: usize,
    len: usize,
    element: PhantomData<T>,
}

impl<T: Element> Slice<T> {
    /// All of `block`, of which `len` elements are used.
    pub(super) fn new(block: MemoryBlock, len: usize) -> Self {
        Self {
            block: Arc::new(block),
            start: 0,
            len,
            element: PhantomData,
        }
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Elements `[start, start + len)`, in the same memory.
    ///
    /// # Panics
    /// Where there are fewer.
    pub fn part(&self, start: usize, len: usize) -> Self {
        assert!(
            start.checked_add(len).is_some_and(|end| end <= self.len),
            "elements [{start}, +{len}) of a slice of {}",
            self.len
        );
        Self {
            block: Arc::clone(&self.block),
            start: self.start + start,
            len,
            element: PhantomData,
        }
    }

    /// The GPU that it lies on.
    pub fn cuda(&self) -> &Cuda {
        self.block.cuda()
    }

    /// Where its first element lies.
    pub(crate) fn address(&self) -> DeviceAddress {
        DeviceAddress(self.block.address().0 + (self.start * size_of::<T>()) as u64)
    }

    /// Its length in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.len * size_of::<T>()
    }

    /// Whether another slice shares the memory.
    pub(crate) fn is_shared(&self) -> bool {
        Arc::strong_count(&self.block) > 1
    }
}

impl<T: Element> fmt::Debug for Slice<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Slice[{}]", self.len)
    }
}

impl<'a, T: Element> From<&'a Slice<T>> for Argument<'a> {
    fn from(slice: &'a Slice<T>) -> Self {
        Self::of8(slice.address().0.to_ne_bytes())
    }
}

impl<'a, T: Element> From<&&'a Slice<T>> for Argument<'a> {
    fn from(slice: &&'a Slice<T>) -> Self {
        Self::from(*slice)
    }
}

impl<'a, T: Element> From<&'a mut Slice<T>> for Argument<'a> {
    fn from(slice: &'a mut Slice<T>) -> Self {
        Self::from(&*slice)
    }
}

/// None is the null pointer.
impl<'a, T: Element> From<Option<&'a Slice<T>>> for Argument<'a> {
    fn from(slice: Option<&'a Slice<T>>) -> Self {
        slice.map_or(Self::of8([0; 8]), Self::from)
    }
}
