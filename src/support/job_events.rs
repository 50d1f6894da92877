//! The events of a job as lines of text, and as JSON objects.

use concord_proto::client::JobEvent;
use concord_proto::{Plan, Slot, WorkerId};
use serde_json::{Value, json};

use crate::support::layers::ends;
use crate::support::output::counted;

/// The loss on held-out sequences before the first step, if that is what an event tells.
pub fn base_loss(event: &JobEvent) -> Option<f32> {
    match event {
        JobEvent::Evaluated { step: 0, loss, .. } => Some(loss.get()),
        _ => None,
    }
}

/// An event as a line of text; `None` for events that the progress bar shows. `base` is the
/// [`base_loss`] of the job, where it is known.
pub fn describe(event: &JobEvent, base: Option<f32>) -> Option<String> {
    match event {
        JobEvent::Waiting(what) => Some(format!("waiting: {what}")),
        JobEvent::Planned {
            plan,
            devices,
            step,
            reason,
            // The prediction counts only matrix products: it compares plans, but is no estimate of
            // time.
            predicted_step_us: _,
        } => {
            let mut lines = format!(
                "plan {} ({reason}): {} x {} from step {}",
                plan.epoch,
                counted(plan.stages.len() as u64, "stage"),
                counted(plan.replicas.len() as u64, "replica"),
                step + 1
            );
            for ((slot, worker), device) in plan.workers().zip(devices) {
                let layers = plan.stages[slot.stage];
                let run = &plan.replicas[slot.replica];
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
        _ => evaluated(event, base),
    }
}

/// What was found on held-out sequences, as a line of text.
fn evaluated(event: &JobEvent, base: Option<f32>) -> Option<String> {
    match event {
        JobEvent::Evaluated {
            step,
            loss,
            is_best,
            ..
        } => {
            let loss = loss.get();
            let worse = base.filter(|base| *step > 0 && loss > *base);
            let standing = match (worse, is_best) {
                (Some(base), true) => {
                    format!(", the lowest after a step, and above {base:.4} before the first step")
                }
                (None, true) => ", the lowest so far".to_string(),
                (_, false) => String::new(),
            };
            Some(format!("step {step}: eval_loss {loss:.4}{standing}"))
        }
        JobEvent::Stopped {
            step,
            best_step,
            best_loss,
        } => Some(format!(
            "stopped early after step {step}: the lowest eval_loss is {:.4}, of step {best_step} \
             (early_stopping_patience)",
            best_loss.get()
        )),
        _ => None,
    }
}

/// The workers of a plan, and what each holds.
fn slots_as_json(plan: &Plan, devices: &[String]) -> Vec<Value> {
    let slot = |((slot, worker), device): ((Slot, WorkerId), &String)| {
        let (layers, run) = (plan.stages[slot.stage], &plan.replicas[slot.replica]);
        json!({
            "worker": worker.to_string(), "device": device,
            "layers": ends(layers), "microbatches": [run.start, run.end],
        })
    };
    plan.workers().zip(devices).map(slot).collect()
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
                "predicted_step_us": predicted_step_us, "workers": slots_as_json(plan, devices),
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
        JobEvent::Evaluated { .. } | JobEvent::Stopped { .. } => evaluated_as_json(event),
        JobEvent::Lost { worker, reason } => {
            json!({ "event": "lost", "worker": worker.to_string(), "reason": reason })
        }
        JobEvent::Audited {
            worker,
            checker,
            step,
            evaluation,
            leaf,
        } => json!({
            "event": "audited", "worker": worker.to_string(), "checker": checker.to_string(),
            "step": step, "evaluation": evaluation, "leaf": leaf,
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
        JobEvent::Saved { steps, state } => {
            json!({ "event": "saved", "step": steps, "state": state.to_string() })
        }
    }
}

/// What was found on held-out sequences, as a JSON object; null for other events.
fn evaluated_as_json(event: &JobEvent) -> Value {
    match event {
        JobEvent::Evaluated {
            step,
            loss,
            is_best,
            tokens,
            micros,
            record,
        } => json!({
            "event": "evaluation", "step": step, "eval_loss": loss.get(), "is_best": is_best,
            "tokens": tokens, "micros": micros, "record_digest": record.to_string(),
        }),
        JobEvent::Stopped {
            step,
            best_step,
            best_loss,
        } => json!({
            "event": "stopped_early", "step": step, "best_step": best_step,
            "best_eval_loss": best_loss.get(),
        }),
        _ => Value::Null,
    }
}

/// A step as a line; `left` is how many seconds the remaining steps are expected to take. Empty for
/// other events.
pub fn step_line(event: &JobEvent, steps: u32, left: Option<f64>) -> String {
    let JobEvent::Step {
        step,
        loss,
        grad_norm,
        learning_rate,
        tokens,
        micros,
        ..
    } = event
    else {
        return String::new();
    };
    let rate = *tokens as f64 / (*micros as f64 / 1e6).max(1e-6);
    let width = steps.to_string().len();
    let mut line = format!(
        "{:>width$}/{steps}  loss {:.4}  norm {:.3}  lr {:.2e}  {rate:.0} tokens/s",
        step + 1,
        loss.get(),
        grad_norm.get(),
        learning_rate.get()
    );
    if let Some(left) = left {
        line += &format!("  eta {}", duration(left));
    }
    line
}

/// A duration as text, in its two largest units.
fn duration(seconds: f64) -> String {
    let seconds = seconds.max(0.0).round() as u64;
    let (minutes, hours, days) = (seconds / 60, seconds / 3_600, seconds / 86_400);
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3_600 => format!("{minutes}m {:02}s", seconds % 60),
        3_600..86_400 => format!("{hours}h {:02}m", minutes % 60),
        _ => format!("{days}d {:02}h", hours % 24),
    }
}

#[cfg(test)]
mod tests {
    use concord_proto::Digest;

    use super::*;

    fn step(step: u32, steps_of_us: u64) -> JobEvent {
        JobEvent::Step {
            step,
            loss: 10.123_456.into(),
            grad_norm: 123.456_78.into(),
            learning_rate: 1.25e-4.into(),
            tokens: 1_048_576,
            micros: steps_of_us,
            record: Digest([1; 32]),
        }
    }

    #[test]
    fn durations_have_two_units() {
        let cases = [
            (0.4, "0s"),
            (59.4, "59s"),
            (200.0, "3m 20s"),
            (3_660.0, "1h 01m"),
            (90_000.0, "1d 01h"),
        ];
        for (seconds, expected) in cases {
            assert_eq!(duration(seconds), expected);
        }
    }

    #[test]
    fn a_loss_above_that_of_the_base_is_not_called_the_lowest() {
        let evaluated = |step, loss: f32| JobEvent::Evaluated {
            step,
            loss: loss.into(),
            is_best: step > 0,
            tokens: 1,
            micros: 1,
            record: Digest([1; 32]),
        };
        let base = base_loss(&evaluated(0, 6.4935));
        assert_eq!(base, Some(6.4935));
        assert_eq!(base_loss(&evaluated(1, 6.4935)), None);
        let words = |loss, base| describe(&evaluated(1, loss), base).unwrap();
        let worse = "step 1: eval_loss 6.5628, the lowest after a step, and above 6.4935 before \
                     the first step";
        assert_eq!(words(6.5628, base), worse);
        let better = "step 1: eval_loss 6.0000, the lowest so far";
        assert_eq!([words(6.0, base), words(6.0, None)], [better, better]);
    }

    #[test]
    fn a_step_is_a_line_with_its_loss() {
        assert_eq!(
            step_line(&step(11, 500_000), 300, Some(61.0)),
            " 12/300  loss 10.1235  norm 123.457  lr 1.25e-4  2097152 tokens/s  eta 1m 01s"
        );
        assert_eq!(step_line(&JobEvent::Cancelled, 300, None), "");
    }
}
