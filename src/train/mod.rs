//! `concord train`: a job file to a tuned model and its proof.

mod ingest;
mod profile;
mod result;
mod watch;

use std::path::PathBuf;
use std::str::FromStr;

use anyhow::{Context, bail};
use concord_coordinator::core::Config;
use concord_proto::JobId;
use concord_proto::client::{ClientRequest, ClientResponse, PlanChoice, RunOptions, Submission};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

use crate::client::Client;
use crate::job_file::JobFile;
use crate::output::Output;
use crate::pool;

pub use watch::{as_json, describe};

/// Options of `concord train`.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  concord train examples/shakespeare.yaml                          # one worker on this machine
  concord train examples/shakespeare.yaml --workers local:3        # a pool of three
  concord train examples/shakespeare.yaml --workers local:4 --plan 2x2
  concord train examples/shakespeare.yaml --coordinator http://10.0.0.1:7700")]
pub struct Args {
    /// The job file (YAML).
    job: PathBuf,
    /// Start a pool on this machine for this one job, such as "local:3".
    #[arg(long, value_name = "local:N", conflicts_with = "coordinator")]
    workers: Option<LocalWorkers>,
    /// Checkers of the pool on this machine.
    #[arg(
        long,
        default_value_t = 1,
        value_name = "N",
        conflicts_with = "coordinator"
    )]
    checkers: u32,
    /// Keep the state of the pool on this machine here, to go on after an interruption.
    #[arg(long, value_name = "DIR", conflicts_with = "coordinator")]
    pool_dir: Option<PathBuf>,
    /// Submit to a running coordinator.
    #[arg(long, value_name = "URL")]
    coordinator: Option<String>,
    /// Stages x replicas, such as "2x2", or "auto".
    #[arg(long, default_value = "auto", value_name = "PLAN")]
    plan: PlanArg,
    /// Microbatches of each replica of a fixed plan, such as "5,3".
    #[arg(long, value_delimiter = ',', value_name = "N,N")]
    shares: Vec<u32>,
    /// Wait for this many workers before the first plan.
    #[arg(long, value_name = "N")]
    min_workers: Option<u32>,
    /// Wait for this many checkers before the first step.
    #[arg(long, value_name = "N")]
    min_checkers: Option<u32>,
    /// Share of the work of a worker with a good record that is audited.
    #[arg(long, default_value_t = 0.02, value_name = "P")]
    audit_rate: f64,
    /// Share of the work of a new worker that is audited.
    #[arg(long, default_value_t = 0.2, value_name = "P")]
    audit_rate_new: f64,
    /// Share of audits that test the checker.
    #[arg(long, default_value_t = 0.05, value_name = "P")]
    canary_rate: f64,
}

#[derive(Clone, Copy, Debug)]
struct LocalWorkers(u32);

impl FromStr for LocalWorkers {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let count = text
            .strip_prefix("local:")
            .and_then(|count| count.parse().ok());
        match count {
            Some(count @ 1..=64) => Ok(Self(count)),
            _ => Err(format!(
                "'{text}': local:1 to local:64, or --coordinator URL"
            )),
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum PlanArg {
    Auto,
    Fixed { stages: u32, replicas: u32 },
}

impl FromStr for PlanArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "auto" {
            return Ok(Self::Auto);
        }
        let sides = text
            .split_once('x')
            .and_then(|(a, b)| Some((a.parse().ok()?, b.parse().ok()?)));
        match sides {
            Some((stages @ 1.., replicas @ 1..)) => Ok(Self::Fixed { stages, replicas }),
            _ => Err(format!("'{text}': STAGESxREPLICAS such as 2x2, or auto")),
        }
    }
}

impl Args {
    fn options(&self, job: &JobFile) -> anyhow::Result<RunOptions> {
        let plan = match self.plan {
            PlanArg::Auto if self.shares.is_empty() => PlanChoice::Auto,
            PlanArg::Auto => bail!("--shares needs a fixed --plan, such as --plan 2x2"),
            PlanArg::Fixed { stages, replicas } => PlanChoice::Fixed {
                stages,
                replicas,
                shares: self.shares.clone(),
            },
        };
        let local = self.coordinator.is_none();
        let workers = self.workers.map_or(1, |workers| workers.0);
        let checkers = if local { self.checkers } else { 0 };
        Ok(RunOptions {
            name: self
                .job
                .file_stem()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned(),
            plan,
            min_workers: self.min_workers.unwrap_or(if local { workers } else { 1 }),
            min_checkers: self.min_checkers.unwrap_or(checkers),
            checkpoint_every: job.save_steps,
            audit_rate_min: probability("--audit-rate", self.audit_rate)?,
            audit_rate_new: probability("--audit-rate-new", self.audit_rate_new)?,
            canary_rate: probability("--canary-rate", self.canary_rate)?,
            recompute: job.recompute,
        })
    }

