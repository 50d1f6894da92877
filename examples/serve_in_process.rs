//! Serves a model from within a program: a small engine behind the API of `concord serve`. The
//! model is made here, so that nothing is downloaded.
//!
//! ```sh
//! cargo run --release --example serve_in_process
//! ```

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use concord_gateway::{
    EngineAnswer, GatewayOptions, InferenceEngine, Refused, SamplingDefaults, Served, start,
};
use concord_kernels::coded::Precision;
use concord_kernels::ops::sample::Sampling;
use concord_kernels::{Device, Tensor};
use concord_models::config::DecoderConfig;
use concord_models::decoder::{Precisions, Stage, StageOptions};
use concord_models::export::{ExportDtype, write_tensors};
use concord_models::generate::Generator;
use concord_models::generation_config::end_tokens;
use concord_models::weights::ModelFolder;
use concord_proto::serving::{
    BatchedReceipt, Control, Deployment, Finish, Generation, PoolView, ServedPrecision,
    TokenLogprob, Update, Usage,
};
use concord_proto::{ARITHMETIC_VERSION, Digest, Domain, F32Bits};
use concord_text::TextTokenizer;
use futures_util::future::{BoxFuture, ready};
use serde_json::{Value, json};
use tokio::sync::mpsc;

const WORDS: [&str; 16] = [
    "<s>", "</s>", "<unk>", "once", "upon", "a", "time", "there", "was", "the", "king", "and",
    "his", "castle", "of", "stone",
];

fn main() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    make_model(folder.path())?;
    let runtime = tokio::runtime::Runtime::new()?;
    let first = runtime.block_on(serve_and_ask(folder.path()))?;
    let second = runtime.block_on(serve_and_ask(folder.path()))?;
    // The same request to a second server gives the same text, bit for bit.
    anyhow::ensure!(
        first == second && !first.is_empty(),
        "{first:?} is not {second:?}"
    );
    println!("once upon a time {first}");
    Ok(())
}

/// Starts a server, asks it for an answer, and ends it.
async fn serve_and_ask(folder: &Path) -> anyhow::Result<String> {
    let model = ModelFolder::open(folder)?;
    let config = Arc::new(model.config().clone());
    let tokenizer = Arc::new(TextTokenizer::open(folder)?);
    let options = StageOptions {
        device: Device::cpu(2),
        layers: (0..config.layers as u32).into(),
        precisions: Precisions {
            weights: Precision::I16,
            activations: Precision::I16,
            key_values: Precision::I16,
        },
        lora: None,
        trains_all: false,
        positions: config.max_positions,
        config: config.clone(),
    };
    let stage = Stage::load(options, &model, &BTreeMap::new())?;
    let served = Served {
        name: "tiny".to_string(),
        deployment: deployment(&config),
        stop_tokens: end_tokens(&config, &tokenizer),
        tokenizer,
        template: None,
        adapters: Vec::new(),
        created: 0,
        defaults: SamplingDefaults::default(),
    };
    let engine = Arc::new(OneModel(Arc::new(stage)));
    let gateway = start(
        served,
        engine,
        GatewayOptions::new(([127, 0, 0, 1], 0).into()),
    )
    .await?;
    let url = format!("http://{}/v1/completions", gateway.addr);
    let answer = tokio::task::spawn_blocking(move || ask(&url)).await??;
    let cut = gateway.drain(Duration::from_secs(10)).await;
    anyhow::ensure!(cut == 0, "{cut} answers were cut");
    Ok(answer)
}

/// Sends a request as any client of OpenAI's API does.
fn ask(url: &str) -> anyhow::Result<String> {
    let body = json!({
        "model": "tiny", "prompt": "once upon a time", "max_tokens": 12, "seed": 7,
        "ignore_eos": true,
        "temperature": 0.8,
    });
    let mut response = ureq::post(url).send_json(&body)?;
    let answer: Value = response.body_mut().read_json()?;
    let text = answer["choices"][0]["text"].as_str();
    Ok(text.context("a response without a text")?.to_string())
}

/// An engine that computes each generation on a thread of its own.
struct OneModel(Arc<Stage>);

impl InferenceEngine for OneModel {
    fn submit(&self, generation: Generation) -> Result<EngineAnswer, Refused> {
        let sampling = &generation.spec.sampling;
        if sampling.grammar.is_some() || generation.spec.logprobs.is_some() {
            let reason = "this engine knows neither grammars nor log-probabilities";
            return Err(Refused::Other(reason.to_string()));
        }
        let (updates, received) = mpsc::channel(16);
        let (control, controls) = mpsc::channel(16);
        let stage = self.0.clone();
        tokio::task::spawn_blocking(move || {
            let last = generate(&stage, &generation, &updates, controls);
            // An error means that the client has left.
            let _ = updates.blocking_send(last);
        });
        Ok(EngineAnswer {
            updates: received,
            control,
        })
    }

