//! Which kernel makes a product, and how its work is cut: pure functions of the GPU and the sizes.
//! Every choice gives the same bits, as all of them add up exactly.

use std::fmt;

use crate::cuda::{Arch, Grid, Kernel};
use crate::gpu::ProductShape;

/// Rows of A that [`ProductEngine::Few`] takes at once: more take several passes over B.
const FEW_ROWS: usize = 4;

/// Steps of the summed axis that lie in shared memory at once: `TILE_DEPTH` of `tiles.cuh`.
const TILE_DEPTH: usize = 32;

/// The longest sum of products of two digits that 32 bits hold: `2 * 127 * 128 * 2^16 < 2^31`.
const DEPTH_MAX: usize = 65_536;

/// Threads of every block.
const THREADS: u32 = 256;

/// What multiplies: kernels of `matmul.cu`, on the engines of `engines.cuh`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ProductEngine {
    /// Whole codes in 64 bits, one warp per row of B: for few rows of A, where the time goes into
    /// reading B.
    Few,
    /// Four bytes at a time on ordinary cores.
    Dot,
    /// f16 tensor cores.
    Half,
    /// int8 tensor cores.
    Int8,
    /// int8 tensor cores, on tiles of few rows.
    Int8Flat,
}

impl fmt::Display for ProductEngine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Few => "64-bit",
            Self::Dot => "dp4a",
            Self::Half => "f16 tensor core",
            Self::Int8 => "int8 tensor core",
            Self::Int8Flat => "flat int8 tensor core",
        })
    }
}

impl ProductEngine {
    /// The engines of a GPU.
    pub fn of(arch: Arch) -> &'static [Self] {
        match arch.0 {
            ..70 => &[Self::Few, Self::Dot],
            70..75 => &[Self::Few, Self::Dot, Self::Half],
            _ => &[Self::Few, Self::Dot, Self::Half, Self::Int8, Self::Int8Flat],
        }
    }

    /// The kernel for operands of so many digits each (1 or 2).
    pub(crate) fn kernel(self, digits: DigitCounts) -> Kernel {
        let one_of = |names: [&'static str; 4]| names[digits.a * 2 + digits.b - 3];
        let name = match self {
            Self::Few => "matmul_few",
            Self::Dot => one_of([
                "matmul_dot_11",
                "matmul_dot_12",
                "matmul_dot_21",
                "matmul_dot_22",
            ]),
            Self::Half => one_of([
                "matmul_half_11",
                "matmul_half_12",
                "matmul_half_21",
                "matmul_half_22",
            ]),
            Self::Int8 => one_of([
                "matmul_int8_11",
                "matmul_int8_12",
                "matmul_int8_21",
                "matmul_int8_22",
            ]),
            Self::Int8Flat => one_of([
                "matmul_int8_flat_11",
                "matmul_int8_flat_12",
                "matmul_int8_flat_21",
                "matmul_int8_flat_22",
            ]),
        };
        let module = "matmul";
        Kernel { module, name }
    }

    /// Rows and columns of the product that a block makes.
    fn tile(self) -> (usize, usize) {
        match self {
            Self::Few => (FEW_ROWS, 8),
            Self::Dot | Self::Half => (64, 64),
            Self::Int8 => (64, 128),
            Self::Int8Flat => (16, 128),
        }
    }

    /// Bytes of shared memory: two tiles of each operand, one plane per digit.
    fn shared(self, digits: DigitCounts) -> usize {
        let (rows, cols) = self.tile();
        let row_bytes = match self {
            Self::Few => return 0,
            Self::Dot => TILE_DEPTH + 4,
            Self::Half => 2 * (TILE_DEPTH + 8),
            Self::Int8 | Self::Int8Flat => TILE_DEPTH + 16,
        };
        let tiles = 2 * (digits.a * rows + digits.b * cols) * row_bytes;
        match self {
            // The sums of 8 warps are laid out there at the end.
            Self::Half => tiles.max(8 * (digits.a + digits.b - 1) * 256 * 4),
            _ => tiles,
        }
    }

    /// The least depth that is worth a block of its own, and the most that a block can add up.
    fn depths(self) -> (usize, usize) {
        match self {
            Self::Few => (2_048, usize::MAX),
            _ => (512, DEPTH_MAX),
        }
    }
}

/// Digits of the codes of A and of B: 1 or 2 each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DigitCounts {
    pub(crate) a: usize,
    pub(crate) b: usize,
}

/// How a product is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ProductPlan {
    /// Blocks: x over tiles, y over runs of the summed axis, z over rows for
    /// [`ProductEngine::Few`].
    pub(crate) grid: Grid,
    /// Length of a run of the summed axis.
    pub(crate) chunk: usize,
}

impl ProductPlan {
    /// Runs of the summed axis: with more than one their sums are added up in memory.
    pub(crate) fn runs(&self) -> u32 {
        self.grid.blocks[1]
    }
}

/// The engine for a product on `arch`; `along_depth` where a row of B lies in one piece.
pub(crate) fn engine(arch: Arch, shape: ProductShape, along_depth: bool) -> ProductEngine {
    match arch.0 {
        _ if shape.rows <= FEW_ROWS && along_depth => ProductEngine::Few,
        ..70 => ProductEngine::Dot,
        70..75 => ProductEngine::Half,
        _ if shape.rows <= 16 => ProductEngine::Int8Flat,
        _ => ProductEngine::Int8,
    }
}

/// Whether a product should go to NVIDIA's library: it is large enough that splitting it into
/// planes of digits and joining their sums costs little beside the products, and the card's tensor
/// cores are faster than our kernels can use.
pub(crate) fn suits_a_library(arch: Arch, shape: ProductShape) -> bool {
    arch.0 >= 90 && shape.rows >= 512 && shape.cols >= 512 && shape.depth >= 2_048
}

