//! The parts of a launch: the kernel, its grid, its arguments.

use std::marker::PhantomData;

/// A kernel by name: function `name` of `kernels/cuda/<module>.cu`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Kernel {
    /// The file, without `.cu`.
    pub module: &'static str,
    /// The function.
    pub name: &'static str,
}

/// How many blocks of how many threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grid {
    /// Blocks along x, y and z: at most 2^31 - 1, 65,535 and 65,535.
    pub blocks: [u32; 3],
    /// Threads of a block, along x: at most 1,024.
    pub threads: u32,
    /// Bytes of dynamic shared memory of a block.
    pub shared: u32,
}

impl Grid {
    /// `blocks` blocks along x, of `threads` threads, without dynamic shared memory.
    pub const fn new(blocks: u32, threads: u32) -> Self {
        Self {
            blocks: [blocks, 1, 1],
            threads,
            shared: 0,
        }
    }

    /// With `blocks` along y.
    pub const fn y(mut self, blocks: u32) -> Self {
        self.blocks[1] = blocks;
        self
    }

    /// With `blocks` along z.
    pub const fn z(mut self, blocks: u32) -> Self {
        self.blocks[2] = blocks;
        self
    }

    /// With `bytes` of dynamic shared memory per block.
    pub const fn shared(mut self, bytes: u32) -> Self {
        self.shared = bytes;
        self
    }
}

/// One argument of a kernel: an address, or a number of 4 or 8 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(8))]
pub struct Argument<'a> {
    bytes: [u8; 8],
    size: u8,
    /// Memory whose address is an argument lives until the launch.
    memory: PhantomData<&'a ()>,
}

impl Argument<'_> {
    /// Its bytes, as the kernel's parameter has them: 4 or 8.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.size)]
    }

    fn of4(bytes: [u8; 4]) -> Self {
        let [a, b, c, d] = bytes;
        Self {
            bytes: [a, b, c, d, 0, 0, 0, 0],
            size: 4,
            memory: PhantomData,
        }
    }

    /// A number of 8 bytes, or an address.
    pub(super) fn of8(bytes: [u8; 8]) -> Self {
        Self {
            bytes,
            size: 8,
            memory: PhantomData,
        }
    }
}

impl From<u32> for Argument<'_> {
    fn from(value: u32) -> Self {
        Self::of4(value.to_ne_bytes())
    }
}

impl From<i32> for Argument<'_> {
    fn from(value: i32) -> Self {
        Self::of4(value.to_ne_bytes())
    }
}

impl From<f32> for Argument<'_> {
    fn from(value: f32) -> Self {
        Self::of4(value.to_ne_bytes())
    }
}

impl From<u64> for Argument<'_> {
    fn from(value: u64) -> Self {
        Self::of8(value.to_ne_bytes())
    }
}

impl From<i64> for Argument<'_> {
    fn from(value: i64) -> Self {
        Self::of8(value.to_ne_bytes())
    }
}

/// The arguments of a launch: `arguments![&slice, 3u32, 0.5f32]`, in the kernel's order. A slice
/// gives its address, `None::<&Slice<_>>` the null pointer.
macro_rules! arguments {
    ($($argument:expr),* $(,)?) => {
        &[$($crate::gpu::Argument::from($argument)),*]
    };
}
pub(crate) use arguments;
