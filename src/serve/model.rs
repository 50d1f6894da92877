//! A model folder as a deployment: what is served, bit for bit, and what the API says about it.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail};
use concord_gateway::SamplingDefaults;
use concord_models::config::{DecoderConfig, Projection};
use concord_models::decoder::WeightBytes;
use concord_models::weights::ModelFolder;
use concord_proto::serving::{Deployment, PAGE_TOKENS, ServingProfile};
use concord_proto::{ARITHMETIC_VERSION, Digest, PrecisionSpec};
use concord_text::{ChatTemplate, TextTokenizer};

use crate::blobs::BlobSet;

/// A model, ready to be served.
pub struct ModelToServe {
    /// What is served.
    pub deployment: Deployment,
    /// For the planner.
    pub profile: ServingProfile,
    /// What the store must have.
    pub blobs: BlobSet,
    /// Its files.
    pub folder: ModelFolder,
    /// Its tokenizer.
    pub tokenizer: Arc<TextTokenizer>,
    /// Its chat template, where it has one.
    pub template: Option<ChatTemplate>,
    /// Tokens that end an answer.
    pub stop_tokens: Vec<u32>,
    /// How tokens are drawn where a request does not say.
    pub defaults: SamplingDefaults,
}

impl ModelToServe {
    /// Reads a model folder. `positions` bounds prompt and answer; the model's own limit without.
    ///
    /// # Errors
    /// Naming the file and what is wrong with it, or a limit beyond the model's.
    pub fn open(path: &Path, positions: Option<u32>) -> anyhow::Result<Self> {
        let folder = ModelFolder::open(path)?;
        let config = folder.config().clone();
        let most = u32::try_from(config.max_positions).unwrap_or(u32::MAX);
        let positions = match positions {
            Some(0) => bail!("--max-model-len 0: at least one position"),
            Some(asked) if asked > most => {
                bail!("--max-model-len {asked}: the model has {most} positions")
            }
            Some(asked) => asked,
            None => most,
        };
        let tokenizer = TextTokenizer::open(path)?;
        tokenizer.check(config.vocab)?;
        let mut blobs = BlobSet::default();
        let model = blobs.model(&folder)?;
        let deployment = Deployment {
            arithmetic: ARITHMETIC_VERSION,
            model,
            tokenizer: tokenizer_blob(path, &mut blobs)?,
            layers: config.layers as u32,
            vocab: config.vocab as u32,
            positions,
            precision: PrecisionSpec {
                weights: 16,
                activations: 16,
            },
        };
        let generation = generation_config(path)?;
        let mut stops: BTreeSet<u32> = config.eos.iter().copied().collect();
        stops.extend(tokenizer.eos_ids());
        stops.extend(eos_of(&generation));
        stops.retain(|token| *token < deployment.vocab);
        Ok(Self {
            profile: profile(&config),
            template: ChatTemplate::open(path)?,
            tokenizer: Arc::new(tokenizer),
            stop_tokens: stops.into_iter().collect(),
            defaults: sampling_defaults(&generation),
            deployment,
            blobs,
            folder,
        })
    }
}

fn tokenizer_blob(path: &Path, blobs: &mut BlobSet) -> anyhow::Result<Digest> {
    let file = path.join("tokenizer.json");
    let bytes = std::fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
    Ok(blobs.bytes(bytes))
}

/// `generation_config.json`, or an empty object where there is none.
fn generation_config(path: &Path) -> anyhow::Result<serde_json::Value> {
    let file = path.join("generation_config.json");
    if !file.is_file() {
        return Ok(serde_json::json!({}));
    }
    let bytes = std::fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
    serde_json::from_slice(&bytes).with_context(|| format!("{}: not valid JSON", file.display()))
}

fn eos_of(generation: &serde_json::Value) -> Vec<u32> {
    let one = |value: &serde_json::Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
    match &generation["eos_token_id"] {
        serde_json::Value::Array(all) => all.iter().filter_map(one).collect(),
        single => one(single).into_iter().collect(),
    }
}

/// As transformers reads them: a model that does not sample by itself has temperature 1 in an API.
fn sampling_defaults(generation: &serde_json::Value) -> SamplingDefaults {
    let number = |key: &str, low: f64, high: f64| {
        generation[key]
            .as_f64()
            .filter(|value| (low..=high).contains(value))
            .map(|value| value as f32)
    };
    let top_k = generation["top_k"].as_u64().unwrap_or(0);
    SamplingDefaults {
        temperature: number("temperature", 0.0, 2.0).unwrap_or(1.0),
        top_p: number("top_p", 1e-6, 1.0).unwrap_or(1.0),
        top_k: u32::try_from(top_k).unwrap_or(0),
    }
}

fn profile(config: &DecoderConfig) -> ServingProfile {
    let shapes = Projection::ALL.iter().map(|p| p.shape(config));
    let weights: u64 = shapes.map(|[out, input]| (out * input) as u64).sum();
    let head = (config.vocab * config.hidden) as u64;
    // Codes of 16 bits, and an exponent of 32 bits for each head of each key and value.
    let row = config.kv_heads * (2 * config.head_dim + 4);
    let held = WeightBytes::of(config);
    ServingProfile {
        layer_macs: weights,
        head_macs: head,
        layer_bytes: held.layer,
        embed_bytes: held.embed,
        head_bytes: held.head,
        page_layer_bytes: u64::from(PAGE_TOKENS) * 2 * row as u64,
        row_bytes: 4 * config.hidden as u64,
    }
}

/// The seconds since 1970.
pub fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |elapsed| elapsed.as_secs())
}
