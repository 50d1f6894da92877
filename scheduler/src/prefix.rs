//! Keys of the contents of pages.

use concord_proto::serving::PAGE_TOKENS;
use concord_proto::{Digest, Domain};

/// The key of a full page: a digest of its tokens, of all tokens before them, and of the adapter
/// that made its keys and values. `previous` is the key of the page before it.
pub(crate) fn key(previous: Option<Digest>, adapter: Option<Digest>, tokens: &[u32]) -> Digest {
    debug_assert_eq!(tokens.len(), PAGE_TOKENS as usize);
    Digest::of_value(Domain::Prefix, &(previous, adapter, tokens))
}

/// Extends the keys of a sequence's pages to its first `count` pages, which are full.
pub(crate) fn extend(
    keys: &mut Vec<Digest>,
    adapter: Option<Digest>,
    tokens: &[u32],
    count: usize,
) {
    let page = PAGE_TOKENS as usize;
    while keys.len() < count {
        let at = keys.len() * page;
        let next = key(keys.last().copied(), adapter, &tokens[at..at + page]);
        keys.push(next);
    }
}
