//! Watches a job by the events that its coordinator sends, across reconnects.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use concord_proto::client::JobEvent;
use concord_proto::{Digest, JobId};
use concord_runtime::Backoff;

use super::output_dir::log::StepLog;
use super::progress::TrainProgress;
use crate::support::client::{Client, JobEvents};
use crate::support::job_events::as_json;
use crate::support::output::Output;

/// The outcome of a completed job.
#[derive(Clone, Copy, Debug)]
pub struct Completed {
    /// Digest of the last step record.
    pub record: Digest,
    /// Blob address of the last state.
    pub state: Digest,
    /// Audits that agreed.
    pub audits: u64,
    /// Drawn leaves that could not be re-run.
    pub inconclusive: u64,
    /// Steps that were done.
    pub steps: u32,
    /// Mean loss of the last step.
    pub loss: f32,
    /// What was found on held-out sequences, where there are any.
    pub evaluated: Option<Evaluated>,
    /// Tokens per second, over all committed steps.
    pub tokens_per_second: f64,
}

/// The losses on held-out sequences.
#[derive(Clone, Copy, Debug)]
pub struct Evaluated {
    /// The last one.
    pub last: f32,
    /// The lowest one after a step, and the steps before it.
    pub best: (f32, u32),
}

/// The progress of a job, for code that runs while the job is watched.
#[derive(Debug, Default)]
pub struct JobSeen {
    committed: AtomicU32,
    is_planned: AtomicBool,
    waits: AtomicBool,
}

impl JobSeen {
    fn note(&self, event: &JobEvent) {
        match event {
            JobEvent::Step { step, .. } => self.committed.store(*step + 1, Ordering::Relaxed),
            JobEvent::Voided { from_step } => self.committed.store(*from_step, Ordering::Relaxed),
            JobEvent::Planned { .. } => self.is_planned.store(true, Ordering::Relaxed),
            JobEvent::Waiting(_) => self.waits.store(true, Ordering::Relaxed),
            _ => {}
        }
    }

    /// How many steps are committed.
    pub fn committed(&self) -> u32 {
        self.committed.load(Ordering::Relaxed)
    }

    /// Whether it has had a plan.
    pub fn is_planned(&self) -> bool {
        self.is_planned.load(Ordering::Relaxed)
    }

    /// Whether it has waited for anything.
    pub fn waits(&self) -> bool {
        self.waits.load(Ordering::Relaxed)
    }
}

/// How long a lost coordinator may take to come back.
const RETURN_MAX: Duration = Duration::from_secs(60);

/// Shows the events of a job until it ends, writes its steps to `log`, and notes its progress in
/// `seen`. Waits for a coordinator that is restarted meanwhile.
///
/// # Errors
/// Where the job fails, is cancelled, or the coordinator stays away.
pub async fn watch(
    url: &str,
    job: JobId,
    steps: u32,
    output: &Output,
    log: &mut StepLog,
    seen: &JobSeen,
) -> anyhow::Result<Completed> {
    let mut progress = TrainProgress::new(steps, output);
    let mut sum = Sum::default();
    let mut stream = EventStream {
        url,
        job,
        seen: 0,
        events: None,
        ahead: None,
    };
    loop {
        let event = stream.next().await?;
        let is_end = matches!(event, JobEvent::Failed(_) | JobEvent::Cancelled);
        if is_end && stream.goes_on().await {
            // The job was submitted again since, and goes on.
            continue;
        }
        output.result("", &as_json(&event));
        let is_news = log.take(&event);
        progress.show(&event, is_news);
        seen.note(&event);
        match &event {
            JobEvent::Failed(reason) => bail!("the job failed: {reason}"),
            JobEvent::Cancelled => bail!("the job was cancelled; the same command goes on with it"),
            _ => {}
        }
        if let Some(completed) = sum.add(&event) {
            progress.finish();
            return Ok(completed);
        }
    }
}

/// The events of a job, over as many connections as needed.
struct EventStream<'a> {
    url: &'a str,
    job: JobId,
    seen: u64,
    events: Option<JobEvents>,
    /// An event that was read ahead.
    ahead: Option<JobEvent>,
}

impl EventStream<'_> {
    async fn next(&mut self) -> anyhow::Result<JobEvent> {
        if let Some(event) = self.ahead.take() {
            return Ok(event);
        }
        let mut gone_since = None;
        let mut backoff = Backoff::for_coordinator();
        loop {
            let broken = match self.try_next().await {
                Ok(event) => {
                    self.seen += 1;
                    return Ok(event);
                }
                Err(broken) => broken,
            };
            self.events = None;
            if gone_since.get_or_insert_with(Instant::now).elapsed() > RETURN_MAX {
                return Err(broken);
            }
            tokio::time::sleep(backoff.pause()).await;
        }
    }

    /// Whether there are events after the end of the job, which means that it was submitted again.
    async fn goes_on(&mut self) -> bool {
        if self.ahead.is_none()
            && let Some(events) = &mut self.events
        {
            self.ahead = events.next().await.ok().flatten();
            self.seen += u64::from(self.ahead.is_some());
        }
        self.ahead.is_some()
    }

    async fn try_next(&mut self) -> anyhow::Result<JobEvent> {
        if self.events.is_none() {
            self.connect().await?;
        }
        match &mut self.events {
            Some(events) => events
                .next()
                .await?
                .context("the coordinator ends the stream"),
            None => bail!("not connected"),
        }
    }

    async fn connect(&mut self) -> anyhow::Result<()> {
        let client = Client::connect(self.url).await?;
        self.events = Some(client.watch(self.job, self.seen).await?);
        Ok(())
    }
}

/// Sums over the steps.
#[derive(Default)]
struct Sum {
    steps: u32,
    evaluated: Option<Evaluated>,
    loss: f32,
    tokens: u64,
    time: Duration,
}

impl Sum {
    /// Takes in an event. For the last one, returns the outcome.
    fn add(&mut self, event: &JobEvent) -> Option<Completed> {
        match event {
            JobEvent::Evaluated {
                step,
                loss,
                is_best,
                ..
            } => {
                let last = loss.get();
                let best = match self.evaluated {
                    Some(before) if !is_best => before.best,
                    _ => (last, *step),
                };
                self.evaluated = Some(Evaluated { last, best });
                None
            }
            JobEvent::Step {
                step,
                loss,
                tokens,
                micros,
                ..
            } => {
                self.steps = step + 1;
                self.loss = loss.get();
                self.tokens += tokens;
                self.time += Duration::from_micros(*micros);
                None
            }
            JobEvent::Completed {
                record,
                state,
                audits,
                inconclusive,
            } => Some(Completed {
                record: *record,
                state: *state,
                audits: *audits,
                inconclusive: *inconclusive,
                steps: self.steps,
                loss: self.loss,
                evaluated: self.evaluated,
                tokens_per_second: self.tokens as f64 / self.time.as_secs_f64().max(1e-6),
            }),
            _ => None,
        }
    }
}
