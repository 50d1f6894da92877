//! BLAKE3 of a tensor where it lies: what leaves the GPU is the digest.

use super::grids::blocks;
use super::{Element, Grid, Kernel, Result, Slice, arguments};

const CHUNKS: Kernel = Kernel {
    module: "blake3",
    name: "blake3_chunks",
};
const TREE: Kernel = Kernel {
    module: "blake3",
    name: "blake3_tree",
};

/// Bytes of a chunk.
const CHUNK: usize = 1_024;
/// Chaining values that one block of the tree takes in.
const LEAVES: usize = 256;

/// The digest of `prefix` and the elements, which have four bytes each, as little-endian bytes, in
/// BLAKE3's key-derivation mode. Waits for the GPU.
pub(crate) fn derived<T: Element>(
    x: &Slice<T>,
    context_key: &[u8; 32],
    prefix: &[u8],
) -> Result<[u8; 32]> {
    assert_eq!(size_of::<T>(), 4, "the kernel reads words");
    let cuda = x.cuda();
    let bytes = prefix.len() + 4 * x.len();
    let mut count = bytes.div_ceil(CHUNK).max(1);
    // The key, and what comes before the tensor.
    let head = cuda.upload(&[context_key, prefix].concat())?;
    let mut values = cuda.alloc::<u32>(8 * count)?;
    let grid = Grid::new(blocks(cuda, count.div_ceil(32)), 32);
    let (prefix_bytes, chunks) = (prefix.len() as u64, count as u64);
    let arguments = arguments![x, &head, &values, bytes as u64, prefix_bytes, chunks];
    cuda.launch(CHUNKS, grid, arguments)?;
    while count > 1 {
        let runs = count.div_ceil(LEAVES);
        let merged = cuda.alloc::<u32>(8 * runs)?;
        let grid = Grid::new(runs as u32, 128);
        let arguments = arguments![&values, &merged, count as u64, &head];
        cuda.launch(TREE, grid, arguments)?;
        (values, count) = (merged, runs);
    }
    let words = cuda.download(&values)?;
    let mut digest = [0; 32];
    for (bytes, word) in digest.chunks_exact_mut(4).zip(&words) {
        bytes.copy_from_slice(&word.to_le_bytes());
    }
    Ok(digest)
}
