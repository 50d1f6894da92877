//! `concord serve`: an inference API over a pool.

mod adapters;
mod engine;
mod model;
mod preview;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, bail};
use concord_coordinator::core::Config;
use concord_gateway::{Options, RunningGateway, Served};
use concord_proto::Digest;
use concord_proto::serving::{PoolView, ServedModel};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

use crate::client::Client;
use crate::output::Output;
use crate::pool::{Pool, PoolOptions};
use adapters::NamedAdapter;
pub use adapters::adapter_manifest;
use engine::PoolEngine;
use model::ModelToServe;

/// Options of `concord serve`.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  concord serve --model path/to/model                       # one worker on this machine
  concord serve --model owner/name --workers 3 --stages 3   # three processes, a third of the layers each
  concord serve --model path/to/model --adapter poet=out/poet --adapter cook=out/cook
  concord serve --model path/to/model --workers 0 --pool 0.0.0.0:7700   # others bring the workers:
  concord worker --coordinator http://HOST:7700 --device cuda:0 --listen 0.0.0.0:7701 --advertise http://ME:7701

  curl http://127.0.0.1:8000/v1/chat/completions -H 'Content-Type: application/json' \\
    -d '{\"messages\": [{\"role\": \"user\", \"content\": \"Hello\"}]}'")]
pub struct Args {
    /// A model folder, or owner/name of the Hugging Face hub.
    #[arg(long, value_name = "DIR_OR_HUB_ID")]
    model: String,
    /// The name of the model in requests; the last part of --model by default.
    #[arg(long, value_name = "NAME")]
    served_model_name: Option<String>,
    /// A LoRA adapter, and the name by which requests ask for it. May be repeated.
    #[arg(long, value_name = "NAME=DIR")]
    adapter: Vec<NamedAdapter>,
    /// Where the API listens. Port 0 takes a free one.
    #[arg(long, default_value = "127.0.0.1:8000", value_name = "ADDRESS")]
    listen: SocketAddr,
    /// Where workers and checkers join. Port 0 takes a free one.
    #[arg(long, default_value = "127.0.0.1:0", value_name = "ADDRESS")]
    pool: SocketAddr,
    /// Worker processes on this machine.
    #[arg(long, default_value_t = 1, value_name = "N")]
    workers: u32,
    /// Checker processes on this machine: they compute a sample of the answers again.
    #[arg(long, default_value_t = 0, value_name = "N")]
    checkers: u32,
    /// Where the workers of this machine compute: cpu, cuda, cuda:N or auto.
    #[arg(long, default_value = "cpu", value_name = "DEVICE")]
    device: String,
    /// Threads of each worker of this machine; the cores are shared out by default.
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    /// Memory of each worker of this machine, such as 8G; what is free by default.
    #[arg(long, value_name = "BYTES")]
    memory: Option<String>,
    /// Stages: how many workers share one copy of the model. By default as few as its size allows.
    #[arg(long, value_name = "N")]
    stages: Option<u32>,
    /// Copies of the model side by side. By default one.
    #[arg(long, value_name = "N")]
    pipelines: Option<u32>,
    /// Wait for so many workers before the first plan; by default for what stages and pipelines take.
    #[arg(long, value_name = "N")]
    min_workers: Option<u32>,
    /// The most tokens of a prompt and its answer; the model's own limit by default.
    #[arg(long, value_name = "N")]
    max_model_len: Option<u32>,
    /// Pages (of 128 tokens) of keys and values; by default what memory allows.
    #[arg(long, value_name = "N")]
    kv_pages: Option<u32>,
    /// Share of the answers that a checker computes again.
    #[arg(long, default_value_t = 0.01, value_name = "P")]
    audit_rate: f64,
    /// Seconds that answers wait for somebody to take over a lost stage; then they end with an error
    /// that says what they have used.
    #[arg(long, default_value_t = 120, value_name = "S")]
    resume_within: u64,
    /// A file of API keys, as `concord key` makes them. Without it nobody is asked for one.
    #[arg(long, value_name = "FILE")]
    api_keys: Option<PathBuf>,
    /// Listen beyond this machine although nobody is asked for a key.
    #[arg(long)]
    open: bool,
    /// The certificate chain (PEM), to serve HTTPS.
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// The private key (PEM) of --tls-cert.
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// The folder that adapters may be loaded from while serving.
    #[arg(long, value_name = "DIR")]
    adapter_dir: Option<PathBuf>,
    /// The web origin whose pages may call the API, or "*".
    #[arg(long, value_name = "ORIGIN")]
    cors: Option<String>,
    /// Keep receipts, keys and fetched weights here; nothing is kept by default.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Show what the workers of this machine would do, and how fast, and serve nothing.
    #[arg(long)]
    preview: bool,
}

impl Args {
    fn name(&self) -> String {
        let last = || self.model.trim_end_matches('/').rsplit('/').next();
        let named = self.served_model_name.as_deref().or_else(last);
        named.unwrap_or("model").to_string()
    }

    fn pool_options(&self) -> PoolOptions {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let shares = self.workers.max(1) as usize;
        let mut worker_options = vec!["--device".to_string(), self.device.clone()];
        if let Some(memory) = &self.memory {
            worker_options.extend(["--memory".to_string(), memory.clone()]);
        }
        PoolOptions {
            workers: self.workers,
            checkers: self.checkers,
            threads: self.threads.unwrap_or((cores / shares).max(1)),
            dir: self.dir.clone(),
            listen: self.pool,
            config: Config {
                serving_patience_us: self.resume_within.saturating_mul(1_000_000),
                ..Config::default()
            },
            worker_options,
        }
    }

