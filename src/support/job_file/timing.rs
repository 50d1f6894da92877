//! How long a job is, and what happens when: known once its sequences are counted.

use anyhow::{Context, bail};
use concord_proto::limits::STEPS_MAX;
use concord_recipe::{Length, Saves, StepsRule, Warmup};

use super::given::GivenJob;
use super::keys::Keys;

/// Steps between two checkpoints of a job whose file does not say it.
const SAVE_STEPS: u64 = 10;

/// The rules by which steps are counted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct JobTiming {
    length: Length,
    warmup: Warmup,
    saves: Saves,
}

/// Steps of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Steps {
    pub steps: u32,
    /// Steps of warm-up.
    pub warmup: u32,
    /// Steps between two checkpoints.
    pub save: u32,
}

impl JobTiming {
    /// The timing of a job file.
    ///
    /// # Errors
    /// Naming the key that is missing, or that contradicts another.
    pub(super) fn read(keys: &Keys, given: &GivenJob) -> anyhow::Result<Self> {
        if let Some(rules) = given.resolved.rules {
            return Ok(Self {
                length: rules.length,
                warmup: rules.warmup,
                saves: rules.saves,
            });
        }
        let length = Length {
            max_steps: keys.whole_if("max_steps")?.map(u64::from),
            num_epochs: keys.exact_if("num_epochs")?,
            max_steps_per_epoch: None,
            rule: StepsRule::Whole,
        };
        if length.max_steps.is_none() && length.num_epochs.is_none() {
            bail!("{}; give it, or `num_epochs`", keys.missing("max_steps"));
        }
        let steps = u64::from(keys.whole("warmup_steps")?);
        let warmup = match keys.exact_if("warmup_ratio")? {
            Some(_) if keys.has("warmup_steps") => {
                return Err(keys.idle("warmup_ratio", "beside `warmup_steps`"));
            }
            Some(share) => Warmup::ShareUp(share),
            None => Warmup::Steps(steps),
        };
        if let Some(most) = length.max_steps.filter(|most| steps > *most) {
            let allowed = format!("a whole number from 0 to {most} (max_steps)");
            return Err(keys.bad("warmup_steps", allowed));
        }
        let saves = Saves::Every(keys.whole_if("save_steps")?.map_or(SAVE_STEPS, u64::from));
        Ok(Self {
            length,
            warmup,
            saves,
        })
    }

    /// The steps, where they do not depend on the data.
    pub fn fixed_steps(&self) -> Option<u64> {
        self.length.max_steps.filter(|_| !self.length.needs_rows())
    }

    /// Steps of a job on so many sequences, with batches of `batch` and steps of `accumulation`
    /// batches.
    ///
    /// # Errors
    /// Where there are none, or too many.
    pub fn settle(&self, sequences: u64, batch: u32, accumulation: u32) -> anyhow::Result<Steps> {
        let (batch, accumulation) = (batch.into(), accumulation.into());
        let steps = self.length.steps(sequences, batch, accumulation);
        let Some(steps) = steps else {
            bail!("the data have {sequences} sequences, too few for a step");
        };
        let whole = |steps: u64| u32::try_from(steps).ok();
        let steps_fit = whole(steps).filter(|steps| *steps <= STEPS_MAX);
        let count = steps_fit
            .with_context(|| format!("the job has {steps} steps; {STEPS_MAX} are the most"))?;
        let warmup = self.warmup.steps(steps);
        Ok(Steps {
            steps: count,
            warmup: whole(warmup).unwrap_or(u32::MAX).min(STEPS_MAX),
            save: whole(self.saves.every(steps, self.length.num_epochs))
                .unwrap_or(STEPS_MAX)
                .min(STEPS_MAX),
        })
    }

    /// Updates from one evaluation to the next, in a job of so many.
    pub fn every(&self, times: Saves, steps: u32) -> u32 {
        let every = times.every(steps.into(), self.length.num_epochs);
        u32::try_from(every)
            .unwrap_or(STEPS_MAX)
            .clamp(1, STEPS_MAX)
    }

    /// The epochs, where the steps depend on them.
    pub fn epochs(&self) -> Option<f64> {
        self.length.num_epochs.filter(|_| self.length.needs_rows())
    }
}
