//! Rotary position embedding by heads. Twin of [`crate::reference::rope`].

use rayon::prelude::*;

use super::Cpu;
use crate::tables::{RopePairs, RopeTable};

/// Rotates each head of each token in place.
pub fn rotate(
    cpu: &Cpu,
    x: &mut [f32],
    width: usize,
    table: &RopeTable,
    positions: &[u32],
    inverse: bool,
) {
    let rows = cpu.rows_per_task(width);
    cpu.pool().install(|| {
        x.par_chunks_mut(rows * width)
            .zip(positions.par_chunks(rows))
            .for_each(|(x, positions)| rotate_rows(cpu.isa(), x, width, table, positions, inverse));
    });
}

per_isa! {
    fn rotate_rows(x: &mut [f32], width: usize, table: &RopeTable, positions: &[u32], inverse: bool)
     = rotate_body
}

#[inline(always)]
fn rotate_body(x: &mut [f32], width: usize, table: &RopeTable, positions: &[u32], inverse: bool) {
    let half = table.half;
    let (cosines, sines) = (table.cos.data(), table.sin.data());
    let sign = if inverse { -1.0 } else { 1.0 };
    for (row, &position) in x.chunks_exact_mut(width).zip(positions) {
        let at = position as usize * half;
        let (cos, sin) = (&cosines[at..at + half], &sines[at..at + half]);
        for head in row.chunks_exact_mut(table.head_dim) {
            let turning = &mut head[..2 * half];
            match table.pairs {
                RopePairs::Halves => rotate_halves(turning, cos, sin, sign),
                RopePairs::Neighbours => rotate_neighbours(turning, cos, sin, sign),
            }
        }
    }
}

#[inline(always)]
fn rotate_halves(head: &mut [f32], cos: &[f32], sin: &[f32], sign: f32) {
    let half = cos.len();
    let (first, second) = head.split_at_mut(half);
    for i in 0..half {
        let (x1, x2, sin) = (first[i], second[i], sin[i] * sign);
        first[i] = x1.mul_add(cos[i], -(x2 * sin));
        second[i] = x2.mul_add(cos[i], x1 * sin);
    }
}

#[inline(always)]
fn rotate_neighbours(head: &mut [f32], cos: &[f32], sin: &[f32], sign: f32) {
    for (pair, (cos, sin)) in head.chunks_exact_mut(2).zip(cos.iter().zip(sin)) {
        let (x1, x2, sin) = (pair[0], pair[1], sin * sign);
        pair[0] = x1.mul_add(*cos, -(x2 * sin));
        pair[1] = x2.mul_add(*cos, x1 * sin);
    }
}
