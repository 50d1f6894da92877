//! Writes checkpoints into the output folder, as folders that transformers and PEFT load.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Context;
use concord_kernels::Tensor;
use concord_models::export;
use concord_proto::client::{ClientRequest, JobEvent};
use concord_proto::{Digest, JobId, JobSpec};
use concord_runtime::RuntimeError;
use serde_json::{Value, json};

use super::output_dir::OutputDir;
use super::output_dir::log::StepLog;
use super::{Run, result};
use crate::support::client::Client;
use crate::support::ingest::Ingested;
use crate::support::job_file::{JobFile, Steps};
use crate::support::output::{Output, in_words};
use crate::support::result_names::TRAINER_STATE;

/// How many checkpoints wait at the coordinator for this command.
pub fn most_kept(job: &JobFile, steps: &Steps) -> u32 {
    match (steps.has_folders, job.save_total_limit) {
        (false, _) => 0,
        (true, 0) => u32::MAX,
        // One more, so that none is dropped while it is fetched.
        (true, limit) => limit.saturating_add(1),
    }
}

/// Writes the checkpoints of a job as it is watched. One that cannot be written is reported, and
/// the training goes on.
pub struct Saver<'a> {
    url: &'a str,
    id: JobId,
    job: &'a JobFile,
    ingested: &'a Ingested,
    output: &'a Output,
    output_dir: &'a mut OutputDir,
    /// A checkpoint that waits for the evaluation after the same steps, which is a part of its
    /// `trainer_state.json`: the two are told in either order.
    waiting: Option<(u32, Digest)>,
    /// What was reported last.
    complaint: String,
}

impl<'a> Saver<'a> {
    /// For the job of `run`, at the coordinator at `url`.
    pub fn new(url: &'a str, run: &Run<'a>, output_dir: &'a mut OutputDir) -> Self {
        Self {
            url,
            id: run.id,
            job: run.job,
            ingested: run.ingested,
            output: run.output,
            output_dir,
            waiting: None,
            complaint: String::new(),
        }
    }

    /// Takes in an event; `is_news` says that it is not repeated from an earlier run.
    pub async fn take(&mut self, event: &JobEvent, is_news: bool, log: &StepLog) {
        if let JobEvent::Saved { steps, state } = event {
            // One of more steps was evaluated: that of fewer waits no longer.
            self.save_waiting(log).await;
            self.waiting = Some((*steps, *state));
        }
        let is_told = self.waiting.is_some_and(|(steps, _)| {
            let goes_on = matches!(event, JobEvent::Step { step, .. } if *step >= steps);
            let is_end = matches!(event, JobEvent::Completed { .. } | JobEvent::Failed(_));
            goes_on || is_end || !self.is_evaluated(steps) || log.has_evaluation(steps)
        });
        if is_told {
            self.save_waiting(log).await;
        }
        // An older event may be about a checkpoint that was since written again.
        if let JobEvent::Voided { from_step } = event
            && is_news
        {
            self.waiting = self.waiting.filter(|(steps, _)| steps <= from_step);
            let done = self.void(*from_step);
            self.tell(*from_step, done);
        }
    }

    /// Whether the loss is taken after so many steps.
    fn is_evaluated(&self, steps: u32) -> bool {
        let spec = &self.ingested.spec;
        let is_due = |every: u32| steps == spec.steps || (every > 0 && steps.is_multiple_of(every));
        spec.evaluation
            .is_some_and(|evaluation| is_due(evaluation.every))
    }

    async fn save_waiting(&mut self, log: &StepLog) {
        if let Some((steps, state)) = self.waiting.take() {
            let done = self.save(steps, state, log).await;
            self.tell(steps, done);
        }
    }

    /// Reports what could not be done.
    fn tell(&mut self, steps: u32, done: anyhow::Result<()>) {
        if let Err(why) = done {
            // What is there of it frees its room; the next start tries again.
            let _ = self.output_dir.forget_staging();
            let why = in_words(&why);
            if why != self.complaint {
                eprintln!("checkpoint of step {steps}: {why}; the training goes on");
                self.complaint = why;
            }
        }
    }

    /// Removes checkpoints of steps that are void.
    fn void(&mut self, from: u32) -> anyhow::Result<()> {
        let all = self.output_dir.checkpoints().into_iter();
        all.filter(|steps| *steps > from)
            .try_for_each(|steps| self.output_dir.remove_checkpoint(steps))
    }

    async fn save(&mut self, steps: u32, state: Digest, log: &StepLog) -> anyhow::Result<()> {
        let client = Client::connect(self.url).await?;
        let word = state.to_string();
        let is_best = best_step(&self.ingested.spec, log) == Some(steps);
        if (is_best || self.is_wanted(steps)) && !self.output_dir.has_checkpoint(steps, &word) {
            let tensors = match result::fetch_values(&client, &self.ingested.spec, state).await {
                // A newer one has taken its place, or an earlier run had it and deleted it since.
                Err(why) if is_gone(&why) => return Ok(()),
                tensors => tensors?,
            };
            // The coordinator may be in this process, and goes on meanwhile.
            tokio::task::block_in_place(|| self.write(steps, &word, tensors, log))?;
            let dir = self.output_dir.checkpoint_dir(steps);
            let object = json!({ "event": "checkpoint", "step": steps, "folder": dir });
            self.output.result("", &object);
        }
        let job = self.id;
        client.call(&ClientRequest::Fetched { job, steps }).await?;
        self.rotate(best_step(&self.ingested.spec, log))
    }

    fn write(
        &mut self,
        steps: u32,
        state: &str,
        tensors: BTreeMap<String, Tensor>,
        log: &StepLog,
    ) -> anyhow::Result<()> {
        let staging = self.output_dir.checkpoint_staging()?;
        result::save_weights(&staging, self.job, self.ingested, tensors)?;
        self.write_state(&staging, steps, log)?;
        self.output_dir.place_checkpoint(&staging, steps, state)
    }

