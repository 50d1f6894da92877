//! Embedding: rows of a table, and their gradient in the order of positions.

use super::elementwise::add_assign;

/// Row `ids[t]` of `table` `[vocab, hidden]` for each token t: `[tokens, hidden]`.
///
/// # Panics
/// For an id beyond the table: callers check ids first.
pub fn forward(table: &[f32], hidden: usize, ids: &[u32]) -> Vec<f32> {
    let row = |&id: &u32| &table[id as usize * hidden..(id as usize + 1) * hidden];
    ids.iter().flat_map(row).copied().collect()
}

/// Gradient `[vocab, hidden]` of the table: each row adds the gradients of its tokens by rising
/// position. dy `[tokens, hidden]`.
///
/// # Panics
/// For an id beyond the table: callers check ids first.
pub fn backward(dy: &[f32], hidden: usize, ids: &[u32], vocab: usize) -> Vec<f32> {
    let mut gradient = vec![0.0; vocab * hidden];
    for (row, &id) in dy.chunks_exact(hidden).zip(ids) {
        let at = id as usize * hidden;
        add_assign(&mut gradient[at..at + hidden], row);
    }
    gradient
}
