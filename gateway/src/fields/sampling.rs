//! Fields that chats and completions share.

use super::{Accepts, Field, Items, Table, only, unused, used};

const STREAM_OPTIONS: Table = &[&[
    used(
        "include_usage",
        Accepts::Flag,
        "Whether a last chunk has the usage.",
    ),
    only("include_obfuscation", "false"),
    only("continuous_usage_stats", "false"),
]];

/// Fields that chats and completions share.
pub(super) const COMMON: &[Field] = &[
    used(
        "model",
        Accepts::Text,
        "The model or the adapter, by its name in `/v1/models`; the model if absent or empty.",
    ),
    used(
        "n",
        Accepts::Count(|limits| limits.choices),
        "Answers to each prompt; 1 if absent. Answer `i` is drawn with a seed made of `seed` and \
         `i`.",
    ),
    used(
        "best_of",
        Accepts::Integer(1, u32::MAX as i64),
        "Has to be the same as `n`.",
    ),
    used(
        "temperature",
        Accepts::Number(0.0, 2.0),
        "Divides the logits; 0 takes the most probable token. Values between 0 and 0.01 count as \
         0.01.",
    ),
    used(
        "top_p",
        Accepts::Number(0.0, 1.0),
        "Draws from the most probable tokens that together have this share of the probability.",
    ),
    used(
        "top_k",
        Accepts::Integer(-1, u32::MAX as i64),
        "Draws from this many of the most probable tokens; 0 and -1 keep all.",
    ),
    used(
        "seed",
        Accepts::Other("an integer of 64 bits"),
        "The same seed gives the same answer to a prompt, whatever else is computed with it. If \
         absent, each answer gets a random seed, which is in its receipt.",
    ),
    used(
        "frequency_penalty",
        Accepts::Number(-2.0, 2.0),
        "Lowers the logit of a token for each time that it is in the answer; 0 if absent.",
    ),
    used(
        "presence_penalty",
        Accepts::Number(-2.0, 2.0),
        "Lowers the logit of tokens that are in the answer; 0 if absent.",
    ),
    used(
        "logit_bias",
        Accepts::Map,
        "Numbers from -100 to 100 by token id, at most 1024, that are added to logits.",
    ),
    used(
        "stop",
        Accepts::Other("a string or an array of strings"),
        "Texts of 1 to 1024 bytes that end an answer and are not part of it. The name of a \
         special token can be one.",
    ),
    used(
        "stop_token_ids",
        Accepts::List(256, Items::Other("token ids")),
        "Tokens that end an answer, besides the model's own.",
    ),
    used(
        "ignore_eos",
        Accepts::Flag,
        "Whether an answer goes on after the model's own last token.",
    ),
    used(
        "stream",
        Accepts::Flag,
        "Whether the answer comes in chunks (server-sent events).",
    ),
    used(
        "stream_options",
        Accepts::Object(STREAM_OPTIONS),
        "Only beside `stream`: true.",
    ),
    used(
        "store",
        Accepts::Flag,
        "Answers are not stored; true is listed in `x-concord-ignored`.",
    ),
    used(
        "service_tier",
        Accepts::Text,
        "One of auto, default, flex, scale and priority. There is one tier: all but the first two \
         are listed in `x-concord-ignored`.",
    ),
    unused("user", Accepts::Text, "About the request."),
    unused("safety_identifier", Accepts::Text, "About the request."),
    unused(
        "request_id",
        Accepts::Text,
        "About the request; see the header `x-request-id`.",
    ),
    unused("metadata", Accepts::Map, "About the request."),
    unused(
        "prompt_cache_key",
        Accepts::Text,
        "Prompts are cached in any case.",
    ),
    unused(
        "prompt_cache_retention",
        Accepts::Text,
        "Prompts are cached in any case.",
    ),
    unused(
        "cache_prompt",
        Accepts::Flag,
        "Prompts are cached in any case.",
    ),
    only("min_p", "0"),
    only("typical_p", "1"),
    only("top_a", "0"),
    only("tfs", "1"),
    only("repetition_penalty", "1"),
    only("repeat_penalty", "1"),
    only("length_penalty", "1"),
    only("mirostat", "0"),
    only("min_tokens", "0"),
    only("use_beam_search", "false"),
    only("early_stopping", "false"),
    only("include_stop_str_in_output", "false"),
    only("skip_special_tokens", "true"),
    only("spaces_between_special_tokens", "true"),
    only("detokenize", "true"),
    only("return_token_ids", "false"),
    only("return_tokens_as_token_ids", "false"),
    only("bad_words", "[]"),
    only("logits_processors", "[]"),
    only("priority", "0"),
];
