//! Long texts, tokenized in pieces: exactly the tokens of the whole, in bounded memory.
//!
//! The library holds about a hundred bytes for each byte of the text that it works on. So a long
//! text goes to it in pieces, cut at a space between two letters, where all of the following is
//! known of the tokenizer:
//!
//! * No word of it crosses the cut. Either its pre-tokenizer always begins a word at such a space
//!   (the patterns of [`PATTERNS`], metaspace that splits), or a text is one word to it, its model
//!   is byte-pair encoding, and no token of the vocabulary holds the letter in front of the cut
//!   with a space behind it: then no merge can join the two sides, and merges of one side do not
//!   look at the other.
//! * Its normalizer makes of the two sides what it makes of the whole: it is absent, NFC (a letter
//!   is never joined to a space in front of it), or puts a space in front of a text. That one
//!   stands for the space of the cut, which is left out.
//! * No added token touches the cut.
//!
//! If one of them is not known to hold, a text is tokenized whole, however long it is.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use tokenizers::Tokenizer;

use crate::error::TextError;
use crate::tokenizer::TextTokenizer;

/// Patterns of pre-tokenizers that begin a word at a space between two letters, whatever else
/// stands in the text: a run of letters takes the space before it, and nothing takes the one
/// behind it.
const PATTERNS: [&str; 5] = [
    // GPT-2, as a pattern of its own.
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    // Llama 3.
    concat!(
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|",
        r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    ),
    // Qwen 2 and 3.
    concat!(
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|",
        r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    ),
    // GPT-4, in two spellings.
    concat!(
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,3}|",
        r" ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"
    ),
    concat!(
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,3}|",
        r" ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    ),
];

/// The space of SentencePiece.
const METASPACE: char = '\u{2581}';

/// The space of byte-level tokenizers.
const BYTE_SPACE: char = '\u{120}';

/// Tokenizes texts of any length.
#[derive(Debug)]
pub struct Pieces<'a> {
    tokenizer: &'a TextTokenizer,
    /// Bytes of a piece, about.
    bytes: usize,
    cuts: Option<Cuts>,
}

/// Where the texts of a tokenizer may be cut, and how it frames them.
#[derive(Debug)]
struct Cuts {
    /// The space of the cut is left out, or else begins the right side.
    drops_space: bool,
    /// Letters that may stand in front of the cut; any, where there is no set.
    before: Option<BTreeSet<char>>,
    /// Letters that begin or end an added token.
    edges: BTreeSet<char>,
    /// Special tokens in front of a text.
    prefix: Vec<u32>,
    /// Special tokens behind it.
    suffix: Vec<u32>,
}

impl TextTokenizer {
    /// A way to tokenize long texts in pieces of about so many bytes.
    pub fn pieces(&self, bytes: usize) -> Pieces<'_> {
        Pieces {
            tokenizer: self,
            bytes: bytes.max(1),
            cuts: Cuts::of(self),
        }
    }
}

impl Pieces<'_> {
    /// Whether long texts are cut. Where not, the memory that one takes is about a hundred times
    /// its size.
    pub fn are_cut(&self) -> bool {
        self.cuts.is_some()
    }

    /// The tokens that [`TextTokenizer::encode`] gives. `done` is called with the bytes of each
    /// piece.
    ///
    /// # Errors
    /// [`TextError::Tokenizer`].
    pub fn encode(
        &self,
        text: &str,
        add_special: bool,
        done: &mut dyn FnMut(usize),
    ) -> Result<Vec<u32>, TextError> {
        let Some(cuts) = self.cuts.as_ref().filter(|_| text.len() > self.bytes) else {
            let ids = self.tokenizer.encode(text, add_special)?;
            done(text.len());
            return Ok(ids);
        };
        let mut ids = Vec::new();
        if add_special {
            ids.extend(&cuts.prefix);
        }
        let mut start = 0;
        while start < text.len() {
            let (end, next) = cuts.next(text, start + self.bytes);
            ids.extend(self.tokenizer.encode(&text[start..end], false)?);
            done(next - start);
            start = next;
        }
        if add_special {
            ids.extend(&cuts.suffix);
        }
        Ok(ids)
    }
}

/// A text that comes bit by bit.
#[derive(Debug)]
pub struct PieceStream<'a> {
    pieces: &'a Pieces<'a>,
    /// What is not tokenized yet.
    rest: String,
    /// Where in it a cut is looked for next.
    from: usize,
    has_begun: bool,
}

