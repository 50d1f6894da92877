//! A gateway on a free port, over a scripted engine and a tokenizer of single bytes.

use std::net::SocketAddr;
use std::sync::Arc;

use concord_gateway::{GatewayOptions, RunningGateway, SamplingDefaults, Served, start};
use concord_proto::serving::{Deployment, ServedPrecision};
use concord_proto::{Digest, Domain};
use concord_text::{ChatTemplate, TextTokenizer};
use serde_json::{Map, Value, json};

use crate::client::{self, Reply};
use crate::script::{Script, Scripted};

/// Tokens 0 to 255 are bytes.
pub const BOS: u32 = 256;
pub const EOS: u32 = 257;
pub const VOCAB: u32 = 260;
pub const POSITIONS: u32 = 2_000;

/// Shows roles, tools and reasoning, like Qwen's template.
const TEMPLATE: &str = "\
{% for message in messages %}{{ message.role }}: {{ message.content }}
{% for call in message.tool_calls or [] %}<tool_call>{{ call.function | tojson }}</tool_call>
{% endfor %}{% endfor %}{% if tools %}tools {{ tools | length }}
{% endif %}{% if add_generation_prompt %}assistant: {% if think %}<think>{% endif %}{% endif %}";

/// A gateway under test.
pub struct Stand {
    pub addr: SocketAddr,
    pub engine: Arc<Scripted>,
    pub gateway: RunningGateway,
}

impl Stand {
    /// A gateway as it is by default, whose engine answers with `text`.
    pub async fn saying(text: &str) -> Self {
        Self::playing(Script::text(text)).await
    }

    /// A gateway as it is by default.
    pub async fn playing(script: Script) -> Self {
        let mut options = options();
        options.limits.keep_alive = std::time::Duration::from_millis(100);
        Self::with(options, script, Some(TEMPLATE)).await
    }

    /// Any gateway.
    pub async fn with(options: GatewayOptions, script: Script, template: Option<&str>) -> Self {
        let engine = Arc::new(Scripted::new(script));
        let gateway = start(served(template), engine.clone(), options).await;
        let gateway = gateway.expect("a gateway");
        Self {
            addr: gateway.addr,
            engine,
            gateway,
        }
    }

    /// Makes the pool take requests from now on.
    pub fn make_ready(&self) {
        self.engine.view.lock().expect("no panic").ready = true;
    }

    pub async fn get(&self, path: &str) -> Reply {
        client::get(self.addr, path, None).await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Reply {
        client::post(self.addr, path, None, body).await
    }

    /// A chat of one message, with more fields.
    pub async fn chat(&self, more: Value) -> Reply {
        self.post("/v1/chat/completions", &chat_body(more)).await
    }

    /// A completion, with its fields.
    pub async fn complete(&self, fields: Value) -> Reply {
        self.post("/v1/completions", &fields).await
    }
}

/// A chat of one message, with more fields.
pub fn chat_body(more: Value) -> Value {
    let mut body = json!({"messages": [{"role": "user", "content": "hi"}]});
    let Value::Object(more) = more else {
        panic!("fields are an object");
    };
    body.as_object_mut().expect("an object").extend(more);
    body
}

/// The prompt that the template makes of [`chat_body`].
pub const CHAT_PROMPT: &str = "user: hi\nassistant: ";

pub fn options() -> GatewayOptions {
    GatewayOptions::new(([127, 0, 0, 1], 0).into())
}

/// The ids of a text: its bytes.
pub fn ids(text: &str) -> Vec<u32> {
    text.bytes().map(u32::from).collect()
}

pub fn adapter() -> Digest {
    Digest::of(Domain::Blob, b"adapter")
}

pub fn served(template: Option<&str>) -> Served {
    let template = template.map(ChatTemplate::from_source);
    Served {
        name: "tiny/model".to_string(),
        deployment: deployment(),
        tokenizer: Arc::new(tokenizer()),
        template: template.map(|template| template.expect("a right template")),
        stop_tokens: vec![EOS],
        adapters: vec![("tuned".to_string(), adapter())],
        created: 1_700_000_000,
        defaults: SamplingDefaults {
            temperature: 0.5,
            top_p: 0.75,
            top_k: 7,
        },
    }
}

pub fn deployment() -> Deployment {
    Deployment {
        arithmetic: 1,
        model: Digest::of(Domain::Blob, b"model"),
        tokenizer: Digest::of(Domain::Blob, b"tokenizer"),
        layers: 2,
        vocab: VOCAB,
        positions: POSITIONS,
        precision: ServedPrecision::of(8),
    }
}

fn tokenizer() -> TextTokenizer {
    tokenizer_with(&[("<s>", BOS), ("</s>", EOS)])
}

/// A tokenizer whose tokens are bytes, by the alphabet of GPT-2, with `<s>` before a text, and
/// these special ones.
pub fn tokenizer_with(special: &[(&str, u32)]) -> TextTokenizer {
    let mut vocab = Map::new();
    let mut hidden = 0x100;
    for byte in 0..=255_u8 {
        let name = match byte {
            0x21..=0x7E | 0xA1..=0xAC | 0xAE..=0xFF => char::from(byte),
            _ => {
                hidden += 1;
                char::from_u32(hidden - 1).expect("a character")
            }
        };
        vocab.insert(name.to_string(), json!(byte));
    }
    let added: Vec<Value> = special
        .iter()
        .map(|(name, id)| {
            json!({
                "id": id, "content": name, "special": true, "single_word": false, "lstrip": false,
                "rstrip": false, "normalized": false,
            })
        })
        .collect();
    let frame = json!([{"SpecialToken": {"id": "<s>", "type_id": 0}},
                       {"Sequence": {"id": "A", "type_id": 0}}]);
    let file = json!({
        "version": "1.0",
        "added_tokens": added,
        "normalizer": null,
        "pre_tokenizer": {
            "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true,
            "use_regex": false,
        },
        "post_processor": {
            "type": "TemplateProcessing", "single": frame, "pair": frame,
            "special_tokens": {"<s>": {"id": "<s>", "ids": [BOS], "tokens": ["<s>"]}},
        },
        "decoder": {
            "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true,
            "use_regex": false,
        },
        "model": {
            "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false,
            "vocab": vocab, "merges": [],
        },
    });
    let config = json!({"bos_token": "<s>", "eos_token": "</s>"});
    TextTokenizer::from_bytes(
        file.to_string().as_bytes(),
        Some(config.to_string().as_bytes()),
    )
    .expect("a right tokenizer")
}
