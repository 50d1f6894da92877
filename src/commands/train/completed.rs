//! What comes of a job that is done, from its events.

use std::time::Duration;

use concord_proto::Digest;
use concord_proto::client::JobEvent;
use serde_json::{Value, json};

use crate::support::output::counted;

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
    /// That before the first step, where there is one.
    pub base: Option<f32>,
    /// The last one.
    pub last: f32,
    /// The lowest one after a step, and the steps before it.
    pub best: (f32, u32),
}

impl Evaluated {
    /// Says it in the result of a job: `eval_loss` is that of the state that comes out.
    pub fn tell(&self, result: &mut Value, keeps_best: bool, is_early: bool) {
        let (lowest, step) = self.best;
        let of_result = if keeps_best { lowest } else { self.last };
        result["eval_loss"] = json!(of_result);
        result["last_eval_loss"] = json!(self.last);
        result["best_eval_loss"] = json!(lowest);
        result["best_step"] = json!(step);
        result["stopped_early"] = json!(is_early);
        // Of several equal ones the first is the best, and the last has no lower loss.
        result["is_best"] = json!(keeps_best || of_result <= lowest);
        result["keeps_best"] = json!(keeps_best);
        if let Some(base) = self.base {
            result["base_eval_loss"] = json!(base);
        }
    }
}

/// What the result of a job says of held-out sequences, as a part of a sentence; empty where it
/// says nothing.
fn evaluated_in_words(result: &Value) -> String {
    let number = |key: &str| result[key].as_f64();
    let (Some(own), Some(lowest)) = (number("eval_loss"), number("best_eval_loss")) else {
        return String::new();
    };
    let step = &result["best_step"];
    let mut words = match (result["keeps_best"].as_bool(), number("last_eval_loss")) {
        (Some(true), Some(last)) => format!(
            ", eval_loss {own:.4} (that of the state after step {step}, which is the result; after \
             the last step {last:.4})"
        ),
        _ => format!(", eval_loss {own:.4} (lowest {lowest:.4}, after step {step})"),
    };
    match number("base_eval_loss") {
        Some(base) if own > base => {
            words += &format!(", which is worse than {base:.4} before the first step");
        }
        Some(base) => words += &format!(", {base:.4} before the first step"),
        None => {}
    }
    words
}

/// Sums over the steps.
#[derive(Default)]
pub struct StepSums {
    steps: u32,
    /// Losses on held-out sequences, by the steps before them.
    evaluations: Vec<(u32, f32)>,
    loss: f32,
    tokens: u64,
    time: Duration,
}

impl StepSums {
    /// Takes in an event. For the last one, returns the outcome.
    pub fn add(&mut self, event: &JobEvent) -> Option<Completed> {
        match event {
            JobEvent::Evaluated { step, loss, .. } => {
                self.evaluations.retain(|(before, _)| before < step);
                self.evaluations.push((*step, loss.get()));
                None
            }
            JobEvent::Voided { from_step } => {
                self.evaluations.retain(|(before, _)| before <= from_step);
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
                evaluated: self.evaluated(),
                tokens_per_second: self.tokens as f64 / self.time.as_secs_f64().max(1e-6),
            }),
            _ => None,
        }
    }

    /// The loss before the first step, once it is known.
    fn base_eval_loss(&self) -> Option<f32> {
        let first = self.evaluations.first().filter(|(step, _)| *step == 0);
        first.map(|(_, loss)| *loss)
    }

    /// The lowest loss is that of an evaluation after a step, where there is one; of several equal
    /// ones the first.
    fn evaluated(&self) -> Option<Evaluated> {
        let (_, last) = *self.evaluations.last()?;
        let after_steps = self.evaluations.iter().filter(|(step, _)| *step > 0);
        let best = after_steps.min_by(|a, b| a.1.total_cmp(&b.1));
        let (step, loss) = *best.or(self.evaluations.last())?;
        Some(Evaluated {
            base: self.base_eval_loss(),
            last,
            best: (loss, step),
        })
    }
}

/// A result as text.
pub fn in_words(result: &Value) -> String {
    let text = |key: &str| result[key].as_str().unwrap_or_default();
    let number = |key: &str| result[key].as_f64().unwrap_or_default();
    let count = |key: &str, noun: &str| counted(result[key].as_u64().unwrap_or_default(), noun);
    let unaudited = match (result["audits"].as_u64(), result["inconclusive"].as_u64()) {
        (Some(0), Some(1..)) => {
            "\nwarning: no checker could audit any of the work that was drawn: the proof shows who \
             signed what, and not that it is right"
        }
        (Some(0), _) => {
            "\nwarning: no work was drawn for an audit (--audit-rate): the proof shows who signed \
             what, and not that it is right"
        }
        _ => "",
    };
    let evaluated = evaluated_in_words(result);
    format!(
        "done: {}, loss {:.4}{evaluated}, {:.0} tokens/s, {} agreed{}{unaudited}\nhash   {}\n\
         output {}\nproof  {}  (check it with `concord verify {}{}`)",
        count("steps", "step"),
        number("loss"),
        number("tokens_per_second"),
        count("audits", "audit"),
        match result["inconclusive"].as_u64().unwrap_or_default() {
            0 => String::new(),
            count => format!(", {count} could not be re-run"),
        },
        text("record_digest"),
        text("output_dir"),
        text("bundle"),
        text("bundle"),
        match result["auditor"].as_str() {
            Some(key) => format!(" --checker {key}"),
            None => String::new(),
        }
    )
}
