//! How the tokens of an answer are read.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::tokenizer::TextTokenizer;

/// What one token stands for in an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenText {
    /// Its id.
    pub token: u32,
    /// Bytes of the text, or a name that is no part of it.
    pub bytes: Vec<u8>,
    /// Whether it is no part of the text.
    pub is_hidden: bool,
}

/// Reads the tokens of an answer by `tokenizer.json` alone, but for some that it is told. So
/// whoever has that file and [`TextTokenizer::read_otherwise`] gets the same text.
#[derive(Clone, Debug)]
pub struct TokenReader {
    tokenizer: Arc<TextTokenizer>,
    others: BTreeMap<u32, (Vec<u8>, bool)>,
}

impl TokenReader {
    /// Reads these tokens as they say, and all others by `tokenizer.json`.
    pub fn new(tokenizer: Arc<TextTokenizer>, others: impl IntoIterator<Item = TokenText>) -> Self {
        let others = others.into_iter();
        let others = others.map(|other| (other.token, (other.bytes, other.is_hidden)));
        Self {
            others: others.collect(),
            tokenizer,
        }
    }

    /// The bytes of a token, and whether they are no part of the text.
    pub(crate) fn read(&self, id: u32) -> (Vec<u8>, bool) {
        let other = self.others.get(&id).cloned();
        other.unwrap_or_else(|| self.tokenizer.file_bytes(id))
    }

    pub(crate) fn leading_spaces(&self) -> usize {
        self.tokenizer.spelling().leading_spaces()
    }
}

impl TextTokenizer {
    /// The tokens below `vocab` that are read otherwise than `tokenizer.json` alone has them: those
    /// whose flags the files beside it change, and special ones that are `kept` in the text, such
    /// as the markers of tool calls. By rising id.
    pub fn read_otherwise(&self, kept: &[u32], vocab: u32) -> Vec<TokenText> {
        let added: BTreeSet<u32> = self.added_ids().filter(|id| *id < vocab).collect();
        let other = |token: u32| {
            let bytes = self.token_bytes(token);
            let is_hidden = self.is_special(token) && !kept.contains(&token);
            let by_file = self.file_bytes(token);
            let is_other = (&by_file.0, by_file.1) != (&bytes, is_hidden);
            is_other.then_some(TokenText {
                token,
                bytes,
                is_hidden,
            })
        };
        added.into_iter().filter_map(other).collect()
    }
}