    fn served(&self, model: &ModelToServe) -> anyhow::Result<ServedModel> {
        if !(0.0..=1.0).contains(&self.audit_rate) {
            bail!("--audit-rate {}: a share from 0 to 1", self.audit_rate);
        }
        let (stages, pipelines) = (self.stages.unwrap_or(0), self.pipelines.unwrap_or(1));
        if stages > model.deployment.layers {
            bail!(
                "--stages {stages}: the model has {} layers",
                model.deployment.layers
            );
        }
        let needed = stages.max(1) * pipelines.max(1);
        Ok(ServedModel {
            deployment: model.deployment.clone(),
            profile: model.profile.clone(),
            stages,
            pipelines,
            min_workers: self.min_workers.unwrap_or(needed.max(self.workers)),
            pages: self.kv_pages.unwrap_or(0),
            audit_rate: (self.audit_rate * 4_294_967_296.0) as u64,
        })
    }

    fn gateway_options(&self) -> Options {
        Options {
            tls: self.tls_cert.clone().zip(self.tls_key.clone()),
            keys: self.api_keys.clone(),
            open: self.open,
            adapter_dir: self.adapter_dir.clone(),
            cors: self.cors.clone(),
            ..Options::new(self.listen)
        }
    }
}

/// Serves until Ctrl-C.
///
/// # Errors
/// Naming what is wrong with the model, an adapter, the options or the ports.
#[tokio::main]
pub async fn run(args: Args, output: &Output) -> anyhow::Result<()> {
    let path = crate::loaded_model::resolve(&args.model).context("--model")?;
    let mut model = ModelToServe::open(&path, args.max_model_len)?;
    for sentence in &model.not_applied {
        eprintln!("note: {sentence}");
    }
    let served = args.served(&model)?;
    if args.preview {
        return preview::show(&args, &model, &served, output);
    }
    let mut adapters: Vec<(String, Digest)> = Vec::new();
    for NamedAdapter { name, folder } in &args.adapter {
        let config = model.folder.config().clone();
        let digest = adapters::adapter_blobs(folder, &config, &mut model.blobs);
        let digest = digest.with_context(|| format!("--adapter {name}"))?;
        adapters.push((name.clone(), digest));
    }
    let scratch = tempfile::tempdir().context("cannot make a temporary folder")?;
    let mut options = args.pool_options();
    options
        .dir
        .get_or_insert_with(|| scratch.path().to_path_buf());
    fill_store(&options, &model, output).await?;
    let mut pool = Pool::coordinator(&options, Some(served)).await?;
    let serving = pool.server().serving();
    let serving = serving.context("the coordinator does not serve")?;
    for (name, digest) in &adapters {
        let added = serving.add_adapter(*digest).await;
        added
            .map_err(anyhow::Error::msg)
            .with_context(|| format!("--adapter {name}"))?;
    }
    pool.join(&options)?;
    let engine = PoolEngine {
        serving: serving.clone(),
        config: Arc::new(model.folder.config().clone()),
    };
    let described = Served {
        name: args.name(),
        deployment: model.deployment.clone(),
        tokenizer: model.tokenizer.clone(),
        template: model.template.take(),
        stop_tokens: model.stop_tokens.clone(),
        adapters,
        created: model::now(),
        defaults: model.defaults,
    };
    let gateway =
        concord_gateway::start(described, Arc::new(engine), args.gateway_options()).await?;
    announce(&args, &pool, &gateway, output);
    let watching = tokio::spawn(watch(serving, *output));
    let _ = tokio::signal::ctrl_c().await;
    watching.abort();
    gateway.shutdown().await;
    pool.stop().await
}

/// Puts the model into the store of a coordinator that nobody else can reach yet: whoever joins the
/// one that serves finds everything there.
async fn fill_store(
    options: &PoolOptions,
    model: &ModelToServe,
    output: &Output,
) -> anyhow::Result<()> {
    let alone = PoolOptions {
        listen: ([127, 0, 0, 1], 0).into(),
        ..options.clone()
    };
    let store = Pool::coordinator(&alone, None).await?;
    model
        .blobs
        .link(&model.folder, store.server().blobs())
        .await?;
    let client = Client::connect(&store.url()).await?;
    let bar = match output.is_json() {
        true => ProgressBar::hidden(),
        false => ProgressBar::new(0),
    };
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} tensors to the coordinator")?;
    bar.set_style(style);
    model.blobs.upload(&client, &model.folder, &bar).await?;
    drop(client);
    store.stop().await
}

fn announce(args: &Args, pool: &Pool, gateway: &RunningGateway, output: &Output) {
    let scheme = if args.tls_cert.is_some() {
        "https"
    } else {
        "http"
    };
    let (url, joins) = (format!("{scheme}://{}", gateway.addr), pool.url());
    let name = args.name();
    output.result(
        &format!("{name} at {url}/v1, a page to try it at {url}\nworkers join at {joins}"),
        &json!({ "event": "listening", "url": url, "pool": joins, "model": name }),
    );
}

/// Says when the state of the pool changes.
async fn watch(serving: concord_coordinator::serving::Serving, output: Output) {
    let mut told = String::new();
    loop {
        let view: PoolView = serving.view();
        let text = match view.ready {
            true => format!("ready: {}", view.state),
            false => format!("not ready: {}", view.state),
        };
        if text != told {
            output.result(
                &text,
                &json!({ "event": "state", "ready": view.ready, "state": view.state,
                    "failovers": view.failovers }),
            );
            told = text;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
}
