//! `concord train`: from a job file to a tuned model and its proof.

mod args;
mod auditor;
mod checkpoints;
mod completed;
mod dry_run;
mod keys;
mod output_dir;
mod progress;
mod records;
mod replay_states;
mod report;
mod result;
mod room;
mod stop;
mod watch;

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use concord_models::export;
use concord_proto::client::{
    ClientRequest, ClientResponse, JobState, JobSummary, RunOptions, Submission,
};
use concord_proto::session::Role;
use concord_proto::{AdapterSpec, JobId, JobSpec};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

use crate::support::blobs::BlobSet;
use crate::support::client::Client;
use crate::support::ingest::{self, Ingested};
use crate::support::job_data;
use crate::support::job_file::{GivenJob, JobFile, explain};
use crate::support::kept_states;
use crate::support::output::{Output, counted};
use crate::support::pool::{LocalPool, Troubles};
use crate::support::signals::EndSignals;
use auditor::NamedByUs;
use checkpoints::Saver;
use output_dir::log::StepLog;
use output_dir::{AboutJob, OutputDir, OutputStanding, REPLACED_DIR, apart};
use records::{Board, Records};
use replay_states::ReplayStates;
use watch::JobSeen;

pub use args::TrainArgs;

/// How long a stopped training waits for its workers to store the committed state.
const HAND_OVER_MAX: Duration = Duration::from_secs(5);

/// How many looks at a job whose checkers are gone it takes until it is given up, and the time
/// between two.
const LOOKS: u32 = 3;
const LOOK: Duration = Duration::from_secs(1);

/// Fine-tunes a model.
///
/// # Errors
/// Naming what is wrong with the job file, the output folder, the model, the data or the pool;
/// [`crate::support::output::StoppedBySignal`] where it was interrupted.
#[tokio::main]
pub async fn run(args: TrainArgs, output: &Output) -> anyhow::Result<()> {
    let Some(path) = &args.job else {
        keys::print(args.schema, output);
        return Ok(());
    };
    let given = GivenJob::read(path, &args.asked)?;
    if args.explain {
        explain::print(&given, output);
        return JobFile::of(&given).map(drop);
    }
    let mut job = JobFile::of(&given)?;
    job_data::prepare(&mut job).map_err(|error| given.in_its_words(error))?;
    let job = Arc::new(job);
    explain::tell(&given, output);
    let mut options = args.options(&job)?;
    if args.dry_run {
        return look(&args, &job, &given, output);
    }
    let mut signals = EndSignals::install()?;
    let mut output_dir = OutputDir::take(&job, args.overwrite)?;
    if let Some(dir) = &args.pool_dir {
        apart::check_pool_dir(dir, &output_dir.canonical()?, &job)?;
    }
    let ingested = tokio::select! {
        ingested = in_thread(job.clone(), *output, args.coordinator.is_none()) => {
            ingested.map_err(|error| given.in_its_words(error))?
        }
        signal = signals.next() => return Err(stop::early(signal)),
    };
    apart::check_base(&output_dir.canonical()?, ingested.folder.dir())?;
    args.check_plan(&options, &ingested)?;
    let id = ingested.spec.id();
    output_dir.describe(AboutJob {
        apart_from_steps: apart_from_steps(&ingested.spec),
        settings: with_ranks(explain::settings(&given), &ingested.spec.adapter),
    });
    keep_states(&mut options, &args, &job, &ingested);
    match output_dir.hold(id, &options.name, job.adapter)? {
        OutputStanding::Done(told) => return result::tell_again(&output_dir, &told, output),
        OutputStanding::ToDo => {}
    }
    let state = args.state_dir(&output_dir.state_dir());
    room::check(
        &output_dir,
        &room::Needs::of(
            &ingested.spec,
            &ingested.steps,
            job.save_total_limit,
            options.replay_every,
        ),
        state.as_deref(),
    )?;
    let auditor = NamedByUs::of(args.audit, &output_dir, &mut options)?;
    let run = Run {
        id,
        job: &job,
        ingested: &ingested,
        output,
        is_local: args.coordinator.is_none(),
        auditor,
        replay: ReplayStates {
            every: options.replay_every,
            store: state.as_deref().map(LocalPool::store),
        },
        seen: JobSeen::default(),
    };
    run.to_the_end(&args, options, &mut output_dir, &mut signals)
        .await
}

