//! What is held out of the data, when the loss on it is taken, and what follows from losses.

use anyhow::bail;
use concord_data::DatasetSource;
use concord_proto::limits::MICROBATCHES_MAX;
use concord_proto::{EvaluationSpec, HeldOut, LossLimit, Patience};
use concord_recipe::Saves;

use super::datasets;
use super::given::GivenJob;
use super::keys::Keys;
use super::timing::{JobTiming, Steps};

/// Keys that say how the loss on held-out rows is taken.
const OF_EVALUATION: [&str; 7] = [
    "eval_steps",
    "evals_per_epoch",
    "eval_batch_size",
    "eval_on_start",
    "load_best_model_at_end",
    "early_stopping_patience",
    "early_stopping_threshold",
];

/// Rows that no step learns from.
#[derive(Clone, Debug, PartialEq)]
pub enum HeldRows {
    /// This share of the data sets, rounded up.
    Share(f64),
    /// So many of the data sets.
    Count(u32),
    /// Data sets of their own.
    Sets(Vec<DatasetSource>),
}

impl HeldRows {
    /// The key of the job file that says so.
    pub fn key(&self) -> &'static str {
        match self {
            Self::Share(_) | Self::Count(_) => "val_set_size",
            Self::Sets(_) => "test_datasets",
        }
    }

    /// How many of so many examples are held out.
    pub fn count(&self, examples: u64) -> u64 {
        match self {
            Self::Share(share) => (examples as f64 * share).ceil() as u64,
            Self::Count(count) => u64::from(*count),
            Self::Sets(_) => 0,
        }
    }
}

/// What a job file says about evaluation.
#[derive(Clone, Debug, PartialEq)]
pub struct Evaluation {
    pub rows: HeldRows,
    times: Saves,
    batch: Option<u32>,
    at_start: bool,
    keeps_best: bool,
    patience: Option<Patience>,
}

impl Evaluation {
    /// Reads the keys; `None` where nothing is held out.
    ///
    /// # Errors
    /// Naming a key that has no effect, or contradicts another.
    pub(super) fn read(keys: &Keys, given: &GivenJob) -> anyhow::Result<Option<Self>> {
        let Some(rows) = rows(keys)? else {
            let flags = ["eval_on_start", "load_best_model_at_end"];
            for key in OF_EVALUATION.into_iter().filter(|key| keys.has(key)) {
                if !flags.contains(&key) || keys.flag(key)? {
                    return Err(keys.idle(key, "without `val_set_size` or `test_datasets`"));
                }
            }
            return Ok(None);
        };
        let evaluations = keys.whole_if("early_stopping_patience")?;
        if evaluations.is_none() && keys.has("early_stopping_threshold") {
            let because = "without `early_stopping_patience`";
            return Err(keys.idle("early_stopping_threshold", because));
        }
        let threshold = keys.number("early_stopping_threshold")?.into();
        Ok(Some(Self {
            rows,
            times: times(keys, given)?,
            batch: keys.whole_if("eval_batch_size")?,
            at_start: keys.flag("eval_on_start")?,
            keeps_best: keys.flag("load_best_model_at_end")?,
            patience: evaluations.map(|evaluations| Patience {
                evaluations,
                threshold,
            }),
        }))
    }

    /// In the form of the job spec. Microbatches are as large as those that are learnt, or larger
    /// where there would be too many.
    pub fn spec(
        &self,
        held_out: HeldOut,
        micro_batch_size: u32,
        timing: &JobTiming,
        steps: &Steps,
    ) -> EvaluationSpec {
        let least = held_out.sequences().div_ceil(MICROBATCHES_MAX);
        EvaluationSpec {
            held_out,
            micro_batch_size: self.batch.unwrap_or(micro_batch_size.max(least)),
            every: timing.every(self.times, steps),
            at_start: self.at_start,
            patience: self.patience,
            keep_best: self.keeps_best,
        }
    }
}

fn rows(keys: &Keys) -> anyhow::Result<Option<HeldRows>> {
    let size = keys.exact_if("val_set_size")?.filter(|size| *size > 0.0);
    let sets = match keys.has("test_datasets") {
        true => Some(datasets::entries(keys, "test_datasets")?),
        false => None,
    };
    match (size, sets) {
        (None, None) => Ok(None),
        (Some(share), None) if share < 1.0 => Ok(Some(HeldRows::Share(share))),
        (Some(count), None) => Ok(Some(HeldRows::Count(count as u32))),
        (None, Some(sets)) => Ok(Some(HeldRows::Sets(sets))),
        (Some(_), Some(_)) => bail!(
            "{}: `val_set_size` and `test_datasets` both say what is held out; remove one",
            keys.place("val_set_size")
        ),
    }
}

fn times(keys: &Keys, given: &GivenJob) -> anyhow::Result<Saves> {
    if let Some(times) = given.resolved.rules.and_then(|rules| rules.evaluations) {
        return Ok(times);
    }
    let (steps, epochs) = (
        keys.exact_if("eval_steps")?,
        keys.exact_if("evals_per_epoch")?,
    );
    match (steps, epochs) {
        (Some(0.0), _) => bail!(
            "{}: `eval_steps: 0` says nothing: remove it, and there is one evaluation after the \
             last step, or say after how many steps (1 for each)",
            keys.place("eval_steps")
        ),
        (Some(_), Some(_)) => Err(keys.idle("evals_per_epoch", "beside `eval_steps`")),
        (Some(share), None) if share < 1.0 => Ok(Saves::Share(share)),
        (Some(steps), None) => Ok(Saves::Every(steps as u64)),
        (None, Some(_)) if !keys.has("num_epochs") => {
            Err(keys.idle("evals_per_epoch", "without `num_epochs`"))
        }
        (None, Some(times)) => Ok(Saves::PerEpoch(times)),
        (None, None) => Ok(Saves::End),
    }
}

/// The loss at which the job fails.
///
/// # Errors
/// Naming a key that has no effect.
pub(super) fn loss_limit(keys: &Keys) -> anyhow::Result<Option<LossLimit>> {
    let threshold = keys.number_if("loss_watchdog_threshold")?;
    if threshold.is_none() && keys.has("loss_watchdog_patience") {
        let because = "without `loss_watchdog_threshold`";
        return Err(keys.idle("loss_watchdog_patience", because));
    }
    let updates = keys.whole("loss_watchdog_patience")?;
    Ok(threshold.map(|threshold| LossLimit {
        threshold: threshold.into(),
        updates,
    }))
}
