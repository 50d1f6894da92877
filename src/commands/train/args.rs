//! The command line of `concord train`.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context, bail};
use concord_coordinator::core::Config;
use concord_coordinator::planner::{self, PlanError};
use concord_kernels::Device;
use concord_proto::client::{PlanChoice, RunOptions};
use concord_proto::limits::STEPS_MAX;
use concord_runtime::measure;

use crate::support::bytes;
use crate::support::ingest::Ingested;
use crate::support::job_file::{JobFile, ReadOptions};
use crate::support::output::counted;
use crate::support::pool::PoolOptions;
use crate::support::referee::RefereeChoice;

/// A number of steps.
fn steps() -> clap::builder::RangedI64ValueParser<u32> {
    clap::value_parser!(u32).range(0..=i64::from(STEPS_MAX))
}

/// Options of `concord train`.
#[derive(clap::Args)]
#[command(
    after_help = "Every key of a job file, with its meaning, range and default:
  concord train --keys

Examples:
  concord train examples/story.yaml                          # one worker on this machine
  concord train examples/story.yaml --workers local:3        # a pool of three
  concord train examples/story.yaml --workers local:4 --plan 2x2
  concord train examples/story.yaml --coordinator concord://KEY@10.0.0.1:7700
  concord train examples/story.yaml --coordinator concord://KEY@10.0.0.1:7700 --audit 2%

Ctrl-C and SIGTERM stop the training (exit status 130 and 143): the same command goes on from the
newest checkpoint, or, with --coordinator, where the job goes on meanwhile, watches it again."
)]
pub struct TrainArgs {
    /// The job file (YAML).
    #[arg(required_unless_present_any = ["keys", "schema"])]
    pub job: Option<PathBuf>,
    /// Print every key of a job file with its meaning, range and default.
    #[arg(long, conflicts_with = "job")]
    pub keys: bool,
    /// Print the keys of a job file as a JSON schema, for editors.
    #[arg(long, conflicts_with_all = ["job", "keys"])]
    pub schema: bool,
    #[command(flatten)]
    pub asked: ReadOptions,
    /// Print the job as it is read, with the source of each value and the keys that have no effect,
    /// and run nothing.
    #[arg(long)]
    pub explain: bool,
    /// Read model and data, print steps, tokens, memory and disk, and run nothing.
    #[arg(long, conflicts_with = "explain")]
    pub dry_run: bool,
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
    /// Memory of each worker of this machine, such as 8G; by default they divide what is free.
    #[arg(long, value_name = "BYTES", value_parser = bytes::parse, conflicts_with = "coordinator")]
    memory: Option<u64>,
    /// What decides where a checker of the pool on this machine contradicts a worker: "cpu",
    /// "reference" (scalar code, slow) or "off".
    #[arg(
        long,
        default_value = "cpu",
        value_name = "DEVICE",
        conflicts_with = "coordinator"
    )]
    referee: RefereeChoice,
    /// Where the pool on this machine keeps its state, with which the job goes on after an
    /// interruption; by default in output_dir, until the result is there.
    #[arg(long, value_name = "DIR", conflicts_with = "coordinator")]
    pub pool_dir: Option<PathBuf>,
    /// Submit to a running coordinator.
    #[arg(long, value_name = "URL")]
    pub coordinator: Option<String>,
    /// Replace the result of an earlier job in output_dir. It is kept there, in .concord-replaced,
    /// until the new one is there.
    #[arg(long)]
    pub overwrite: bool,
    /// Steps between two states that are kept in the proof for `concord verify --replay`, instead
    /// of what the job file says (`replay_steps`); 0 keeps none.
    #[arg(long, value_name = "N", value_parser = steps())]
    pub replay_steps: Option<u32>,
    /// Stages x replicas, such as "2x2", or "auto".
    #[arg(long, default_value = "auto", value_name = "PLAN")]
    plan: PlanArg,
    /// Microbatches of each replica of a fixed plan, such as "5,3".
    #[arg(long, value_delimiter = ',', value_name = "N,N")]
    shares: Vec<u32>,
    /// Wait for this many workers before the first plan.
    #[arg(long, value_name = "N")]
    min_workers: Option<u32>,
    /// How many checkers of the pool audit the job. The first step waits until so many have
    /// committed to secrets, by which each draws what it re-runs.
    #[arg(long, value_name = "N")]
    min_checkers: Option<u32>,
    /// Share of the work that each of these checkers re-runs; 0 for none.
    #[arg(long, default_value_t = 0.02, value_name = "P")]
    audit_rate: f64,
    /// Share of what a checker of the pool found right that the coordinator re-runs itself, to see
    /// whether the checker has done the work [default: 0.05 in a pool of others, and 0 where this
    /// command starts the checkers].
    #[arg(long, value_name = "P")]
    recheck_rate: Option<f64>,
    /// Audit the job yourself: an auditor of your own, on this machine, draws this share of all
    /// work by secrets that nobody else knows, such as "1%", and re-runs it. `concord verify
    /// --checker` with its key then needs nobody else's word.
    #[arg(long, value_name = "P", value_parser = share, allow_hyphen_values = true)]
    pub audit: Option<u64>,
}