    fn view(&self) -> PoolView {
        PoolView {
            ready: true,
            state: "one model in this process".to_string(),
            ..PoolView::default()
        }
    }

    fn receipts(&self, _: String) -> BoxFuture<'static, Result<Vec<BatchedReceipt>, String>> {
        Box::pin(ready(Ok(Vec::new())))
    }

    fn add_adapter(&self, _: PathBuf) -> BoxFuture<'static, Result<Digest, String>> {
        Box::pin(ready(Err("this engine takes no adapters".to_string())))
    }

    fn remove_adapter(&self, _: Digest) -> BoxFuture<'static, Result<(), String>> {
        Box::pin(ready(Ok(())))
    }
}

/// Draws the tokens of a generation, and returns its last update.
fn generate(
    stage: &Stage,
    generation: &Generation,
    updates: &mpsc::Sender<Update>,
    mut controls: mpsc::Receiver<Control>,
) -> Update {
    let spec = &generation.spec;
    let mut usage = Usage {
        prompt: spec.prompt.len() as u32,
        ..Usage::default()
    };
    let sampling = Sampling {
        temperature: spec.sampling.temperature.get(),
        top_k: spec.sampling.top_k as usize,
        top_p: spec.sampling.top_p.get(),
        seed: spec.sampling.seed,
    };
    let fail = |error: concord_kernels::KernelError, usage| Update::Failed {
        reason: error.to_string(),
        retry: false,
        usage,
    };
    let mut generator = match Generator::new(stage, sampling) {
        Ok(generator) => generator,
        Err(error) => return fail(error, usage),
    };
    let mut feed = spec.prompt.clone();
    while usage.answer < spec.max_tokens {
        let token = match generator.next(&feed) {
            Ok(token) => token,
            Err(error) => return fail(error, usage),
        };
        usage.answer += 1;
        let scored = TokenLogprob {
            token,
            logprob: F32Bits::from(0.0),
            top: Vec::new(),
        };
        let is_sent = updates.blocking_send(Update::Token(scored)).is_ok();
        // The client has left, or the gateway has found a stop text.
        let finish = match (is_sent, controls.try_recv()) {
            (false, _) => Some(Finish::Cancelled),
            (true, Ok(_)) => Some(Finish::StopText),
            _ if spec.stop_tokens.contains(&token) => Some(Finish::StopToken),
            _ => None,
        };
        if let Some(finish) = finish {
            return Update::Finished { finish, usage };
        }
        feed = vec![token];
    }
    Update::Finished {
        finish: Finish::Length,
        usage,
    }
}

/// What is served, for fingerprints and receipts.
fn deployment(config: &DecoderConfig) -> Deployment {
    Deployment {
        arithmetic: ARITHMETIC_VERSION,
        model: Digest::of(Domain::Blob, b"the manifest of a model"),
        tokenizer: Digest::of(Domain::Blob, b"its tokenizer.json"),
        layers: config.layers as u32,
        vocab: config.vocab as u32,
        positions: config.max_positions as u32,
        precision: ServedPrecision::of(16),
    }
}

/// A model folder of two layers, whose weights look random.
fn make_model(folder: &Path) -> anyhow::Result<()> {
    let config = json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 16,
        "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2,
        "num_key_value_heads": 1, "head_dim": 8, "vocab_size": WORDS.len(),
        "max_position_embeddings": 64, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
        "hidden_act": "silu", "tie_word_embeddings": false, "bos_token_id": 0, "eos_token_id": 1,
    });
    let added: Vec<Value> = (0..3)
        .map(|id| {
            json!({ "id": id, "content": WORDS[id], "special": true, "single_word": false,
                "lstrip": false, "rstrip": false, "normalized": false })
        })
        .collect();
    let words: BTreeMap<&str, usize> = WORDS.iter().copied().zip(0..).collect();
    let tokenizer = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added,
        "normalizer": null, "pre_tokenizer": { "type": "Whitespace" }, "post_processor": null,
        "decoder": null,
        "model": { "type": "WordLevel", "vocab": words, "unk_token": "<unk>" },
    });
    std::fs::write(folder.join("config.json"), config.to_string())?;
    std::fs::write(folder.join("tokenizer.json"), tokenizer.to_string())?;
    let mut count = 0_u32;
    let mut next = || {
        count = count.wrapping_add(1);
        (count.wrapping_mul(2_654_435_761) >> 8) as f32 / (1 << 24) as f32 - 0.5
    };
    let mut tensors = BTreeMap::new();
    for spec in DecoderConfig::from_folder(folder)?.tensors() {
        let length: usize = spec.shape.iter().product();
        let values: Vec<f32> = (0..length).map(|_| next()).collect();
        tensors.insert(spec.name, Tensor::new(&spec.shape, values)?);
    }
    let path = folder.join("model.safetensors");
    write_tensors(&path, &tensors, |_| ExportDtype::F32)?;
    Ok(())
}
