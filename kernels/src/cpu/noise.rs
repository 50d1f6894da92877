//! Random numbers of training by vectors: 16 groups of columns at a time. Twin of
//! [`crate::reference::noise`].

use rayon::prelude::*;

use super::Cpu;
use crate::reference::noise::{
    DROPPED_COLUMNS, Dropout, LANES, NOISE_COLUMNS, TOKEN_WORDS, centred,
};
use crate::rng::lanes;

/// Puts 0 for the dropped elements of x, rows of `cols`; row i belongs to the token `rows[i]`.
pub fn drop_assign<T: Copy + Default + Send + Sync>(
    cpu: &Cpu,
    x: &mut [T],
    cols: usize,
    dropout: Dropout,
    tokens: &[u32],
    rows: Option<&[u32]>,
) {
    let cols = cols.max(1);
    let per_task = cpu.rows_per_task(cols);
    cpu.pool().install(|| {
        let tasks = x.par_chunks_mut(cols * per_task).enumerate();
        tasks.for_each(|(task, x)| {
            let mut kept = vec![0; cols.next_multiple_of(LANES * DROPPED_COLUMNS)];
            for (index, row) in (task * per_task..).zip(x.chunks_exact_mut(cols)) {
                let token = rows.map_or(index, |rows| rows[index] as usize);
                keep(cpu.isa(), dropout, words_of(tokens, token), &mut kept);
                let each = row.iter_mut().zip(&kept);
                each.for_each(|(element, &kept)| {
                    *element = if kept == 0 { T::default() } else { *element };
                });
            }
        });
    });
}

/// Adds noise to x `[tokens, cols]`, uniform in `[-reach, reach)` of the token.
pub fn add_noise(cpu: &Cpu, x: &mut [f32], cols: usize, key: u64, tokens: &[u32], reach: &[f32]) {
    let cols = cols.max(1);
    let per_task = cpu.rows_per_task(cols);
    cpu.pool().install(|| {
        let tasks = x.par_chunks_mut(cols * per_task).enumerate();
        tasks.for_each(|(task, x)| {
            for (index, row) in (task * per_task..).zip(x.chunks_exact_mut(cols)) {
                noise_of_row(cpu.isa(), key, words_of(tokens, index), reach[index], row);
            }
        });
    });
}

fn words_of(tokens: &[u32], token: usize) -> [u32; TOKEN_WORDS] {
    let at = token * TOKEN_WORDS;
    [tokens[at], tokens[at + 1], tokens[at + 2]]
}

per_isa! {
    /// 1 for the columns that are kept, 0 for others; whole tiles.
    fn keep(dropout: Dropout, token: [u32; TOKEN_WORDS], kept: &mut [u16]) = keep_body
}

#[inline(always)]
fn keep_body(dropout: Dropout, token: [u32; TOKEN_WORDS], kept: &mut [u16]) {
    for (tile, kept) in kept.chunks_exact_mut(LANES * DROPPED_COLUMNS).enumerate() {
        let words = words_of_tile(dropout.key, token, tile);
        let (halves, _) = kept.as_chunks_mut::<LANES>();
        for (half, kept) in halves.iter_mut().enumerate() {
            let shift = 16 * (half as u32 % 2);
            for (kept, word) in kept.iter_mut().zip(&words[half / 2]) {
                *kept = u16::from((word >> shift) as u16 >= dropout.threshold);
            }
        }
    }
}

per_isa! {
    fn noise_of_row(key: u64, token: [u32; TOKEN_WORDS], reach: f32, row: &mut [f32]) = noise_body
}

#[inline(always)]
fn noise_body(key: u64, token: [u32; TOKEN_WORDS], reach: f32, row: &mut [f32]) {
    for (tile, row) in row.chunks_mut(LANES * NOISE_COLUMNS).enumerate() {
        let words = words_of_tile(key, token, tile);
        for (run, words) in row.chunks_mut(LANES).zip(&words) {
            for (element, &word) in run.iter_mut().zip(words) {
                *element = reach.mul_add(centred(word), *element);
            }
        }
    }
}

/// The four words of each group of a tile.
#[inline(always)]
fn words_of_tile(key: u64, token: [u32; TOKEN_WORDS], tile: usize) -> [[u32; LANES]; 4] {
    let mut groups = [0; LANES];
    let first = (tile * LANES) as u32;
    let each = groups.iter_mut().enumerate();
    each.for_each(|(lane, group)| *group = first + lane as u32);
    lanes(key, [token[0], token[1], token[2]], groups)
}