/// The share of the verdicts of others' checkers that are checked.
const RECHECK_RATE: f64 = 0.05;

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

impl TrainArgs {
    /// The options with which the job is run; checkpoints are settled later, by its steps.
    ///
    /// # Errors
    /// Naming an option that is out of range.
    pub fn options(&self, job: &JobFile) -> anyhow::Result<RunOptions> {
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
        // Who owns the checkers has no strangers to watch.
        let recheck_rate = self.recheck_rate.unwrap_or(match local {
            true => 0.0,
            false => RECHECK_RATE,
        });
        let options = RunOptions {
            name: self
                .job
                .as_deref()
                .and_then(Path::file_stem)
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned(),
            plan,
            min_workers: self.min_workers.unwrap_or(if local { workers } else { 1 }),
            checkers: self.min_checkers.unwrap_or(checkers),
            checkpoint_every: 1,
            checkpoints_kept: 0,
            replay_every: 0,
            audit_rate: probability("--audit-rate", self.audit_rate)?,
            recheck_rate: probability("--recheck-rate", recheck_rate)?,
            recompute: job.recompute,
            auditors: Vec::new(),
        };
        if local {
            self.check_pool(workers, &options)?;
        }
        Ok(options)
    }

    /// Refuses a plan that the job cannot have in any pool, also where the job exists already, and
    /// would go on under the plan that it has.
    ///
    /// # Errors
    /// Naming the option, and what it contradicts.
    pub fn check_plan(&self, options: &RunOptions, ingested: &Ingested) -> anyhow::Result<()> {
        let (spec, profile) = (&ingested.spec, &ingested.profile);
        let checked = planner::check_choice(&options.plan, spec.layers, spec.microbatches, profile);
        let option = match &checked {
            Err(PlanError::Shares { .. }) => "--shares",
            _ => "--plan",
        };
        checked.context(option)
    }

    /// The options of the pool on this machine, with its state in `state_dir` unless the user chose
    /// a folder.
    pub fn pool_options(&self, state_dir: &Path) -> PoolOptions {
        let workers = self.workers.map_or(1, |workers| workers.0);
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let dir = self.pool_dir.as_deref().unwrap_or(state_dir);
        PoolOptions {
            workers,
            checkers: self.checkers,
            threads: (cores / workers as usize).max(1),
            dir: Some(dir.to_path_buf()),
            listen: ([127, 0, 0, 1], 0).into(),
            config: Config::default(),
            worker_options: self.memory_options(workers),
            referee: self.referee,
        }
    }

    /// The share of each worker. Each alone would take all that is free for its own.
    fn memory_options(&self, workers: u32) -> Vec<String> {
        let shared = || measure::device_memory(&Device::Reference) / u64::from(workers);
        let memory = self.memory.or_else(|| (workers > 1).then(shared));
        memory.map_or_else(Vec::new, |bytes| {
            vec!["--memory".to_string(), bytes.to_string()]
        })
    }

    /// Where a pool on this machine keeps its state: in `state_dir` unless the user chose a folder.
    pub fn state_dir(&self, state_dir: &Path) -> Option<PathBuf> {
        let dir = self.pool_dir.as_deref().unwrap_or(state_dir);
        self.coordinator.is_none().then(|| dir.to_path_buf())
    }

    /// Refuses options that ask for more members than the local pool has. No others can join it, so
    /// the job would wait forever.
    fn check_pool(&self, workers: u32, options: &RunOptions) -> anyhow::Result<()> {
        let here = counted(u64::from(workers), "worker");
        if let PlanChoice::Fixed {
            stages, replicas, ..
        } = &options.plan
        {
            let needed = u64::from(*stages) * u64::from(*replicas);
            if needed > u64::from(workers) {
                bail!(
                    "--plan {stages}x{replicas} takes {}, and the pool on this machine has {here}: \
                     give --workers local:{needed}",
                    counted(needed, "worker")
                );
            }
        }
        if options.min_workers > workers {
            let needed = options.min_workers;
            bail!(
                "--min-workers {needed}: the pool on this machine has {here}: give --workers \
                 local:{needed}"
            );
        }
        if options.checkers > self.checkers {
            let needed = options.checkers;
            bail!(
                "--min-checkers {needed}: the pool on this machine has {}: give --checkers \
                 {needed}",
                counted(u64::from(self.checkers), "checker")
            );
        }
        Ok(())
    }
}

/// A share as a number or in percent, in units of 2^-32; above 0.
fn share(text: &str) -> Result<u64, String> {
    let number = |text: &str| text.trim().parse::<f64>().ok();
    let share = match text.strip_suffix('%') {
        Some(percent) => number(percent).map(|percent| percent / 100.0),
        None => number(text),
    };
    match share {
        Some(share) if share > 0.0 && share <= 1.0 => Ok(((share * 4_294_967_296.0) as u64).max(1)),
        _ => Err(format!(
            "'{text}': a share above 0 and at most 1, such as 0.01 or 1%"
        )),
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