/// Which states the store is to keep.
fn keep_states(options: &mut RunOptions, args: &TrainArgs, job: &JobFile, ingested: &Ingested) {
    options.checkpoint_every = ingested.steps.save;
    options.checkpoints_kept = checkpoints::most_kept(job, &ingested.steps);
    options.replay_every =
        kept_states::every(args.replay_steps.or(job.replay_steps), &ingested.spec);
}

/// `--dry-run`: reads model and data, and says what would be done.
fn look(args: &TrainArgs, job: &JobFile, given: &GivenJob, output: &Output) -> anyhow::Result<()> {
    OutputDir::look(job)?;
    let ingested =
        read(job, output, args.coordinator.is_none()).map_err(|error| given.in_its_words(error))?;
    args.check_plan(&args.options(job)?, &ingested)?;
    if let Ok(dir) = job.output_dir.canonicalize() {
        apart::check_base(&dir, ingested.folder.dir())?;
    }
    let replay_every = kept_states::every(args.replay_steps.or(job.replay_steps), &ingested.spec);
    dry_run::print(&ingested, job.save_total_limit, replay_every, output)
}

/// A digest of all that a job is but for its steps and its warm-up.
fn apart_from_steps(spec: &JobSpec) -> String {
    let mut spec = spec.clone();
    spec.steps = 1;
    spec.schedule.warmup_steps = 0;
    spec.id().to_string()
}

/// Settings with the rank and the alpha that a job has where its file does not say them. (With
/// `peft_use_rslora` the job has another alpha than the file.)
fn with_ranks(mut settings: Vec<(String, String)>, adapter: &AdapterSpec) -> Vec<(String, String)> {
    let AdapterSpec::Lora(updates) = adapter else {
        return settings;
    };
    let stretches = |(key, value): &(String, String)| key == "peft_use_rslora" && value == "true";
    let is_stretched = settings.iter().any(stretches);
    for (key, value) in settings
        .iter_mut()
        .filter(|(_, value)| value.starts_with('('))
    {
        match key.as_str() {
            "lora_r" => *value = updates.rank.to_string(),
            "lora_alpha" if !is_stretched => *value = updates.alpha.get().to_string(),
            _ => {}
        }
    }
    settings
}

/// Reads model and data. Workers check every tensor against its address, so that digests kept
/// beside the model are believed.
fn read(job: &JobFile, output: &Output, is_local: bool) -> anyhow::Result<Ingested> {
    ingest::ingest(job, output, is_local, BlobSet::believing_kept_digests())
}

/// Reads model and data in a thread of its own, which the end of the program does not wait for.
/// Workers of this machine compute on its CPU; of others it is not known.
async fn in_thread(job: Arc<JobFile>, output: Output, is_local: bool) -> anyhow::Result<Ingested> {
    let (send, ingested) = tokio::sync::oneshot::channel();
    let work = move || {
        // Nobody takes it where the user has stopped waiting.
        let _ = send.send(read(&job, &output, is_local));
    };
    let thread = std::thread::Builder::new().name("ingest".to_string());
    thread.spawn(work).context("cannot start a thread")?;
    let ingested = ingested.await;
    ingested.context("reading model and data has stopped, which is a bug")?
}

/// One run of the command.
struct Run<'a> {
    id: JobId,
    job: &'a JobFile,
    ingested: &'a Ingested,
    output: &'a Output,
    /// Whether the pool was started by this command.
    is_local: bool,
    /// The auditor of this command.
    auditor: NamedByUs,
    /// The states that are kept for replay.
    replay: ReplayStates,
    seen: JobSeen,
}

