//! Logprobs in OpenAI's two forms.

use concord_proto::F32Bits;
use concord_proto::serving::TokenLogprob;
use concord_text::TextTokenizer;
use serde_json::{Map, Value, json};

/// JSON has no infinity: this stands for a token that cannot come, as with OpenAI.
const NEVER: f64 = -9_999.0;

fn finite(logprob: F32Bits) -> f64 {
    let logprob = f64::from(logprob.get());
    if logprob.is_finite() { logprob } else { NEVER }
}

/// An entry of a chat's `logprobs.content`.
pub(super) fn chat(tokenizer: &TextTokenizer, token: &TokenLogprob) -> Value {
    let entry = |id: u32, logprob: F32Bits| {
        json!({
            "token": tokenizer.token_text(id),
            "logprob": finite(logprob),
            "bytes": tokenizer.token_bytes(id),
        })
    };
    let top = token.top.iter().map(|(id, logprob)| entry(*id, *logprob));
    let top: Vec<Value> = top.collect();
    let mut value = entry(token.token, token.logprob);
    value["top_logprobs"] = Value::Array(top);
    value
}

/// The `logprobs` of a completion: lists of equal length.
#[derive(Debug, Default)]
pub(super) struct Lists {
    tokens: Vec<Value>,
    logprobs: Vec<Value>,
    top: Vec<Value>,
    offsets: Vec<usize>,
}

/// Where in its text the next token stands.
#[derive(Debug, Default)]
pub(super) struct Cursor {
    /// Characters before it.
    pub at: usize,
    /// Characters of tokens that the start of the text swallows: some tokenizers put a space before
    /// a text, and take it off again.
    pub swallowed: usize,
}

impl Cursor {
    /// A cursor at the start of `text`, which these tokens begin with.
    pub fn new(tokenizer: &TextTokenizer, tokens: &[u32], text: &str) -> Self {
        let all: usize = tokens.iter().map(|id| width(tokenizer, *id)).sum();
        Self {
            at: 0,
            swallowed: all.saturating_sub(text.chars().count()),
        }
    }

    /// Gives where a token of `width` characters begins, and moves behind it.
    fn pass(&mut self, width: usize) -> usize {
        let start = self.at;
        let swallowed = width.min(self.swallowed);
        self.swallowed -= swallowed;
        self.at += width - swallowed;
        start
    }
}

/// Characters of a token in a text. One that several tokens make up counts where it begins.
fn width(tokenizer: &TextTokenizer, id: u32) -> usize {
    if tokenizer.is_special(id) {
        return 0;
    }
    let bytes = tokenizer.token_bytes(id);
    bytes.iter().filter(|byte| **byte & 0xC0 != 0x80).count()
}

impl Lists {
    /// The first token of a prompt: nothing comes before it, so it has no logprob.
    pub fn first(&mut self, tokenizer: &TextTokenizer, id: u32, at: &mut Cursor) {
        self.place(tokenizer, id, at);
        self.logprobs.push(Value::Null);
        self.top.push(Value::Null);
    }

    /// Adds a token that stands `at` the cursor, which moves behind it.
    pub fn push(&mut self, tokenizer: &TextTokenizer, token: &TokenLogprob, at: &mut Cursor) {
        self.place(tokenizer, token.token, at);
        self.logprobs.push(json!(finite(token.logprob)));
        let mut top = Map::new();
        let own = (token.token, token.logprob);
        // Tokens of one text: the most probable stands for all. The token itself is always there.
        for (id, logprob) in token.top.iter().chain([&own]) {
            let text = tokenizer.token_text(*id);
            top.entry(text).or_insert_with(|| json!(finite(*logprob)));
        }
        self.top.push(Value::Object(top));
    }

    fn place(&mut self, tokenizer: &TextTokenizer, id: u32, at: &mut Cursor) {
        self.tokens.push(json!(tokenizer.token_text(id)));
        self.offsets.push(at.pass(width(tokenizer, id)));
    }

    /// Adds what stands behind.
    pub fn extend(&mut self, other: Self) {
        self.tokens.extend(other.tokens);
        self.logprobs.extend(other.logprobs);
        self.top.extend(other.top);
        self.offsets.extend(other.offsets);
    }

    pub fn value(self) -> Value {
        json!({
            "tokens": self.tokens,
            "token_logprobs": self.logprobs,
            "top_logprobs": self.top,
            "text_offset": self.offsets,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::Cursor;

    /// Tokens "<s>", " Once", " upon" of the text "Once upon".
    #[test]
    fn a_swallowed_space_moves_what_follows() {
        let mut cursor = Cursor {
            at: 0,
            swallowed: 1,
        };
        let starts = [0, 5, 5, 1].map(|width| cursor.pass(width));
        assert_eq!(starts, [0, 0, 4, 9]);
    }
}
