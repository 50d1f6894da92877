//! Short sums of fixed shape over whole tensors, and the tree over atoms.

use super::grids::{blocks, over};
use super::{Cuda, Grid, Kernel, Result, Slice, arguments};
use crate::reference::reduce::SEGMENT;

const fn kernel(name: &'static str) -> Kernel {
    let module = "reduce";
    Kernel { module, name }
}

/// `sum(x)`. Waits for the GPU.
pub(crate) fn sum(cuda: &Cuda, x: &Slice<f32>) -> Result<f32> {
    let tensors = std::slice::from_ref(x);
    let sums = segments_in_order(cuda, kernel("reduce_segments"), tensors)?;
    Ok(sums[0])
}

/// `sum(x^2)` of each tensor. Waits once for all of them.
pub(crate) fn sum_squares(cuda: &Cuda, tensors: &[Slice<f32>]) -> Result<Vec<f32>> {
    if tensors.is_empty() {
        return Ok(Vec::new());
    }
    segments_in_order(cuda, kernel("reduce_square_segments"), tensors)
}

/// The sums that `kernel` gives of the segments of each tensor, added in order.
fn segments_in_order(cuda: &Cuda, by: Kernel, tensors: &[Slice<f32>]) -> Result<Vec<f32>> {
    let mut starts = vec![0u64];
    for x in tensors {
        starts.push(starts[starts.len() - 1] + x.len().div_ceil(SEGMENT) as u64);
    }
    let sums = cuda.alloc::<f32>(starts[tensors.len()] as usize)?;
    for (index, x) in tensors.iter().enumerate().filter(|(_, x)| !x.is_empty()) {
        let (start, count) = (starts[index] as usize, x.len().div_ceil(SEGMENT));
        let grid = Grid::new(blocks(cuda, count.div_ceil(8)), 256);
        let sums = sums.part(start, count);
        let arguments = arguments![x, &sums, x.len() as u64];
        cuda.launch(by, grid, arguments)?;
    }
    let (starts, totals) = (cuda.upload(&starts)?, cuda.alloc(tensors.len())?);
    let grid = Grid::new(tensors.len() as u32, 256);
    let arguments = arguments![&sums, &starts, &totals];
    cuda.launch(kernel("reduce_in_order"), grid, arguments)?;
    Ok(cuda.download(&totals)?)
}

/// The sum of `count` runs of one length, which make up `partials`, by the tree over their index.
pub(super) fn tree(cuda: &Cuda, partials: Slice<f32>, count: usize) -> Result<Slice<f32>> {
    if count == 1 {
        return Ok(partials);
    }
    let len = partials.len().checked_div(count).unwrap_or(0);
    let sum = cuda.alloc(len)?;
    if len > 0 {
        let arguments = arguments![&partials, &sum, count as u32, len as u64];
        cuda.launch(kernel("reduce_tree"), over(cuda, len), arguments)?;
    }
    Ok(sum)
}
