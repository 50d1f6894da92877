//! Random numbers of training, from counters: which elements are dropped, and noise. Each is a
//! function of a key, the token and the column, so that it is the same wherever it is computed.
//!
//! A token has the words of Philox under `key` in the stream of its document, at the counter
//! `position * 2^32 + group`. Columns are taken in tiles of 16 groups: column c is in group
//! `tile * 16 + c mod 16`, so that 16 columns next to each other are drawn by 16 groups.

use crate::rng::Philox;

/// Groups of columns of a tile.
pub const LANES: usize = 16;
/// Columns of a group that are dropped or kept by the four words of one counter.
pub const DROPPED_COLUMNS: usize = 8;
/// Columns of a group that get noise from the four words of one counter.
pub const NOISE_COLUMNS: usize = 4;
/// Numbers by which a token is told: its position, and its document as two words, the low one
/// first.
pub const TOKEN_WORDS: usize = 3;

/// Which elements are dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dropout {
    /// What its random numbers are drawn under.
    pub key: u64,
    /// Of 65,536 elements so many are dropped.
    pub threshold: u16,
}

/// The stream of a token, and the counter of its first group.
fn token_stream(key: u64, tokens: &[u32], row: usize) -> (Philox, u64) {
    let words = &tokens[row * TOKEN_WORDS..(row + 1) * TOKEN_WORDS];
    let document = u64::from(words[2]) << 32 | u64::from(words[1]);
    (Philox::new(key, document), u64::from(words[0]) << 32)
}

/// The group of a column where each has `columns` of them, and its place in the group.
fn place(column: usize, columns: usize) -> (u64, usize) {
    let width = LANES * columns;
    let within = column % width;
    let group = column / width * LANES + within % LANES;
    (group as u64, within / LANES)
}

/// Whether a column of a token is kept: 16 bits for each column, the low half of a word first.
fn is_kept(dropout: Dropout, (stream, first): (Philox, u64), column: usize) -> bool {
    let (group, index) = place(column, DROPPED_COLUMNS);
    let word = stream.words(first + group)[index / 2];
    (word >> (16 * (index % 2))) as u16 >= dropout.threshold
}

/// Puts 0 for the dropped elements of x, rows of `cols`. Row i belongs to the token `rows[i]` of
/// `tokens`, or to token i without `rows`.
pub fn drop_assign<T: Copy + Default>(
    x: &mut [T],
    cols: usize,
    dropout: Dropout,
    tokens: &[u32],
    rows: Option<&[u32]>,
) {
    for (index, row) in x.chunks_exact_mut(cols.max(1)).enumerate() {
        let token = rows.map_or(index, |rows| rows[index] as usize);
        let stream = token_stream(dropout.key, tokens, token);
        for (column, element) in row.iter_mut().enumerate() {
            if !is_kept(dropout, stream, column) {
                *element = T::default();
            }
        }
    }
}

/// Adds noise to x `[tokens, cols]`: uniform in `[-reach, reach)`, with a reach for each token.
pub fn add_noise(x: &mut [f32], cols: usize, key: u64, tokens: &[u32], reach: &[f32]) {
    for (index, row) in x.chunks_exact_mut(cols.max(1)).enumerate() {
        let (stream, first) = token_stream(key, tokens, index);
        for (column, element) in row.iter_mut().enumerate() {
            let (group, word) = place(column, NOISE_COLUMNS);
            let word = stream.words(first + group)[word];
            *element = reach[index].mul_add(centred(word), *element);
        }
    }
}

/// A multiple of 2^-23 in [-1, 1).
#[inline(always)]
pub fn centred(word: u32) -> f32 {
    (word >> 8) as f32 / 8_388_608.0 - 1.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_have_places_of_their_own() {
        for columns in [DROPPED_COLUMNS, NOISE_COLUMNS] {
            let mut seen = std::collections::BTreeSet::new();
            assert!((0..1_000).all(|column| seen.insert(place(column, columns))));
            assert!(seen.iter().all(|&(_, index)| index < columns));
        }
    }

    #[test]
    fn so_many_elements_are_dropped() {
        let dropout = Dropout {
            key: 5,
            threshold: 6_554,
        };
        let tokens: Vec<u32> = (0..400).flat_map(|token| [token, 7, 9]).collect();
        let mut x = vec![1.0_f32; 400 * 250];
        drop_assign(&mut x, 250, dropout, &tokens, None);
        let dropped = x.iter().filter(|&&v| v == 0.0).count() as f64 / x.len() as f64;
        assert!((dropped - 0.1).abs() < 0.004, "{dropped}");
    }

    #[test]
    fn noise_is_uniform_between_its_ends() {
        let tokens: Vec<u32> = (0..100).flat_map(|token| [token, 1, 2]).collect();
        let mut x = vec![0.0; 100 * 100];
        add_noise(&mut x, 100, 3, &tokens, &[0.5; 100]);
        let mean = x.iter().sum::<f32>() / x.len() as f32;
        let square = x.iter().map(|v| v * v).sum::<f32>() / x.len() as f32;
        assert!(x.iter().all(|v| (-0.5..0.5).contains(v)));
        assert!(mean.abs() < 0.012 && (square - 0.25 / 3.0).abs() < 0.003);
    }
}
