//! Watches a job by the events that its coordinator sends, across reconnects.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use concord_proto::JobId;
use concord_proto::client::JobEvent;
use concord_runtime::Backoff;

use super::completed::{Completed, StepSums};
use super::progress::TrainProgress;
use super::records::Records;
use crate::support::client::{Client, JobEvents};
use crate::support::job_events::as_json;
use crate::support::output::Output;

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

/// Shows the events of a job until it ends, gives them to `records`, and notes its progress in
/// `seen`. Waits for a coordinator that is restarted meanwhile.
///
/// # Errors
/// Where the job fails, is cancelled, or the coordinator stays away.
pub async fn watch(
    url: &str,
    job: JobId,
    steps: u32,
    output: &Output,
    records: &mut Records<'_>,
    seen: &JobSeen,
) -> anyhow::Result<Completed> {
    let mut progress = TrainProgress::new(steps, output);
    let mut sums = StepSums::default();
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
        let is_news = records.take(&event).await;
        progress.show(&event, is_news);
        seen.note(&event);
        match &event {
            JobEvent::Failed(reason) => bail!("the job failed: {reason}"),
            JobEvent::Cancelled => bail!("the job was cancelled; the same command goes on with it"),
            _ => {}
        }
        if let Some(completed) = sums.add(&event) {
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
