//! The peak rates of a GPU: integer products out of registers, and copies. Rates of operations are
//! compared with these.

use std::fmt;

use super::{Arch, Cuda, Grid, Kernel, Result, Slice, arguments};

/// Threads of a block.
const THREADS: u32 = 256;
/// Blocks for each multiprocessor: enough that its units never wait.
const BLOCKS: u32 = 8;

/// What multiplies integers in a GPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Unit {
    /// Four bytes at a time on ordinary cores.
    Dot,
    /// f16 tensor cores, through `wmma`.
    Half,
    /// int8 tensor cores, through `mma.sync`: on sm_90 and later less than the card's `wgmma` and
    /// `tcgen05` reach.
    Int8,
}

impl Unit {
    /// What a GPU has.
    pub fn of(arch: Arch) -> &'static [Self] {
        match arch.0 {
            ..70 => &[Self::Dot],
            70..75 => &[Self::Dot, Self::Half],
            _ => &[Self::Dot, Self::Half, Self::Int8],
        }
    }

    fn kernel(self) -> Kernel {
        let module = "peak";
        let name = match self {
            Self::Dot => "peak_dot",
            Self::Half => "peak_half",
            Self::Int8 => "peak_int8",
        };
        Kernel { module, name }
    }

    /// Operations of a warp in a round; a multiplication and the addition to a sum are two.
    fn operations(self) -> u64 {
        match self {
            Self::Dot => 32 * 8 * (2 * 4),
            Self::Half => 4 * (2 * 16 * 16 * 16),
            Self::Int8 => 8 * (2 * 16 * 8 * 32),
        }
    }
}

impl fmt::Display for Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Dot => "dp4a",
            Self::Half => "f16 tensor cores",
            Self::Int8 => "int8 tensor cores",
        })
    }
}

/// Puts `rounds` rounds of products on all multiprocessors into the stream, and gives the number of
/// operations that they are.
///
/// # Errors
/// [`crate::KernelError::Cuda`] where the GPU is out of memory or lost.
pub fn multiply(cuda: &Cuda, unit: Unit, rounds: u32) -> Result<u64> {
    let blocks = cuda.multiprocessors() * BLOCKS;
    let out: Slice<i32> = cuda.alloc((blocks * THREADS) as usize)?;
    let grid = Grid::new(blocks, THREADS);
    cuda.launch(unit.kernel(), grid, arguments![&out, rounds])?;
    let warps = u64::from(blocks * THREADS / 32);
    Ok(warps * u64::from(rounds) * unit.operations())
}

/// Memory that is copied from one half to the other.
#[derive(Debug)]
pub struct Copied {
    from: Slice<u8>,
    to: Slice<u8>,
}

impl Copied {
    /// Two halves of `bytes` each.
    ///
    /// # Errors
    /// [`crate::KernelError::Cuda`] where the GPU is out of memory or lost.
    pub fn new(cuda: &Cuda, bytes: usize) -> Result<Self> {
        Ok(Self {
            from: cuda.zeros(bytes)?,
            to: cuda.alloc(bytes)?,
        })
    }

    /// Puts a copy into the stream. Each byte is read once and written once.
    ///
    /// # Errors
    /// [`crate::KernelError::Cuda`] where the GPU is lost.
    pub fn copy(&self) -> Result<()> {
        Ok(self.from.cuda().copy(&self.from, &self.to)?)
    }
}

#[cfg(all(test, feature = "emulator"))]
mod tests {
    use super::*;
    use crate::cuda::emulator::EmulatorOptions;

    #[test]
    fn every_unit_multiplies_as_often_as_it_says() {
        let cuda = Cuda::emulated(EmulatorOptions {
            multiprocessors: 1,
            ..EmulatorOptions::default()
        });
        // 8 blocks of 8 warps; a warp of int8 tensor cores makes 8 tiles of 16 x 8 x 32 a round.
        let int8 = 64 * 3 * 8 * 16 * 8 * 32 * 2;
        assert_eq!(multiply(&cuda, Unit::Int8, 3).unwrap(), int8);
        for &unit in Unit::of(cuda.arch()) {
            let one = multiply(&cuda, unit, 1).unwrap();
            assert_eq!(multiply(&cuda, unit, 4).unwrap(), 4 * one, "{unit}");
        }
    }

    #[test]
    fn old_cards_have_fewer_units() {
        assert_eq!(Unit::of(Arch(61)), [Unit::Dot]);
        assert_eq!(Unit::of(Arch(70)), [Unit::Dot, Unit::Half]);
        assert_eq!(Unit::of(Arch(120)).len(), 3);
    }
}
