//! `concord serve`: an inference API over a pool.

mod adapters;
mod drain;
mod engine;
mod model;
mod preview;
mod share;
mod stand;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use concord_coordinator::core::Config;
use concord_gateway::GatewayOptions;
use concord_proto::serving::{ServedModel, ServingProfile};

use crate::support::bytes;
use crate::support::kv_cache::KvCacheArgs;
use crate::support::load_in::LoadInArgs;
use crate::support::output::{Output, StoppedBySignal};
use crate::support::pool::PoolOptions;
use crate::support::referee::RefereeChoice;
use crate::support::scratch::Scratch;
use crate::support::signals::EndSignals;
use adapters::NamedAdapter;
use model::ModelToServe;
use stand::Stand;

/// How long busy threads, such as one that reads a model, may delay the end.
const SHUTDOWN_MAX: Duration = Duration::from_secs(1);

/// Rows of a large pass.
const PASS_ROWS: u64 = 512;

/// Multiply-adds per microsecond of a slow worker, on a processor that is shared.
const SLOW_MACS_PER_MICRO: u64 = 5_000;

/// Options of `concord serve`.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  concord serve --model path/to/model                       # one worker on this machine
  concord serve --model owner/name --workers 3 --stages 3   # three processes, a third each
  concord serve --model out/mine                            # what a job wrote, an adapter too
  concord serve --model path/to/model --adapter poet=out/poet --adapter cook=out/cook
  concord serve --model path/to/model --workers 0 --pool 0.0.0.0:7700   # others bring the workers:
  concord worker --coordinator concord://KEY@HOST:7700 --device cuda:0 \\
    --listen 0.0.0.0:7701 --advertise concord://ME:7701

  curl http://127.0.0.1:8000/v1/chat/completions -H 'Content-Type: application/json' \\
    -d '{\"messages\": [{\"role\": \"user\", \"content\": \"Hello\"}]}'")]
pub struct ServeArgs {
    /// A model folder, a GGUF file, a folder that `concord train` wrote, or owner/name of the
    /// Hugging Face hub.
    /// An adapter is served with the base model that it names.
    #[arg(long, value_name = "DIR_OR_HUB_ID")]
    model: String,
    #[command(flatten)]
    load_in: LoadInArgs,
    #[command(flatten)]
    kv_cache: KvCacheArgs,
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
    /// Memory of each worker of this machine, such as 8G; by default they divide what is free.
    #[arg(long, value_name = "BYTES", value_parser = bytes::parse)]
    memory: Option<u64>,
    /// Stages: how many workers share one copy of the model. By default as few as its size allows.
    #[arg(long, value_name = "N")]
    stages: Option<u32>,
    /// Copies of the model that serve in parallel. By default one.
    #[arg(long, value_name = "N")]
    pipelines: Option<u32>,
    /// Wait for this many workers before the first plan; by default for as many as stages and
    /// pipelines need.
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
    /// Seconds that answers wait for a worker to take over a lost stage; then they end with an
    /// error that says what they have used.
    #[arg(long, default_value_t = 120, value_name = "S")]
    resume_within: u64,
    /// Seconds that running answers may take to end after the first SIGTERM or Ctrl-C; no new ones
    /// are taken on meanwhile. A second signal ends the server at once.
    #[arg(long, default_value_t = 30, value_name = "S")]
    drain_seconds: u64,
    /// A file of API keys, as `concord key` makes them. Without it no key is needed.
    #[arg(long, value_name = "FILE")]
    api_keys: Option<PathBuf>,
    /// Write a line for each request to this file: its key, path, duration and tokens. "-" is
    /// stderr.
    #[arg(long, value_name = "FILE")]
    access_log: Option<PathBuf>,
    /// Let the names of control tokens in messages (such as "<|im_end|>") become the tokens. By
    /// default they are text there, so that no user and no tool can end a turn, or begin one.
    #[arg(long)]
    allow_control_tokens: bool,
    /// Listen beyond this machine although no key is needed.
    #[arg(long)]
    open: bool,
    /// The certificate chain (PEM), to serve HTTPS.
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// The private key (PEM) of --tls-cert.
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// The folder from which adapters may be loaded while serving.
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

impl ServeArgs {
    /// The name of the model in requests.
    fn name(&self) -> String {
        if let Some(name) = &self.served_model_name {
            return name.clone();
        }
        let path = Path::new(&self.model);
        // "." and ".." have no file name, so the whole path is used.
        let whole = match path.file_name() {
            Some(_) => path.to_path_buf(),
            None => path.canonicalize().unwrap_or_default(),
        };
        let last = whole.file_name().map(|name| name.to_string_lossy());
        last.map_or_else(|| "model".to_string(), |name| name.into_owned())
    }

