//! Starts a pool and the gateway in front of it, from the model's files to the first request.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use concord_gateway::{InferenceEngine, RunningGateway, Served};
use concord_proto::Digest;
use concord_proto::serving::ServedModel;
use concord_proto::session::Role;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use tokio::task::JoinHandle;

use super::adapters::NamedAdapter;
use super::engine::PoolEngine;
use super::model::{self, ModelToServe};
use super::{ServeArgs, preview};
use crate::support::adapter_blobs::adapter_blobs;
use crate::support::client::Client;
use crate::support::loaded_model::{NamedModel, note_base};
use crate::support::output::Output;
use crate::support::pool::{LocalPool, PoolOptions};

/// The time between two looks at the state of the pool.
const LOOK: Duration = Duration::from_millis(100);

/// The model and its adapters, read and checked.
pub struct OpenedService {
    args: ServeArgs,
    model: ModelToServe,
    served: ServedModel,
    /// The adapter that the name of the model stands for, where `--model` is an adapter.
    adapter: Option<Digest>,
    adapters: Vec<(String, Digest)>,
}

/// Reads the model and its adapters. With `--preview`, shows the preview and returns `None`.
///
/// # Errors
/// Naming what is wrong with the model, an adapter or the options.
pub fn open(args: ServeArgs, output: &Output) -> anyhow::Result<Option<OpenedService>> {
    let source = NamedModel::find(&args.model)?;
    let mut model = ModelToServe::open(
        &source.model,
        args.max_model_len,
        args.load_in.format(),
        args.kv_cache,
        args.keeps_packed(),
    )?;
    let served = args.served(&model)?;
    let config = model.folder.config().clone();
    let mut read = |folder: &Path| {
        note_base(folder, &source.model, args.load_in)?;
        adapter_blobs(folder, &config, &mut model.blobs)
    };
    let own = source.adapter.as_deref().map(&mut read).transpose();
    let adapter = own.context("--model")?;
    let mut adapters: Vec<(String, Digest)> = Vec::new();
    for NamedAdapter { name, folder } in &args.adapter {
        let is_taken = adapters.iter().any(|(other, _)| other == name) || *name == args.name();
        if is_taken {
            bail!(
                "--adapter {name}: another model has this name; requests could not tell them apart"
            );
        }
        let digest = read(folder).with_context(|| format!("--adapter {name}"))?;
        adapters.push((name.clone(), digest));
    }
    for sentence in &model.not_applied {
        eprintln!("note: {sentence}");
    }
    if args.preview {
        preview::show(&args, &model, &served, output)?;
        return Ok(None);
    }
    Ok(Some(OpenedService {
        args,
        model,
        served,
        adapter,
        adapters,
    }))
}

/// A pool and the gateway in front of it.
pub struct Stand {
    pub(super) pool: LocalPool,
    pub(super) gateway: RunningGateway,
    pub(super) engine: Arc<PoolEngine>,
    watching: JoinHandle<()>,
    /// Whether only workers on this machine can serve.
    is_alone: bool,
    checkers: usize,
}

impl Stand {
    /// Starts the pool, with its state in `dir`, and the gateway.
    ///
    /// # Errors
    /// Where a port is in use, a process cannot be started, or there is no room for the model.
    pub async fn start(opened: OpenedService, dir: &Path, output: Output) -> anyhow::Result<Self> {
        let OpenedService {
            args,
            mut model,
            served,
            adapter,
            adapters,
        } = opened;
        let options = args.pool_options(dir, &model)?;
        fill_store(&options, &model, &output).await?;
        let mut pool = LocalPool::coordinator(&options, Some(served)).await?;
        let serving = pool.server().serving();
        let serving = serving.context("the coordinator does not serve")?;
        let named = adapters
            .iter()
            .map(|(name, digest)| (name.clone(), *digest));
        let own = adapter.map(|digest| (args.name(), digest));
        for (name, digest) in own.into_iter().chain(named) {
            let added = serving.add_adapter(digest).await;
            added
                .map_err(anyhow::Error::msg)
                .with_context(|| format!("the adapter {name}"))?;
        }
        pool.join(&options)?;
        let config = Arc::new(model.folder.config().clone());
        let engine = PoolEngine::new(serving, config, adapter, pool.troubles());
        let engine = Arc::new(engine);
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
        let gateway = concord_gateway::start(described, engine.clone(), args.gateway_options());
        let gateway = gateway.await?;
        announce(&args, &model, &pool, &gateway, &output);
        Ok(Self {
            watching: tokio::spawn(watch(engine.clone(), output)),
            pool,
            gateway,
            engine,
            is_alone: args.pool.ip().is_loopback(),
            checkers: args.checkers as usize,
        })
    }

    /// Waits until no worker is left or will come, or the coordinator has ended. Returns the
    /// reason. Cancel safe.
    pub async fn hopeless(&mut self) -> String {
        let (troubles, engine) = (self.pool.troubles(), self.engine.clone());
        let (is_alone, checkers) = (self.is_alone, self.checkers);
        let workers = async {
            let reason = troubles.too_few(Role::Worker, 1).await;
            loop {
                let view = engine.view();
                // Workers that were started elsewhere may be there.
                let has_others = view.ready || view.workers.len() > checkers;
                if is_alone && !has_others {
                    return reason;
                }
                tokio::time::sleep(LOOK).await;
            }
        };
        tokio::select! {
            reason = workers => reason,
            reason = self.pool.ended() => reason,
        }
    }

    /// Ends gateway and pool; running requests may end within `patience`. Returns how many answers
    /// were cut.
    ///
    /// # Errors
    /// Where the coordinator has already ended with an error.
    pub async fn stop(self, patience: Duration) -> anyhow::Result<usize> {
        self.watching.abort();
        let cut = self.gateway.drain(patience).await;
        self.pool.stop().await?;
        Ok(cut)
    }
}

/// Puts the model into the store through a coordinator that no member can reach yet, so that the
/// members of the serving one find everything there.
async fn fill_store(
    options: &PoolOptions,
    model: &ModelToServe,
    output: &Output,
) -> anyhow::Result<()> {
    let alone = PoolOptions {
        listen: ([127, 0, 0, 1], 0).into(),
        ..options.clone()
    };
    let store = LocalPool::coordinator(&alone, None).await?;
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

fn announce(
    args: &ServeArgs,
    model: &ModelToServe,
    pool: &LocalPool,
    gateway: &RunningGateway,
    output: &Output,
) {
    let scheme = if args.tls_cert.is_some() {
        "https"
    } else {
        "http"
    };
    let (url, joins) = (format!("{scheme}://{}", gateway.addr), pool.url());
    let (name, folder) = (args.name(), model.folder.dir());
    output.result(
        &format!("{name} at {url}/v1, a page to try it at {url}\nworkers join at {joins}"),
        &json!({ "event": "listening", "url": url, "pool": joins, "model": name,
            "folder": folder }),
    );
}

/// Prints the state of the pool when it changes.
async fn watch(engine: Arc<PoolEngine>, output: Output) {
    let mut told = String::new();
    loop {
        let view = engine.view();
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
        tokio::time::sleep(LOOK).await;
    }
}