impl<'a> Pieces<'a> {
    /// A text whose parts are given one after the other. Its tokens are those of
    /// [`Self::encode`] for the whole, with special tokens.
    pub fn stream(&'a self) -> PieceStream<'a> {
        PieceStream {
            pieces: self,
            rest: String::new(),
            from: self.bytes,
            has_begun: false,
        }
    }
}

impl PieceStream<'_> {
    /// Adds a part, and hands over the tokens that are certain by now.
    ///
    /// # Errors
    /// [`TextError::Tokenizer`].
    pub fn push(&mut self, part: &str, take: &mut dyn FnMut(&[u32])) -> Result<(), TextError> {
        self.rest += part;
        let Some(cuts) = &self.pieces.cuts else {
            return Ok(());
        };
        let mut start = 0;
        loop {
            let (end, next) = cuts.next(&self.rest, self.from);
            if end == self.rest.len() {
                break;
            }
            if !std::mem::replace(&mut self.has_begun, true) {
                take(&cuts.prefix);
            }
            take(
                &self
                    .pieces
                    .tokenizer
                    .encode(&self.rest[start..end], false)?,
            );
            start = next;
            self.from = start + self.pieces.bytes;
        }
        self.rest.drain(..start);
        // Up to here there is no cut; the last byte may be a space whose right side is to come.
        let searched = self.rest.len().saturating_sub(1);
        self.from = searched.max(self.from - start);
        Ok(())
    }

    /// Hands over the tokens of what is left.
    ///
    /// # Errors
    /// [`TextError::Tokenizer`].
    pub fn finish(self, take: &mut dyn FnMut(&[u32])) -> Result<(), TextError> {
        let tokenizer = self.pieces.tokenizer;
        let Some(cuts) = self.pieces.cuts.as_ref().filter(|_| self.has_begun) else {
            take(&tokenizer.encode(&self.rest, true)?);
            return Ok(());
        };
        if !self.rest.is_empty() {
            take(&tokenizer.encode(&self.rest, false)?);
        }
        take(&cuts.suffix);
        Ok(())
    }
}

impl Cuts {
    /// Where this tokenizer's texts may be cut, where that is known.
    fn of(tokenizer: &TextTokenizer) -> Option<Self> {
        let library = tokenizer.library();
        let normalizer = serde_json::to_value(library.get_normalizer()).ok()?;
        let splitter = serde_json::to_value(library.get_pre_tokenizer()).ok()?;
        let prepends = normalizer == sentence_piece();
        if !prepends && !matches!(kind(&normalizer), None | Some("NFC")) {
            return None;
        }
        // The normalizer that makes the space of SentencePiece, or a pre-tokenizer, but not both.
        if prepends != splitter.is_null() {
            return None;
        }
        let before = match words(&splitter)? {
            Words::Whole(space) => Some(never_before(library, space)?),
            Words::Split => None,
        };
        let (prefix, suffix) = frame(tokenizer)?;
        Some(Self {
            drops_space: prepends,
            before,
            edges: edges(library)?,
            prefix,
            suffix,
        })
    }

    /// The first cut at or after `from`: where the left side ends, and where the right one begins.
    /// Where there is none: the end of the text, twice.
    fn next(&self, text: &str, from: usize) -> (usize, usize) {
        let mut from = from;
        while let Some(found) = text.as_bytes().get(from..).and_then(find_space) {
            let at = from + found;
            let left = text[..at].chars().next_back();
            let right = text[at + 1..].chars().next();
            if left.zip(right).is_some_and(|(x, y)| self.allows(x, y)) {
                return (at, at + usize::from(self.drops_space));
            }
            from = at + 1;
        }
        (text.len(), text.len())
    }

    fn allows(&self, left: char, right: char) -> bool {
        let is_free = |letter| is_letter(letter) && !self.edges.contains(&letter);
        let may_end = self.before.as_ref().is_none_or(|set| set.contains(&left));
        is_free(left) && is_free(right) && may_end
    }
}

fn find_space(bytes: &[u8]) -> Option<usize> {
    bytes.iter().position(|byte| *byte == b' ')
}

/// What a pre-tokenizer makes of a text.
enum Words {
    /// One word, in which a space is this.
    Whole(char),
    /// Words, one of which begins at every space between two letters.
    Split,
}

