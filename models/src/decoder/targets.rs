//! What each token predicts.

use concord_kernels::ops::Lengths;

/// What each token predicts: the next one of its document, where that has a mask of 1.
pub(super) fn next_tokens(documents: &Lengths, tokens: &[u32], mask: &[u8]) -> Vec<Option<u32>> {
    let of_document = |range: std::ops::Range<usize>| {
        let next = tokens[range.clone()].iter().zip(&mask[range]).skip(1);
        next.map(|(&token, &mask)| (mask == 1).then_some(token))
            .chain([None])
    };
    let documents = documents.ranges().filter(|range| !range.is_empty());
    documents.flat_map(of_document).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_stay_inside_their_document_and_mask() {
        let documents = Lengths::new(vec![3, 1, 2]);
        let targets = next_tokens(&documents, &[1, 2, 3, 4, 5, 6], &[1, 1, 0, 1, 1, 1]);
        assert_eq!(targets, [Some(2), None, None, None, Some(6), None]);
    }
}