    /// Whether a checkpoint would be kept: not where enough newer ones are there.
    fn is_wanted(&self, steps: u32) -> bool {
        let newer = self.output_dir.checkpoints().into_iter();
        let newer = newer.filter(|other| *other > steps).count();
        match self.job.save_total_limit {
            0 => true,
            limit => newer < limit as usize,
        }
    }

    /// Deletes the oldest checkpoints beyond those that are kept.
    fn rotate(&mut self, best: Option<u32>) -> anyhow::Result<()> {
        let all = self.output_dir.checkpoints();
        let mut old = superfluous(&all, self.job.save_total_limit, best).into_iter();
        old.try_for_each(|steps| self.output_dir.remove_checkpoint(steps))
    }

    fn write_state(&self, folder: &Path, steps: u32, log: &StepLog) -> anyhow::Result<()> {
        let state = trainer_state(self.ingested, self.job, steps, &log.history(steps));
        let text = serde_json::to_string_pretty(&state).context(TRAINER_STATE)?;
        let path = folder.join(TRAINER_STATE);
        export::replace_file(&path, |out| writeln!(out, "{text}"))?;
        Ok(())
    }
}

/// Steps before the best evaluation so far, where the job keeps that state.
fn best_step(spec: &JobSpec, log: &StepLog) -> Option<u32> {
    spec.evaluation.filter(|evaluation| evaluation.keep_best)?;
    let history = log.history(u32::MAX);
    let best = history.iter().rfind(|line| line["is_best"] == true)?;
    u32::try_from(best["step"].as_u64()?).ok()
}

/// Those of `all` checkpoints, from the oldest on, that are beyond the limit; 0 is none. The last
/// one and the best one stay, as with transformers.
fn superfluous(all: &[u32], limit: u32, best: Option<u32>) -> Vec<u32> {
    let count = match limit {
        0 => 0,
        limit => all.len().saturating_sub(limit as usize),
    };
    let last = all.last().copied();
    let old = all.iter().copied();
    let old = old.filter(|&steps| Some(steps) != best && Some(steps) != last);
    old.take(count).collect()
}

/// The progress after `steps` steps, with the fields of transformers' `TrainerState`; `history` are
/// the lines of the log. What Concord does not count, such as operations, is 0.
fn trainer_state(ingested: &Ingested, job: &JobFile, steps: u32, history: &[Value]) -> Value {
    let spec = &ingested.spec;
    let held_out = spec.evaluation.map_or(0, |of| of.held_out.sequences());
    let learnt = ingested.sequences.saturating_sub(held_out.into()).max(1);
    let of_step = spec.sequences_per_step() as f64 / learnt as f64;
    let epoch = |steps: u64| steps as f64 * of_step;
    let is_evaluation = |line: &&Value| line["event"] == "evaluation";
    let logged = history.iter().map(|line| {
        let (epoch, step) = (
            epoch(line["step"].as_u64().unwrap_or_default()),
            &line["step"],
        );
        match is_evaluation(&line) {
            true => json!({ "epoch": epoch, "eval_loss": line["eval_loss"], "step": step }),
            false => json!({
                "epoch": epoch, "grad_norm": line["grad_norm"],
                "learning_rate": line["learning_rate"], "loss": line["loss"], "step": step,
            }),
        }
    });
    let logged: Vec<Value> = logged.collect();
    let updates = history.iter().filter(|line| !is_evaluation(line));
    let tokens: u64 = updates.filter_map(|line| line["tokens"].as_u64()).sum();
    let mut best = history.iter().filter(is_evaluation);
    let best = best.rfind(|line| line["is_best"] == true);
    let of_best = |key: &str| best.map_or(Value::Null, |line| line[key].clone());
    let every = spec.evaluation.map_or(500, |evaluation| evaluation.every);
    json!({
        "best_global_step": of_best("step"), "best_metric": of_best("eval_loss"),
        "best_model_checkpoint": null,
        "epoch": epoch(steps.into()), "eval_steps": every, "global_step": steps,
        "is_hyper_param_search": false, "is_local_process_zero": true,
        "is_world_process_zero": true, "log_history": logged, "logging_steps": 1,
        "max_steps": spec.steps, "num_input_tokens_seen": tokens,
        "num_train_epochs": epoch(spec.steps.into()).ceil() as u64,
        "save_steps": ingested.steps.save, "stateful_callbacks": {}, "total_flos": 0.0,
        "train_batch_size": job.micro_batch_size, "trial_name": null, "trial_params": null,
    })
}

fn is_gone(why: &anyhow::Error) -> bool {
    let is_missing = |cause: &(dyn std::error::Error + 'static)| {
        let cause = cause.downcast_ref::<RuntimeError>();
        matches!(cause, Some(RuntimeError::MissingBlob(_)))
    };
    why.chain().any(is_missing)
}

#[cfg(test)]
mod tests {
    use super::superfluous;

    #[test]
    fn the_last_and_the_best_checkpoint_are_never_deleted() {
        let all = [2, 4, 6, 8];
        for (limit, best, old) in [
            (0, None, &[][..]),
            (2, None, &[2, 4]),
            (2, Some(4), &[2, 6]),
            (2, Some(8), &[2, 4]),
            (2, Some(1), &[2, 4]),
            // Both stay, although only one was asked for.
            (1, Some(2), &[4, 6]),
            (1, None, &[2, 4, 6]),
            (9, Some(2), &[]),
        ] {
            assert_eq!(superfluous(&all, limit, best), old, "{limit} {best:?}");
        }
    }
}