/// What is known of a pre-tokenizer; `None` for most.
fn words(splitter: &Value) -> Option<Words> {
    match kind(splitter) {
        None => Some(Words::Whole(METASPACE)),
        Some("Metaspace") if splitter["replacement"] == json!(METASPACE) => {
            match splitter["split"].as_bool()? {
                true => Some(Words::Split),
                false => Some(Words::Whole(METASPACE)),
            }
        }
        Some("ByteLevel") if splitter["add_prefix_space"] == json!(false) => {
            match splitter["use_regex"].as_bool()? {
                true => Some(Words::Split),
                false => Some(Words::Whole(BYTE_SPACE)),
            }
        }
        Some("Sequence") => {
            let [split, level] = splitter["pretokenizers"].as_array()?.as_slice() else {
                return None;
            };
            let pattern = split["pattern"]["Regex"].as_str()?;
            let is_known = kind(split) == Some("Split")
                && split["behavior"] == json!("Isolated")
                && split["invert"] == json!(false)
                && PATTERNS.contains(&pattern);
            let is_level = kind(level) == Some("ByteLevel")
                && level["add_prefix_space"] == json!(false)
                && level["use_regex"] == json!(false);
            (is_known && is_level).then_some(Words::Split)
        }
        _ => None,
    }
}

/// The normalizer of tokenizers that were SentencePiece's.
fn sentence_piece() -> Value {
    json!({ "type": "Sequence", "normalizers": [
        { "type": "Prepend", "prepend": METASPACE },
        { "type": "Replace", "pattern": { "String": " " }, "content": METASPACE },
    ] })
}

fn kind(part: &Value) -> Option<&str> {
    part["type"].as_str()
}

/// Letters that are tokens themselves, and that no token has with `space` behind them. `None` where
/// the model is not plain byte-pair encoding.
fn never_before(library: &Tokenizer, space: char) -> Option<BTreeSet<char>> {
    // Not by JSON: that would copy the whole vocabulary.
    let tokenizers::ModelWrapper::BPE(model) = library.get_model() else {
        return None;
    };
    let is_plain = model.dropout.is_none_or(|dropout| dropout == 0.0)
        && !model.ignore_merges
        && model.continuing_subword_prefix.is_none()
        && model.end_of_word_suffix.is_none();
    let vocabulary = library.get_vocab(false);
    if !is_plain || !vocabulary.contains_key(space.encode_utf8(&mut [0; 4]) as &str) {
        return None;
    }
    // A byte-level vocabulary spells ASCII letters alone as they are.
    let is_spelt = |letter: char| space == METASPACE || letter.is_ascii();
    let (mut known, mut joined) = (BTreeSet::new(), BTreeSet::new());
    vocabulary.keys().for_each(|token| {
        let mut chars = token.chars();
        if let (Some(letter), None) = (chars.next(), chars.next()) {
            known.extend(Some(letter).filter(|c| is_letter(*c) && is_spelt(*c)));
        }
        let pairs = token.chars().zip(token.chars().skip(1));
        joined.extend(pairs.filter(|(_, next)| *next == space).map(|(c, _)| c));
    });
    Some(&known - &joined)
}

/// Letters at the edges of added tokens; `None` where an added token has a space within it or is
/// one.
fn edges(library: &Tokenizer) -> Option<BTreeSet<char>> {
    let is_space = |c: char| c.is_whitespace() || c == METASPACE;
    let added = library.get_added_vocabulary().get_vocab();
    let harms = |token: &String| {
        let spaces = token.chars().filter(|c| is_space(*c)).count();
        spaces == 1 || (spaces > 0 && spaces < token.chars().count())
    };
    if added.keys().any(harms) {
        return None;
    }
    let ends = |token: &String| [token.chars().next(), token.chars().last()];
    Some(added.keys().flat_map(ends).flatten().collect())
}

/// The special tokens that a text gets in front and behind.
fn frame(tokenizer: &TextTokenizer) -> Option<(Vec<u32>, Vec<u32>)> {
    let plain = tokenizer.encode("a", false).ok()?;
    let framed = tokenizer.encode("a", true).ok()?;
    let starts = 0..=framed.len().checked_sub(plain.len())?;
    let mut found = starts.filter(|start| framed[*start..].starts_with(&plain));
    let (start, None) = (found.next()?, found.next()) else {
        return None;
    };
    let end = start + plain.len();
    Some((framed[..start].to_vec(), framed[end..].to_vec()))
}

/// Letters by every table, that are no marks and join to nothing in front of them: Latin,
/// Cyrillic, kana, Chinese characters, Hangul syllables.
fn is_letter(c: char) -> bool {
    matches!(c, 'A'..='Z' | 'a'..='z' | '\u{410}'..='\u{44f}' | '\u{3041}'..='\u{3096}'
        | '\u{30a1}'..='\u{30fa}' | '\u{4e00}'..='\u{9fff}' | '\u{ac00}'..='\u{d7a3}')
}
