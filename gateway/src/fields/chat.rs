//! Fields of `/v1/chat/completions`, and those that `/tokenize` shares to make a prompt.

use concord_proto::limits::TOP_LOGPROBS_MAX;

use super::sampling::COMMON;
use super::{Accepts, Field, Items, Table, never, only, unused, used};

/// Messages of a chat.
const MESSAGES_MAX: usize = 16_384;

/// Tools of a request.
const TOOLS_MAX: usize = 128;

/// Calls of a message.
const CALLS_MAX: usize = 128;

/// Fields of `/v1/chat/completions`.
pub(crate) const CHAT: Table = &[PROMPT, OWN, COMMON];

/// The fields from which a prompt is made.
pub(super) const PROMPT: &[Field] = &[
    used(
        "messages",
        Accepts::List(MESSAGES_MAX, Items::Objects(MESSAGE)),
        "Needed. The conversation.",
    ),
    used(
        "tools",
        Accepts::List(TOOLS_MAX, Items::Objects(TOOL)),
        "Functions that the model may call, where its chat template knows tools.",
    ),
    used(
        "tool_choice",
        Accepts::Other("auto, none, required, or an object"),
        "Which function is called: the model decides (auto, if absent), none, any (required), or \
         the one that the object names. A forced call follows the schema.",
    ),
    used(
        "parallel_tool_calls",
        Accepts::Flag,
        "Whether several calls may be forced; true if absent.",
    ),
    used(
        "chat_template_kwargs",
        Accepts::Map,
        "Further variables of the chat template. Those that the template never reads are listed \
         in `x-concord-ignored`.",
    ),
    used(
        "reasoning_effort",
        Accepts::Text,
        "The template variable of this name; listed in `x-concord-ignored` where the template \
         never reads it.",
    ),
    used(
        "add_generation_prompt",
        Accepts::Flag,
        "Whether the prompt ends with the start of an answer; true if absent.",
    ),
    only("chat_template", "null"),
    only("documents", "null"),
    only("continue_final_message", "false"),
    never("functions", "'tools' and 'tool_choice'"),
    never("function_call", "'tools' and 'tool_choice'"),
];

const OWN: &[Field] = &[
    used(
        "max_tokens",
        Accepts::Integer(1, u32::MAX as i64),
        "Tokens of an answer, at most. If absent, an answer may fill what is left of the context \
         and of the key's tokens of the day.",
    ),
    used(
        "max_completion_tokens",
        Accepts::Integer(1, u32::MAX as i64),
        "The newer name of `max_tokens`.",
    ),
    used(
        "logprobs",
        Accepts::Flag,
        "Whether log-probabilities are given.",
    ),
    used(
        "top_logprobs",
        Accepts::Integer(0, TOP_LOGPROBS_MAX as i64),
        "How many alternatives are given with each token; needs `logprobs`: true.",
    ),
    used(
        "response_format",
        Accepts::Object(RESPONSE_FORMAT),
        "The format of the answer. It is guaranteed: other tokens cannot be drawn.",
    ),
    // A model's own template writes the special tokens itself.
    only("add_special_tokens", "false"),
    only("modalities", "[\"text\"]"),
    only("audio", "null"),
    only("prediction", "null"),
    only("web_search_options", "null"),
    only("verbosity", "\"medium\""),
    only("echo", "false"),
    only("prompt_logprobs", "null"),
    only("include_reasoning", "true"),
];

