//! Which token each position predicts.

/// For each position of each sequence the next token, where the mask of that token is 1. `tokens`
/// and `mask` are `[sequences * len]`.
pub fn next_tokens(tokens: &[u32], mask: &[u8], len: usize) -> Vec<Option<u32>> {
    let sequences = tokens.chunks_exact(len).zip(mask.chunks_exact(len));
    sequences
        .flat_map(|(tokens, mask)| {
            let next = tokens.iter().zip(mask).skip(1);
            next.map(|(&token, &mask)| (mask == 1).then_some(token))
                .chain([None])
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::next_tokens;

    #[test]
    fn targets_stay_inside_their_sequence_and_mask() {
        let targets = next_tokens(&[1, 2, 3, 4, 5, 6], &[1, 1, 0, 1, 1, 1], 3);
        assert_eq!(targets, [Some(2), None, None, Some(5), Some(6), None]);
    }
}
