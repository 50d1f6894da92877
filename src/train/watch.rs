//! The events of a job, as they come: in words, and as objects for scripts.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use concord_proto::client::JobEvent;
use concord_proto::{Digest, JobId, Plan, Seat, WorkerId};
use concord_runtime::Backoff;
use serde_json::{Value, json};

use super::log::StepLog;
use super::progress::Progress;
use crate::client::{Client, Events};
use crate::output::{Output, counted};

/// What a completed job leaves.
#[derive(Clone, Copy, Debug)]
pub struct Completed {
    /// Digest of the last step record.
    pub record: Digest,
    /// Blob address of the last state.
    pub state: Digest,
    /// Audits that agreed.
    pub audits: u64,
    /// Drawn leaves that could not be judged.
    pub inconclusive: u64,
    /// Mean loss of the last step.
    pub loss: f32,
    /// Tokens a second, over all committed steps.
    pub tokens_per_second: f64,
}

/// What has been seen of a job so far, for those who decide while it is watched.
#[derive(Debug, Default)]
pub struct Seen {
    committed: AtomicU32,
    is_planned: AtomicBool,
    waits: AtomicBool,
}

impl Seen {
    fn note(&self, event: &JobEvent) {
        match event {
            JobEvent::Step { step, .. } => self.committed.store(*step + 1, Ordering::Relaxed),
            JobEvent::Voided { from_step } => self.committed.store(*from_step, Ordering::Relaxed),
            JobEvent::Planned { .. } => self.is_planned.store(true, Ordering::Relaxed),
            JobEvent::Waiting(_) => self.waits.store(true, Ordering::Relaxed),
            _ => {}
        }
    }

    /// Steps that are committed.
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

/// For so long a coordinator that is gone may take to come back.
const RETURN_MAX: Duration = Duration::from_secs(60);

/// Shows the events of a job until it ends, writes its steps to `log`, and notes in `seen` how far it
/// is. A coordinator that is restarted meanwhile is waited for.
///
/// # Errors
/// Where the job fails, is cancelled, or the coordinator stays away.
pub async fn watch(
    url: &str,
    job: JobId,
    steps: u32,
    output: &Output,
    log: &mut StepLog,
    seen: &Seen,
) -> anyhow::Result<Completed> {
    let mut progress = Progress::new(steps, output);
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
            // It was submitted again since: that end was none.
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

/// The events of a job, over as many connections as it takes.
struct EventStream<'a> {
    url: &'a str,
    job: JobId,
    seen: u64,
    events: Option<Events>,
    /// One that was looked at already.
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

    /// Whether anything comes after the end of the job, as it does where it was submitted again.
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

/// What the steps come to.
#[derive(Default)]
struct Sum {
    loss: f32,
    tokens: u64,
    time: Duration,
}

impl Sum {
    /// Takes in an event; the last one gives what the job leaves.
    fn add(&mut self, event: &JobEvent) -> Option<Completed> {
        match event {
            JobEvent::Step {
                loss,
                tokens,
                micros,
                ..
            } => {
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
                loss: self.loss,
                tokens_per_second: self.tokens as f64 / self.time.as_secs_f64().max(1e-6),
            }),
            _ => None,
        }
    }
}

/// An event in a line for people; nothing for those that the bar shows.
pub fn describe(event: &JobEvent) -> Option<String> {
    match event {
        JobEvent::Waiting(what) => Some(format!("waiting: {what}")),
        JobEvent::Planned {
            plan,
            devices,
            step,
            reason,
            // It counts products alone: good for comparing plans, not for telling the time.
            predicted_step_us: _,
        } => {
            let mut lines = format!(
                "plan {} ({reason}): {} x {} from step {}",
                plan.epoch,
                counted(plan.stages.len() as u64, "stage"),
                counted(plan.replicas.len() as u64, "replica"),
                step + 1
            );
            for ((seat, worker), device) in plan.workers().zip(devices) {
                let layers = plan.stages[seat.stage];
                let run = &plan.replicas[seat.replica];
                lines += &format!(
                    "\n  {}  layers {:>2}..{:<2}  microbatches {:>2}..{:<2}  {device}",
                    worker.short(),
                    layers.start,
                    layers.end,
                    run.start,
                    run.end
                );
            }
            Some(lines)
        }
        JobEvent::Lost { worker, reason } => {
            Some(format!("lost worker {}: {reason}", worker.short()))
        }
        JobEvent::Convicted {
            culprit,
            offence,
            evidence,
        } => Some(format!(
            "convicted {}: {}: {evidence}",
            culprit.short(),
            offence.as_str()
        )),
        JobEvent::Voided { from_step } => Some(format!(
            "steps from {} on are void and done again",
            from_step + 1
        )),
        _ => None,
    }
}

/// Who holds what in a plan.
fn seats_as_json(plan: &Plan, devices: &[String]) -> Vec<Value> {
    let seat = |((seat, worker), device): ((Seat, WorkerId), &String)| {
        let (layers, run) = (plan.stages[seat.stage], &plan.replicas[seat.replica]);
        json!({
            "worker": worker.to_string(), "device": device,
            "layers": [layers.start, layers.end], "microbatches": [run.start, run.end],
        })
    };
    plan.workers().zip(devices).map(seat).collect()
}

/// An event as a JSON object.
pub fn as_json(event: &JobEvent) -> Value {
    match event {
        JobEvent::Waiting(what) => json!({ "event": "waiting", "for": what }),
        JobEvent::Planned {
            plan,
            devices,
            predicted_step_us,
            step,
            reason,
        } => {
            json!({
                "event": "planned", "epoch": plan.epoch, "stages": plan.stages.len(),
                "replicas": plan.replicas.len(), "step": step, "reason": reason,
                "predicted_step_us": predicted_step_us, "workers": seats_as_json(plan, devices),
            })
        }
        JobEvent::Step {
            step,
            loss,
            grad_norm,
            learning_rate,
            tokens,
            micros,
            record,
        } => json!({
            "event": "step", "step": step, "loss": loss.get(), "grad_norm": grad_norm.get(),
            "learning_rate": learning_rate.get(), "tokens": tokens, "micros": micros,
            "record_digest": record.to_string(),
        }),
        JobEvent::Lost { worker, reason } => {
            json!({ "event": "lost", "worker": worker.to_string(), "reason": reason })
        }
        JobEvent::Audited {
            worker,
            checker,
            step,
            leaf,
        } => json!({
            "event": "audited", "worker": worker.to_string(), "checker": checker.to_string(),
            "step": step, "leaf": leaf,
        }),
        JobEvent::Convicted {
            culprit,
            offence,
            evidence,
        } => json!({
            "event": "convicted", "culprit": culprit.to_string(), "offence": offence.as_str(),
            "evidence": evidence,
        }),
        JobEvent::Voided { from_step } => json!({ "event": "voided", "from_step": from_step }),
        JobEvent::Completed {
            record,
            state,
            audits,
            inconclusive,
        } => json!({
            "event": "completed", "record_digest": record.to_string(),
            "state": state.to_string(), "audits": audits, "inconclusive": inconclusive,
        }),
        JobEvent::Failed(reason) => json!({ "event": "failed", "reason": reason }),
        JobEvent::Cancelled => json!({ "event": "cancelled" }),
    }
}
