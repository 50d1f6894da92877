//! The paths of the API: what answers them, who may ask, and what the reference says of them.

use std::sync::Arc;

use axum::routing::{MethodRouter, get, post};

use crate::fields::{
    CHAT, COMPLETION, DETOKENIZE, EMBEDDINGS, LOAD_ADAPTER, TOKENIZE, Table, UNLOAD_ADAPTER,
};
use crate::gateway::Gateway;
use crate::{adapters, embeddings, generate, models, page, probes, receipts, tokenization};

/// Whose requests a path answers, where keys are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// Anyone's: the page asks for a key itself, and probes have none.
    Open,
    /// Those with a key.
    Key,
    /// Those with a key that has `admin` on its line.
    Admin,
}

/// A path.
pub(crate) struct ApiPath {
    pub method: &'static str,
    pub path: &'static str,
    pub access: Access,
    /// The fields of its body, where it has one.
    pub fields: Option<Table>,
    /// Whether the model is asked for answers: a gateway that ends waits for them.
    pub is_answer: bool,
    /// What it does, as a sentence.
    pub about: &'static str,
    pub handler: fn() -> MethodRouter<Arc<Gateway>>,
}

/// All paths.
pub(crate) const PATHS: &[ApiPath] = &[
    ApiPath {
        is_answer: true,
        ..with_body(
            "/v1/chat/completions",
            CHAT,
            "Goes on with a conversation, in the shapes of OpenAI.",
            || post(generate::chat),
        )
    },
    ApiPath {
        is_answer: true,
        ..with_body(
            "/v1/completions",
            COMPLETION,
            "Goes on with a text, in the shapes of OpenAI.",
            || post(generate::completion),
        )
    },
    with_body(
        "/v1/embeddings",
        EMBEDDINGS,
        "Refused: models that write text are no good for it.",
        || post(embeddings::embeddings),
    ),
    with_body(
        "/tokenize",
        TOKENIZE,
        "The tokens of a text or of a chat, in the shapes of vLLM.",
        || post(tokenization::tokenize),
    ),
    with_body(
        "/detokenize",
        DETOKENIZE,
        "The text of tokens, in the shapes of vLLM.",
        || post(tokenization::detokenize),
    ),
    ApiPath {
        access: Access::Admin,
        ..with_body(
            "/v1/load_lora_adapter",
            LOAD_ADAPTER,
            "Loads a LoRA adapter, in the shapes of vLLM.",
            || post(adapters::load),
        )
    },
    ApiPath {
        access: Access::Admin,
        ..with_body(
            "/v1/unload_lora_adapter",
            UNLOAD_ADAPTER,
            "Unloads a LoRA adapter, in the shapes of vLLM.",
            || post(adapters::unload),
        )
    },
    plain(
        "/v1/models",
        Access::Key,
        "The model, then its adapters.",
        || get(models::list),
    ),
    plain(
        "/v1/models/{*id}",
        Access::Key,
        "The model, or one of its adapters.",
        || get(models::one),
    ),
    plain(
        "/v1/receipts/{id}",
        Access::Key,
        "The receipt of an answer, for the key that asked for it and for admins. `concord verify` \
         checks it.",
        || get(receipts::receipts),
    ),
    plain(
        "/health",
        Access::Open,
        "200 while the pool takes requests, else 503.",
        || get(probes::ready),
    ),
    plain("/ready", Access::Open, "The same as `/health`.", || {
        get(probes::ready)
    }),
    plain(
        "/metrics",
        Access::Key,
        "Figures for Prometheus, with the names of vLLM; of keys, an admin sees all and others \
         their own.",
        || get(probes::figures),
    ),
    plain(
        "/api/pool",
        Access::Key,
        "The state of the pool, for the page.",
        || get(probes::pool),
    ),
    plain("/", Access::Open, "A page to try the model at.", || {
        get(page::index)
    }),
    plain("/page.js", Access::Open, "A part of the page.", || {
        get(page::script)
    }),
    plain("/markdown.js", Access::Open, "A part of the page.", || {
        get(page::markdown)
    }),
    plain("/page.css", Access::Open, "A part of the page.", || {
        get(page::style)
    }),
];

/// The path that a request asks for, by its own: those with a variable part need a key.
pub(crate) fn find(path: &str) -> Option<&'static ApiPath> {
    PATHS.iter().find(|api_path| api_path.path == path)
}

const fn with_body(
    path: &'static str,
    fields: Table,
    about: &'static str,
    handler: fn() -> MethodRouter<Arc<Gateway>>,
) -> ApiPath {
    ApiPath {
        method: "POST",
        path,
        access: Access::Key,
        fields: Some(fields),
        is_answer: false,
        about,
        handler,
    }
}

const fn plain(
    path: &'static str,
    access: Access,
    about: &'static str,
    handler: fn() -> MethodRouter<Arc<Gateway>>,
) -> ApiPath {
    ApiPath {
        method: "GET",
        path,
        access,
        fields: None,
        is_answer: false,
        about,
        handler,
    }
}