const MESSAGE: Table = &[&[
    used(
        "role",
        Accepts::Text,
        "Needed. One of system, developer (the same as system), user, assistant and tool.",
    ),
    used(
        "content",
        Accepts::Other("a string or an array of parts"),
        "What is said. Parts are objects with `type` text, input_text or output_text and `text`, \
         or `type` refusal and `refusal`; they stand on lines of their own.",
    ),
    used(
        "tool_calls",
        Accepts::List(CALLS_MAX, Items::Objects(CALL)),
        "Of an assistant: the calls that it made.",
    ),
    used(
        "reasoning_content",
        Accepts::Text,
        "Of an assistant: its reasoning. Listed in `x-concord-ignored` where the chat template \
         never reads it.",
    ),
    used(
        "reasoning",
        Accepts::Text,
        "Of an assistant: another name of `reasoning_content`, which takes precedence.",
    ),
    used(
        "refusal",
        Accepts::Text,
        "Of an assistant: what it said, where it has no `content`.",
    ),
    used(
        "tool_call_id",
        Accepts::Text,
        "Of a tool, and needed there: the call that it answers.",
    ),
    used(
        "name",
        Accepts::Text,
        "The name of the speaker. Listed in `x-concord-ignored` where the chat template never \
         reads it.",
    ),
    only("function_call", "null"),
    only("audio", "null"),
    only("images", "[]"),
    only("prefix", "false"),
    only("partial", "false"),
]];

/// A part of a message's content.
pub(crate) const PART: Table = &[&[
    used("type", Accepts::Text, "Needed. What it is."),
    used("text", Accepts::Text, "The text."),
    used("refusal", Accepts::Text, "The text of a refusal."),
]];

const CALL: Table = &[&[
    used(
        "id",
        Accepts::Text,
        "Needed. Its name, for the answer of the tool.",
    ),
    used("type", Accepts::Text, "`function`, if present."),
    used(
        "function",
        Accepts::Object(CALLED),
        "Needed. What was called.",
    ),
    unused(
        "index",
        Accepts::Other("anything"),
        "Streams number calls; here their order counts.",
    ),
]];

const CALLED: Table = &[&[
    used("name", Accepts::Text, "Needed. The function."),
    used(
        "arguments",
        Accepts::Other("a string or an object"),
        "The text of a JSON object, or the object.",
    ),
]];

const TOOL: Table = &[&[
    used("type", Accepts::Text, "Needed. `function`."),
    used(
        "function",
        Accepts::Object(FUNCTION),
        "Needed. The function.",
    ),
    unused(
        "strict",
        Accepts::Flag,
        "Forced calls follow the schema in any case.",
    ),
]];

const FUNCTION: Table = &[&[
    used(
        "name",
        Accepts::Text,
        "Needed. 1 to 64 letters, digits, `_`, `-` and `.`.",
    ),
    used("description", Accepts::Text, "What it does, for the model."),
    used(
        "parameters",
        Accepts::Map,
        "The JSON schema of its arguments.",
    ),
    unused(
        "strict",
        Accepts::Flag,
        "Forced calls follow the schema in any case.",
    ),
]];

/// `tool_choice`, where it is an object.
pub(crate) const CHOICE: Table = &[&[
    used("type", Accepts::Text, "Needed. `function`."),
    used(
        "function",
        Accepts::Object(CHOSEN),
        "Needed. The function to call.",
    ),
    only("disable_parallel_tool_use", "false"),
]];

const CHOSEN: Table = &[&[used("name", Accepts::Text, "Needed. One of the `tools`.")]];

const RESPONSE_FORMAT: Table = &[&[
    used(
        "type",
        Accepts::Text,
        "Needed. One of text, json_object and json_schema.",
    ),
    used(
        "json_schema",
        Accepts::Object(JSON_SCHEMA),
        "Needed for json_schema, refused beside another type.",
    ),
    used(
        "schema",
        Accepts::Map,
        "The schema, where other servers expect it; also for json_object.",
    ),
    unused("strict", Accepts::Flag, "The schema holds in any case."),
]];

const JSON_SCHEMA: Table = &[&[
    used("schema", Accepts::Map, "Needed. The schema."),
    unused("name", Accepts::Text, "About the schema."),
    unused("description", Accepts::Text, "About the schema."),
    unused("strict", Accepts::Flag, "The schema holds in any case."),
]];
