//! Fields of the other paths.

use super::chat::PROMPT;
use super::{Accepts, Field, Items, Table, used};

/// Tokens that are detokenized at a time; the text of each may be a hundred letters.
const TOKENS_MAX: usize = 1 << 18;

const MODEL: Field = used(
    "model",
    Accepts::Text,
    "The model or one of its adapters; the model if absent or empty.",
);

/// Fields of `/tokenize`.
pub(crate) const TOKENIZE: Table = &[
    &[
        MODEL,
        used(
            "prompt",
            Accepts::Text,
            "A text. If absent, the prompt is made from the fields of a chat.",
        ),
        used(
            "add_special_tokens",
            Accepts::Flag,
            "Whether the tokenizer adds its special tokens to `prompt`; true if absent. For a \
             chat only false.",
        ),
        used(
            "return_token_strs",
            Accepts::Flag,
            "Whether the names of the tokens are given, too.",
        ),
    ],
    PROMPT,
];

/// Fields of `/detokenize`.
pub(crate) const DETOKENIZE: Table = &[&[
    MODEL,
    used(
        "tokens",
        Accepts::List(TOKENS_MAX, Items::Other("token ids")),
        "Needed. The tokens of a text.",
    ),
]];

/// Fields of `/v1/embeddings`.
pub(crate) const EMBEDDINGS: Table = &[&[
    MODEL,
    used(
        "input",
        Accepts::Other("a string, or an array of strings or of token ids"),
        "Needed. What is to be embedded.",
    ),
]];

/// Fields of `/v1/load_lora_adapter`.
pub(crate) const LOAD_ADAPTER: Table = &[&[
    NAME,
    used(
        "lora_path",
        Accepts::Text,
        "Needed. A PEFT folder within the folder of adapters (`concord serve --adapter-dir`).",
    ),
    used(
        "base_model_name",
        Accepts::Text,
        "The name of the model, if present.",
    ),
]];

/// Fields of `/v1/unload_lora_adapter`.
pub(crate) const UNLOAD_ADAPTER: Table = &[&[
    NAME,
    super::unused(
        "lora_int_id",
        Accepts::Other("anything"),
        "Adapters are identified by name here.",
    ),
]];

const NAME: Field = used(
    "lora_name",
    Accepts::Text,
    "Needed. The name by which requests ask for the adapter: 1 to 128 bytes without spaces.",
);
