//! The paths of the API: their handlers, the access they need, and their text in the reference.

use std::sync::Arc;

use axum::routing::{MethodRouter, get, post};

use crate::fields::{
    CHAT, COMPLETION, DETOKENIZE, EMBEDDINGS, LOAD_ADAPTER, TOKENIZE, Table, UNLOAD_ADAPTER,
};
use crate::gateway::Gateway;
use crate::{adapters, embeddings, generate, models, page, probes, receipts, tokenization};

/// Which requests a path accepts, where keys are needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// All requests: the page asks the user for a key, and probes have none.
    Open,
    /// Requests with a key.
    Key,
    /// Requests with a key that has `admin` on its line.
    Admin,
}

/// A path.
pub(crate) struct ApiPath {
    pub method: &'static str,
    pub path: &'static str,
    pub access: Access,
    /// The fields of its body, where it has one.
    pub fields: Option<Table>,
    /// Whether it asks the model for answers, for which a draining gateway waits.
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
            "Continues a conversation, in the shapes of OpenAI.",
            || post(generate::chat),
        )
    },
    ApiPath {
        is_answer: true,
        ..with_body(
            "/v1/completions",
            COMPLETION,
            "Continues a text, in the shapes of OpenAI.",
            || post(generate::completion),
        )
    },
    with_body(
        "/v1/embeddings",
        EMBEDDINGS,
        "Refused: models that generate text give poor embeddings.",
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
        "Figures for Prometheus, with vLLM's names. Admins see those of all keys, others only \
         their own.",
        || get(probes::figures),
    ),
    plain(
        "/api/pool",
        Access::Key,
        "The state of the pool, for the page.",
        || get(probes::pool),
    ),
    plain("/", Access::Open, "A page to try the model.", || {
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

/// The entry for the path of a request. Paths with a variable part are not found; they need a key.
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
