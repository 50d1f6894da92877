//! Logprobs in OpenAI's two forms.

use concord_proto::F32Bits;
use concord_proto::serving::TokenLogprob;
use concord_text::TextTokenizer;
use serde_json::{Map, Value, json};

/// Stands for minus infinity, the log-probability of an impossible token, because JSON has no
/// infinity. OpenAI uses the same number.
const NEVER: f64 = -9_999.0;

/// A log-probability for clients: finite, and at most 0. The kernel's value, which receipts bind,
/// may be a little above 0 for a token that is almost certain, and would break clients that take
/// logarithms or square roots of one minus the probability.
fn told(logprob: F32Bits) -> f64 {
    let logprob = f64::from(logprob.get());
    match logprob.is_finite() {
        // Adding 0 turns -0 into +0.
        true => logprob.min(0.0) + 0.0,
        false => NEVER,
    }
}

/// An entry of a chat's `logprobs.content`.
pub(super) fn chat(tokenizer: &TextTokenizer, token: &TokenLogprob) -> Value {
    let entry = |id: u32, logprob: F32Bits| {
        json!({
            "token": tokenizer.token_text(id),
            "logprob": told(logprob),
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

/// The position of the next token in its text.
#[derive(Debug, Default)]
pub(super) struct Cursor {
    /// Characters before it.
    pub at: usize,
    /// Characters of the first tokens that are missing in the text: some tokenizers add a space in
    /// front of a text, and remove it again when they decode.
    pub swallowed: usize,
}

impl Cursor {
    /// A cursor at the start of `text`, whose first tokens are these.
    pub fn new(tokenizer: &TextTokenizer, tokens: &[u32], text: &str) -> Self {
        let all: usize = tokens.iter().map(|id| width(tokenizer, *id)).sum();
        Self {
            at: 0,
            swallowed: all.saturating_sub(text.chars().count()),
        }
    }

    /// Returns where a token of `width` characters begins, and moves past it.
    fn pass(&mut self, width: usize) -> usize {
        let start = self.at;
        let swallowed = width.min(self.swallowed);
        self.swallowed -= swallowed;
        self.at += width - swallowed;
        start
    }
}

/// Characters of a token in a text. A character that several tokens make up counts for the first.
fn width(tokenizer: &TextTokenizer, id: u32) -> usize {
    if tokenizer.is_special(id) {
        return 0;
    }
    let bytes = tokenizer.token_bytes(id);
    bytes.iter().filter(|byte| **byte & 0xC0 != 0x80).count()
}

impl Lists {
    /// Adds the first token of a prompt, which has no logprob because nothing comes before it.
    pub fn first(&mut self, tokenizer: &TextTokenizer, id: u32, at: &mut Cursor) {
        self.place(tokenizer, id, at);
        self.logprobs.push(Value::Null);
        self.top.push(Value::Null);
    }

    /// Adds a token at the cursor, which moves past it.
    pub fn push(&mut self, tokenizer: &TextTokenizer, token: &TokenLogprob, at: &mut Cursor) {
        self.place(tokenizer, token.token, at);
        self.logprobs.push(json!(told(token.logprob)));
        let mut top = Map::new();
        let own = (token.token, token.logprob);
        // Of tokens with the same text, the most probable is listed. The drawn token is always
        // listed.
        for (id, logprob) in token.top.iter().chain([&own]) {
            let text = tokenizer.token_text(*id);
            top.entry(text).or_insert_with(|| json!(told(*logprob)));
        }
        self.top.push(Value::Object(top));
    }

    fn place(&mut self, tokenizer: &TextTokenizer, id: u32, at: &mut Cursor) {
        self.tokens.push(json!(tokenizer.token_text(id)));
        self.offsets.push(at.pass(width(tokenizer, id)));
    }

    /// Appends the lists of later tokens.
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
    use super::{Cursor, told};

    #[test]
    fn no_logprob_is_above_0_or_no_number() {
        let cases: [(f32, f64); 7] = [
            (5.5e-8, 0.0),
            (1.0, 0.0),
            (-0.0, 0.0),
            (-0.5, -0.5),
            (f32::NEG_INFINITY, -9_999.0),
            (f32::NAN, -9_999.0),
            (f32::MIN_POSITIVE, 0.0),
        ];
        for (given, expected) in cases {
            let out = told(given.into());
            assert_eq!(out, expected, "{given}");
            assert!(!out.is_sign_negative() || out < 0.0, "{given}");
        }
    }

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