    /// The options of a pool for this model with its state in `dir`.
    fn pool_options(&self, dir: &Path, model: &ModelToServe) -> anyhow::Result<PoolOptions> {
        let share = self.share()?;
        let stall = pass_micros(&model.profile, model.deployment.layers);
        Ok(PoolOptions {
            workers: self.workers,
            checkers: self.checkers,
            threads: share.device.threads.unwrap_or(1),
            dir: Some(dir.to_path_buf()),
            listen: self.pool,
            config: Config {
                serving_patience_us: self.resume_within.saturating_mul(1_000_000),
                serving_stall_us: stall.max(Config::default().serving_stall_us),
                ..Config::default()
            },
            worker_options: share.worker_options(),
            // A coordinator that serves takes on no jobs to be decided about.
            referee: RefereeChoice::Off,
        })
    }

    fn served(&self, model: &ModelToServe) -> anyhow::Result<ServedModel> {
        if !(0.0..=1.0).contains(&self.audit_rate) {
            bail!("--audit-rate {}: a share from 0 to 1", self.audit_rate);
        }
        let (stages, pipelines) = (self.stages.unwrap_or(0), self.pipelines.unwrap_or(1));
        let (layers, experts) = (model.deployment.layers, model.profile.cuts.experts);
        if stages > layers.saturating_mul(experts.max(1)) {
            let parts = match experts {
                0 => String::new(),
                _ => format!(" of {experts} experts"),
            };
            bail!("--stages {stages}: the model has {layers} layers{parts}");
        }
        let needed = stages.max(1).saturating_mul(pipelines.max(1));
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

    fn gateway_options(&self) -> GatewayOptions {
        GatewayOptions {
            tls: self.tls_cert.clone().zip(self.tls_key.clone()),
            keys: self.api_keys.clone(),
            // In the server's own folder, because two servers may share a key file.
            usage: self.dir.as_ref().map(|dir| dir.join("keys.usage")),
            access_log: self.access_log.clone(),
            allow_control_tokens: self.allow_control_tokens,
            open: self.open,
            adapter_dir: self.adapter_dir.clone(),
            cors: self.cors.clone(),
            ..GatewayOptions::new(self.listen)
        }
    }
}

/// Microseconds of a large pass through all layers on a slow worker. A stage that is silent for
/// less may still be computing.
fn pass_micros(profile: &ServingProfile, layers: u32) -> u64 {
    let row = u64::from(layers)
        .saturating_mul(profile.layer_macs)
        .saturating_add(profile.head_macs);
    row.saturating_mul(PASS_ROWS) / SLOW_MACS_PER_MICRO
}

/// Serves until SIGTERM or Ctrl-C, and then until the running answers are done.
///
/// # Errors
/// Naming what is wrong with the model, an adapter, the options or the ports; or how many answers
/// were cut at the end.
pub fn run(args: ServeArgs, output: &Output) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Runtime::new().context("cannot start the server's threads")?;
    // Installed before anything else: process 1 of a container ignores signals without a handler.
    let signals = {
        let _within = runtime.enter();
        EndSignals::install()?
    };
    let scratch = match (&args.dir, args.preview) {
        (None, false) => Some(Scratch::make()?),
        _ => None,
    };
    let dir = scratch.as_ref().map(|scratch| scratch.path().to_path_buf());
    let dir = args.dir.clone().or(dir).unwrap_or_default();
    let result = runtime.block_on(serve(args, dir, signals, *output));
    // Running tasks may write into the folder, so they end before it is removed.
    runtime.shutdown_timeout(SHUTDOWN_MAX);
    result
}

async fn serve(
    args: ServeArgs,
    dir: PathBuf,
    mut signals: EndSignals,
    output: Output,
) -> anyhow::Result<()> {
    let patience = Duration::from_secs(args.drain_seconds);
    let starts = async {
        // Reading and hashing a model takes time; on a thread of its own it does not delay the end.
        let opened = tokio::task::spawn_blocking(move || stand::open(args, &output));
        match opened.await.context("the model cannot be read")?? {
            Some(opened) => Stand::start(opened, &dir, output).await.map(Some),
            None => Ok(None),
        }
    };
    let stand = tokio::select! {
        stand = starts => stand?,
        signal = signals.next() => {
            let words = "stopped before anything was served".to_string();
            return Err(StoppedBySignal::new(signal, words).into());
        }
    };
    let Some(mut stand) = stand else {
        return Ok(());
    };
    tokio::select! {
        signal = signals.next() => drain::end(stand, signal, signals, patience, output).await,
        reason = stand.hopeless() => {
            // Waiting clients get an error as the end of their answers.
            stand.stop(Duration::ZERO).await?;
            bail!(reason)
        }
    }
}