/// The cut of a product for a GPU of so many multiprocessors: where its tiles are too few to give
/// each one work, the summed axis is cut too.
pub(crate) fn plan(
    engine: ProductEngine,
    multiprocessors: u32,
    shape: ProductShape,
    digits: DigitCounts,
) -> ProductPlan {
    let (tile_rows, tile_cols) = engine.tile();
    let (down, across) = (
        shape.rows.div_ceil(tile_rows),
        shape.cols.div_ceil(tile_cols),
    );
    let (least, most) = engine.depths();
    let idle = (multiprocessors as usize).div_ceil(down.saturating_mul(across));
    let wanted = idle.min(shape.depth / least).max(1);
    let chunk = shape.depth.div_ceil(wanted).min(most);
    let chunk = chunk.next_multiple_of(TILE_DEPTH);
    let grid = match engine {
        // One more pass over B, if A has more rows than a grid can have.
        ProductEngine::Few => Grid::new(across as u32, THREADS).z(down.min(65_535) as u32),
        _ => Grid::new((down * across) as u32, THREADS),
    };
    ProductPlan {
        grid: grid
            .y(shape.depth.div_ceil(chunk) as u32)
            .shared(engine.shared(digits) as u32),
        chunk,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TWO: DigitCounts = DigitCounts { a: 2, b: 2 };

    #[test]
    fn engines_go_by_card_and_rows() {
        use ProductEngine::{Dot, Few, Half, Int8, Int8Flat};
        let table = [
            (61, 1, true, Few),
            (61, 1, false, Dot),
            (61, 5, true, Dot),
            (70, 4, true, Few),
            (70, 4, false, Half),
            (70, 300, true, Half),
            (75, 300, true, Int8),
            (80, 5, true, Int8Flat),
            (80, 16, false, Int8Flat),
            (80, 17, true, Int8),
            (120, 4_096, false, Int8),
        ];
        for (arch, rows, along_depth, want) in table {
            let shape = ProductShape {
                rows,
                cols: 4_096,
                depth: 4_096,
            };
            let got = engine(Arch(arch), shape, along_depth);
            assert_eq!(got, want, "sm_{arch}, {rows} rows");
            assert!(
                ProductEngine::of(Arch(arch)).contains(&got),
                "sm_{arch} has {got}"
            );
        }
    }

    #[test]
    fn a_library_gets_large_products_of_new_cards() {
        let table = [
            (90, (512, 512, 2_048), true),
            (120, (4_096, 4_096, 4_096), true),
            (89, (4_096, 4_096, 4_096), false),
            (90, (511, 4_096, 4_096), false),
            (90, (4_096, 4_096, 256), false),
        ];
        for (arch, (rows, cols, depth), want) in table {
            let shape = ProductShape { rows, cols, depth };
            let got = suits_a_library(Arch(arch), shape);
            assert_eq!(got, want, "sm_{arch} {shape:?}");
        }
    }

    #[test]
    fn cuts_fill_the_card_and_no_sum_is_too_long() {
        // engine, multiprocessors, rows, cols, depth: blocks along x, y and z, chunk
        let table = [
            (
                ProductEngine::Int8,
                108,
                (4_096, 4_096, 4_096),
                ([2_048, 1, 1], 4_096),
            ),
            (
                ProductEngine::Int8,
                108,
                (64, 1_024, 4_096),
                ([8, 8, 1], 512),
            ),
            (
                ProductEngine::Int8,
                108,
                (64, 1_024, 1_000),
                ([8, 1, 1], 1_024),
            ),
            (
                ProductEngine::Int8,
                8,
                (64, 1_024, 4_096),
                ([8, 1, 1], 4_096),
            ),
            (
                ProductEngine::Int8,
                8,
                (64, 1_024, 65_536),
                ([8, 1, 1], 65_536),
            ),
            (
                ProductEngine::Int8,
                8,
                (64, 1_024, 65_537),
                ([8, 2, 1], 65_536),
            ),
            (ProductEngine::Dot, 20, (65, 65, 1), ([4, 1, 1], 32)),
            (
                ProductEngine::Few,
                132,
                (1, 4_096, 4_096),
                ([512, 1, 1], 4_096),
            ),
            (
                ProductEngine::Few,
                132,
                (3, 64, 1 << 20),
                ([8, 17, 1], 61_696),
            ),
            (ProductEngine::Few, 132, (9, 8, 100), ([1, 1, 3], 128)),
        ];
        for (engine, multiprocessors, (rows, cols, depth), (blocks, chunk)) in table {
            let shape = ProductShape { rows, cols, depth };
            let plan = plan(engine, multiprocessors, shape, TWO);
            let place = format!("{engine:?} {shape:?} on {multiprocessors}");
            assert_eq!((plan.grid.blocks, plan.chunk), (blocks, chunk), "{place}");
        }
    }

    #[test]
    fn shared_memory_needs_no_permission_of_the_driver() {
        for digits in [(1, 1), (1, 2), (2, 1), (2, 2)] {
            let digits = DigitCounts {
                a: digits.0,
                b: digits.1,
            };
            for &engine in ProductEngine::of(Arch(80)) {
                let bytes = engine.shared(digits);
                assert!(bytes <= 48 << 10, "{engine} {digits:?}: {bytes}");
            }
        }
        assert_eq!(ProductEngine::Int8.shared(TWO), 36_864);
        assert_eq!(ProductEngine::Half.shared(TWO), 40_960);
    }
}
