//! Rotary position embedding (Su et al. 2021), of whole heads or of their first elements.

use crate::tables::{RopePairs, RopeTable};

/// Rotates each head of each token in place: `y1 = fma(x1, cos, -(x2 * sin))`,
/// `y2 = fma(x2, cos, x1 * sin)` for each pair of the table; elements in no pair stay. x `[tokens,
/// heads * head_dim]`; `inverse` turns back, which is the backward pass.
pub fn rotate(x: &mut [f32], width: usize, table: &RopeTable, positions: &[u32], inverse: bool) {
    let half = table.half;
    let (cosines, sines) = (table.cos.data(), table.sin.data());
    for (row, &position) in x.chunks_exact_mut(width).zip(positions) {
        for head in row.chunks_exact_mut(table.head_dim) {
            for i in 0..half {
                let cos = cosines[position as usize * half + i];
                let sin = sines[position as usize * half + i];
                let sin = if inverse { -sin } else { sin };
                let (first, second) = match table.pairs {
                    RopePairs::Halves => (i, half + i),
                    RopePairs::Neighbours => (2 * i, 2 * i + 1),
                };
                let (x1, x2) = (head[first], head[second]);
                head[first] = x1.mul_add(cos, -(x2 * sin));
                head[second] = x2.mul_add(cos, x1 * sin);
            }
        }
    }
}