impl Run<'_> {
    async fn to_the_end(
        &self,
        args: &TrainArgs,
        options: RunOptions,
        output_dir: &mut OutputDir,
        signals: &mut EndSignals,
    ) -> anyhow::Result<()> {
        if let Some(url) = &args.coordinator {
            let _auditor = self.auditor.start(self.output, url, None)?;
            tokio::select! {
                done = self.work(url, options, output_dir) => done?,
                signal = signals.next() => return Err(match output_dir.is_settled() {
                    true => stop::detached(signal, url, self.id, self.auditor.key().is_some()),
                    false => stop::early(signal),
                }),
            }
            forget_state(output_dir);
            return Ok(());
        }
        let pool_options = args.pool_options(&output_dir.state_dir());
        let mut pool = tokio::select! {
            pool = LocalPool::start(&pool_options) => pool?,
            signal = signals.next() => return Err(stop::early(signal)),
        };
        let (blobs, folder) = (&self.ingested.blobs, &self.ingested.folder);
        tokio::select! {
            linked = blobs.link(folder, pool.server().blobs()) => linked?,
            signal = signals.next() => return Err(stop::early(signal)),
        }
        let url = pool.url();
        let _auditor = self.auditor.start(self.output, &url, Some(&pool))?;
        let obstacle = self.lacks_checkers(pool.troubles(), options.checkers);
        let work = self.work(&url, options, output_dir);
        let done = tokio::select! {
            done = pool.while_it_lasts(work, obstacle) => Ok(done),
            signal = signals.next() => Err(signal),
        };
        let stops_work = done.is_err() && self.seen.is_planned();
        let ends = async {
            if stops_work {
                pool.hand_over(HAND_OVER_MAX).await;
            }
            pool.stop().await
        };
        let stopped = tokio::select! {
            stopped = ends => stopped,
            second = stop::cut_short(signals, done.is_err()) => return match done {
                Ok(done) => done,
                Err(first) => Err(self.stopped(second.unwrap_or(first), None)),
            },
        };
        match done {
            Ok(done) => {
                done?;
                stopped?;
                // Only now that the pool has ended, nothing writes there any more.
                forget_state(output_dir);
                Ok(())
            }
            Err(signal) => {
                tell_failure(stopped);
                let data = pool_options.dir.map(|dir| dir.join("coordinator"));
                let saved = match data {
                    Some(data) => stop::saved_steps(&data, self.id).await,
                    None => None,
                };
                Err(self.stopped(signal, saved))
            }
        }
    }

    fn stopped(&self, signal: &'static str, saved: Option<u32>) -> anyhow::Error {
        stop::interrupted(
            signal,
            self.seen.committed(),
            self.ingested.spec.steps,
            saved,
        )
    }

    /// Waits until the job waits for `needed` checkers before its first plan while fewer are left
    /// on this machine. Returns the reason. A job with a plan needs no checkers: its attempts are
    /// unsettled without.
    async fn lacks_checkers(&self, troubles: Troubles, needed: u32) -> String {
        let reason = troubles.too_few(Role::Checker, needed as usize).await;
        let mut looks = 0;
        // A job that goes on reports first that it waited for a plan, and soon after that it got
        // one.
        while looks < LOOKS && !self.seen.is_planned() {
            tokio::time::sleep(LOOK).await;
            looks += u32::from(self.seen.waits());
        }
        if self.seen.is_planned() {
            return std::future::pending().await;
        }
        format!(
            "{reason}; the job waits for {} before its first step: mend that, or train without \
             audits with --checkers 0",
            counted(u64::from(needed), "checker")
        )
    }

    /// Submits the job, watches it, and writes its result.
    async fn work(
        &self,
        url: &str,
        options: RunOptions,
        output_dir: &mut OutputDir,
    ) -> anyhow::Result<()> {
        let goes_on = self.submit(url, options).await?;
        output_dir.settle()?;
        if output_dir.replaces() && !self.output.is_json() {
            eprintln!(
                "the result that is replaced is in {} until the new one is there",
                output_dir.dir().join(REPLACED_DIR).display()
            );
        }
        let mut log = StepLog::open(output_dir.dir())?;
        if !goes_on {
            log.begin_anew();
        }
        let steps = self.ingested.spec.steps;
        let board = self.open_board(output_dir, !goes_on)?;
        let mut records = Records {
            log,
            saver: Saver::new(url, self, output_dir),
            board,
        };
        let watched = watch::watch(url, self.id, steps, self.output, &mut records, &self.seen);
        let done = watched.await?;
        let mut log = records.log;
        // The coordinator may have been restarted since the job was submitted.
        let client = Client::connect(url).await?;
        let finished = result::FinishedJob {
            id: self.id,
            job: self.job,
            ingested: self.ingested,
            state: done.state,
            replay: &self.replay,
        };
        let bundle = result::write(&client, &finished, output_dir).await?;
        let mut object = json!({
            "event": "result", "job": self.id.to_string(),
            "record_digest": done.record.to_string(), "steps": done.steps, "loss": done.loss,
            "tokens_per_second": done.tokens_per_second, "audits": done.audits,
            "inconclusive": done.inconclusive, "output_dir": self.job.output_dir,
            "bundle": bundle,
        });
        if let Some(key) = self.auditor.key() {
            object["auditor"] = json!(key.to_string());
        }
        if let Some(evaluated) = done.evaluated {
            let keeps_best = self.ingested.spec.evaluation.is_some_and(|of| of.keep_best);
            evaluated.tell(&mut object, keeps_best, done.steps < steps);
        }
        tell_failure(self.write_report(output_dir, &log, &object));
        output_dir.finish(&object)?;
        log.finish(&object);
        self.output.result(&completed::in_words(&object), &object);
        Ok(())
    }

    /// The event file for TensorBoard, if the job asks for one; it is a part of the result where it
    /// lies in the output folder.
    fn open_board(
        &self,
        output_dir: &mut OutputDir,
        is_new: bool,
    ) -> anyhow::Result<Option<Board>> {
        let Some(dir) = &self.job.tensorboard_dir else {
            return Ok(None);
        };
        let path = Board::place(dir, self.id);
        if let Ok(file) = path.strip_prefix(output_dir.dir()) {
            output_dir.note_files(&[file.to_string_lossy().into_owned()])?;
        }
        Ok(Some(Board::open(path, is_new)))
    }

    /// Writes the page of the run into the output folder.
    fn write_report(
        &self,
        output_dir: &mut OutputDir,
        log: &StepLog,
        result: &Value,
    ) -> anyhow::Result<()> {
        let path = output_dir.dir().join(report::FILE);
        let history = log.history(self.ingested.spec.steps);
        let (settings, checkpoints) = (output_dir.settings(), output_dir.checkpoints());
        let name = self.job.output_dir.display().to_string();
        let page = report::page(&name, settings, &history, result, &checkpoints);
        output_dir.note_files(&[report::FILE.to_string()])?;
        export::replace_file(&path, |out| out.write_all(page.as_bytes()))?;
        Ok(())
    }

    /// Whether the coordinator already has the job. On a local pool, a job that has not begun is
    /// cancelled, because it has the options of an earlier command; it is then submitted again with
    /// those of this one.
    async fn find(&self, client: &Client) -> anyhow::Result<bool> {
        let ClientResponse::Jobs(jobs) = client.call(&ClientRequest::Jobs).await? else {
            bail!("the coordinator does not list its jobs");
        };
        let found = jobs.iter().find(|job| job.job == self.id);
        let waits = |job: &JobSummary| job.step == 0 && matches!(job.state, JobState::Waiting(_));
        if self.is_local && found.is_some_and(waits) {
            client.call(&ClientRequest::Cancel(self.id)).await?;
        }
        Ok(found.is_some())
    }

    /// Submits the job. Returns whether the coordinator already had it, so that it repeats all its
    /// events.
    async fn submit(&self, url: &str, options: RunOptions) -> anyhow::Result<bool> {
        let client = Client::connect(url).await?;
        let told = self.ingested.told.iter();
        told.for_each(|told| told.tell(self.output));
        let goes_on = self.find(&client).await?;
        let bar = match self.output.is_json() {
            true => ProgressBar::hidden(),
            false => ProgressBar::new(0),
        };
        let style = ProgressStyle::with_template("{bar:20} {pos}/{len} blobs to the coordinator");
        bar.set_style(style.expect("the template is right"));
        let (blobs, folder) = (&self.ingested.blobs, &self.ingested.folder);
        blobs.upload(&client, folder, &bar).await?;
        let submission = Submission {
            spec: self.ingested.spec.clone(),
            profile: self.ingested.profile.clone(),
            options,
        };
        if goes_on && !self.is_local && !self.output.is_json() {
            eprintln!(
                "the coordinator has this job already: it keeps its audit rates, and of the \
                 options of this command only another --plan counts, once there are workers for it"
            );
        }
        let request = ClientRequest::Submit(Box::new(submission));
        match client.call(&request).await? {
            ClientResponse::Submitted(id) => {
                let object = json!({ "event": "submitted", "job": id.to_string() });
                self.output.result("", &object);
                Ok(goes_on)
            }
            other => bail!("the coordinator answers {other:?}"),
        }
    }
}

/// Removes the state that was kept to go on. Once the result is there, a failure is only reported.
fn forget_state(output_dir: &OutputDir) {
    tell_failure(output_dir.forget_state());
}

/// Reports a failure that is not the outcome of the command.
fn tell_failure(outcome: anyhow::Result<()>) {
    if let Err(why) = outcome {
        eprintln!("{}", crate::support::output::in_words(&why));
    }
}
