//! Fields of `/v1/completions`.

use concord_proto::limits::TOP_LOGPROBS_MAX;

use super::sampling::COMMON;
use super::{Accepts, Field, Table, only, used};

/// Fields of `/v1/completions`.
pub(crate) const COMPLETION: Table = &[OWN, COMMON];

const OWN: &[Field] = &[
    used(
        "prompt",
        Accepts::Other("a string, or an array of strings, of token ids or of arrays of token ids"),
        "Needed. The text to continue; several texts get answers of their own. Prompts times `n` \
         are at most 128.",
    ),
    used(
        "max_tokens",
        Accepts::Integer(0, u32::MAX as i64),
        "Tokens of an answer, at most; 16 if absent, 0 only with `echo`.",
    ),
    used(
        "echo",
        Accepts::Flag,
        "Whether an answer begins with the prompt, with its log-probabilities where they are asked \
         for.",
    ),
    used(
        "logprobs",
        Accepts::Integer(0, TOP_LOGPROBS_MAX as i64),
        "How many alternatives are given with the log-probability of each token; if absent, there \
         are no log-probabilities.",
    ),
    used(
        "add_special_tokens",
        Accepts::Flag,
        "Whether the tokenizer adds its special tokens to the prompt, such as the one that begins \
         a text; true if absent.",
    ),
    only("suffix", "\"\""),
    only("response_format", "{\"type\":\"text\"}"),
    only("prompt_logprobs", "null"),
];