    fn pool_options(&self) -> pool::PoolOptions {
        let workers = self.workers.map_or(1, |workers| workers.0);
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        pool::PoolOptions {
            workers,
            checkers: self.checkers,
            threads: (cores / workers as usize).max(1),
            dir: self.pool_dir.clone(),
            listen: ([127, 0, 0, 1], 0).into(),
            config: Config::default(),
            worker_options: Vec::new(),
        }
    }
}

/// A probability in units of 2^-32.
fn probability(name: &str, p: f64) -> anyhow::Result<u64> {
    if (0.0..=1.0).contains(&p) {
        Ok((p * 4_294_967_296.0) as u64)
    } else {
        bail!("{name} {p}: a share from 0 to 1")
    }
}

/// Fine-tunes a model.
///
/// # Errors
/// Naming what is wrong with the job file, the model, the data or the pool.
#[tokio::main]
pub async fn run(args: Args, output: &Output) -> anyhow::Result<()> {
    let job = JobFile::read(&args.job)?;
    let options = args.options(&job)?;
    let ingested = ingest::ingest(&job)?;
    let pool = match &args.coordinator {
        Some(_) => None,
        None => Some(pool::Pool::start(&args.pool_options()).await?),
    };
    let url = match (&args.coordinator, &pool) {
        (Some(url), _) => url.clone(),
        (None, Some(pool)) => pool.url(),
        (None, None) => unreachable!("one of the two is there"),
    };
    let work = submit_and_watch(&url, &job, &ingested, options, output);
    let result = match &pool {
        Some(pool) => pool.while_it_lasts(work).await,
        None => work.await,
    };
    if let Some(pool) = pool {
        pool.stop().await?;
    }
    result
}

async fn submit_and_watch(
    url: &str,
    job: &JobFile,
    ingested: &ingest::Ingested,
    options: RunOptions,
    output: &Output,
) -> anyhow::Result<()> {
    let client = Client::connect(url).await?;
    let bar = if output.is_json() {
        ProgressBar::hidden()
    } else {
        ProgressBar::new(0)
    };
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} blobs to the coordinator");
    bar.set_style(style.expect("the template is right"));
    ingested
        .blobs
        .upload(&client, &ingested.folder, &bar)
        .await?;
    let submission = Submission {
        spec: ingested.spec.clone(),
        profile: ingested.profile.clone(),
        options,
    };
    let id = match client
        .call(&ClientRequest::Submit(Box::new(submission)))
        .await?
    {
        ClientResponse::Submitted(id) => id,
        other => bail!("the coordinator answers {other:?}"),
    };
    output.result("", &json!({ "event": "submitted", "job": id.to_string() }));
    match watch::watch(url, id, ingested.spec.steps, output).await? {
        watch::Outcome::Detached => {
            eprintln!(
                "the job goes on; watch it with `concord jobs --coordinator {url} watch {id}`"
            );
            Ok(())
        }
        watch::Outcome::Completed(done) => {
            // The coordinator may have been another process when the job was submitted.
            let client = Client::connect(url).await?;
            finish(&client, id, job, ingested, &done, output).await
        }
    }
}

async fn finish(
    client: &Client,
    id: JobId,
    job: &JobFile,
    ingested: &ingest::Ingested,
    done: &watch::Completed,
    output: &Output,
) -> anyhow::Result<()> {
    result::write_weights(client, job, ingested, done.state).await?;
    let bundle = result::write_bundle(client, id, &job.output_dir).await;
    let bundle = bundle.context("the weights are written, the proof is not")?;
    let text = format!(
        "done: {} steps, loss {:.4}, {:.0} tokens/s, {} audits agreed{}\nhash   {}\noutput {}\nproof  {}  (check it with `concord verify {}`)",
        ingested.spec.steps,
        done.loss,
        done.tokens_per_second,
        done.audits,
        match done.inconclusive {
            0 => String::new(),
            count => format!(", {count} could not be judged"),
        },
        done.record,
        job.output_dir.display(),
        bundle.display(),
        bundle.display()
    );
    let object = json!({
        "event": "result", "job": id.to_string(), "record_digest": done.record.to_string(),
        "steps": ingested.spec.steps, "loss": done.loss,
        "tokens_per_second": done.tokens_per_second, "audits": done.audits,
        "inconclusive": done.inconclusive, "output_dir": job.output_dir, "bundle": bundle,
    });
    output.result(&text, &object);
    Ok(())
}
