//! Everything that a peer may send is bounded here, with the reason for each bound.

/// A canonical message: the longest are the claims of a step (32,768 leaves of 1 KiB).
pub const MESSAGE_BYTES_MAX: usize = 32 << 20;

/// A blob: the largest tensor of a 70B model, 128,256 x 8,192 in f32, is 4.2 GB.
pub const BLOB_BYTES_MAX: u64 = 8 << 30;

/// A piece of a blob or a frame: large enough for full rate, small enough to interleave.
pub const CHUNK_BYTES: usize = 1 << 20;

/// A tensor on its way between two workers: 32,768 tokens of 16,384 features in f32.
pub const FRAME_BYTES_MAX: u64 = 2 << 30;

/// A conviction: the claim of a step of 4,096 microbatches with all its leaves has 5 MiB. It has to
/// fit into an entry of the ledger, which is a message.
pub const CONVICTION_BYTES_MAX: usize = 8 << 20;

/// Dimensions of a tensor.
pub const RANK_MAX: usize = 8;

/// Microbatches in a step, over all replicas.
pub const MICROBATCHES_MAX: u32 = 4_096;

/// Steps of a job.
pub const STEPS_MAX: u32 = 10_000_000;

/// A text that a peer names itself or its device by.
pub const NAME_BYTES_MAX: usize = 256;

/// An address: a key, a name of DNS, and what stands around them.
pub const ADDRESS_BYTES_MAX: usize = 384;

/// Whether a character moves the cursor, hides its neighbours or reverses their order. With some of
/// these a peer could forge lines of a terminal or of a log.
pub fn is_unprintable(letter: char) -> bool {
    let turns = matches!(letter, '\u{200e}' | '\u{200f}' | '\u{61c}')
        || ('\u{202a}'..='\u{202e}').contains(&letter)
        || ('\u{2066}'..='\u{2069}').contains(&letter);
    letter.is_control() || turns || matches!(letter, '\u{2028}' | '\u{2029}')
}

/// Texts that end an answer: OpenAI's clients send at most four.
pub const STOP_TEXTS_MAX: usize = 16;

/// A text that ends an answer.
pub const STOP_TEXT_BYTES_MAX: usize = 1_024;

/// Tokens of a tokenizer that the files beside `tokenizer.json` have otherwise: known models have
/// some tens. They are in the spec of every answer.
pub const READINGS_MAX: usize = 4_096;

/// The text of such a token.
pub const READING_BYTES_MAX: usize = 4_096;

/// Alternatives beside a token, with their logprobs, as in OpenAI's API. The longest receipt then
/// has 131,072 tokens of 172 bytes: it is a message.
pub const TOP_LOGPROBS_MAX: u8 = 20;

/// The most auditors that a job may name.
pub const AUDITORS_MAX: usize = 16;

/// The most checkers of the pool that audit a job at once.
pub const CHECKERS_MAX: usize = 16;

/// Whether a peer may name its device so: of at most [`NAME_BYTES_MAX`] bytes, all printable.
pub fn is_name(text: &str) -> bool {
    text.len() <= NAME_BYTES_MAX && !text.contains(is_unprintable)
}

const _: () = assert!(131_072 * (12 + 8 * TOP_LOGPROBS_MAX as usize) < MESSAGE_BYTES_MAX);
const _: () = assert!(CHUNK_BYTES < MESSAGE_BYTES_MAX);
const _: () = assert!(CONVICTION_BYTES_MAX < MESSAGE_BYTES_MAX);
const _: () = assert!(FRAME_BYTES_MAX <= BLOB_BYTES_MAX);
