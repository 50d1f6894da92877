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
    /// Whether checkpoints are also written as folders.
    has_folders: bool,
}

/// Steps of a job.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Steps {
    pub steps: u32,
    /// Steps of warm-up.
    pub warmup: u32,
    /// Steps between two checkpoints.
    pub save: u32,
    /// Whether checkpoints are also written as folders in `output_dir`.
    pub has_folders: bool,
    /// How often the data are gone through.
    pub epochs: f64,
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
                has_folders: rules.saves != Saves::Never,
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
        let (saves, has_folders) = saves(keys)?;
        Ok(Self {
            has_folders,
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
        let (batch, accumulation): (u64, u64) = (batch.into(), accumulation.into());
        let steps = self.length.steps(sequences, batch, accumulation);
        let Some(steps) = steps else {
            bail!("the data have {sequences} sequences, too few for a step");
        };
        let whole = |steps: u64| u32::try_from(steps).ok();
        let steps_fit = whole(steps).filter(|steps| *steps <= STEPS_MAX);
        let count = steps_fit
            .with_context(|| format!("the job has {steps} steps; {STEPS_MAX} are the most"))?;
        let warmup = self.warmup.steps(steps);
        let of_step = batch as f64 * accumulation as f64;
        let passes = steps as f64 * of_step / sequences as f64;
        // With a limit of steps the data may be gone through less often than was asked for.
        let asked = self
            .length
            .num_epochs
            .filter(|_| self.length.max_steps.is_none());
        let epochs = asked.unwrap_or(passes);
        Ok(Steps {
            steps: count,
            warmup: whole(warmup).unwrap_or(u32::MAX).min(STEPS_MAX),
            save: whole(self.saves.every(steps, Some(epochs)))
                .unwrap_or(STEPS_MAX)
                .min(STEPS_MAX),
            has_folders: self.has_folders,
            epochs,
        })
    }

    /// Updates from one evaluation to the next.
    pub fn every(&self, times: Saves, steps: &Steps) -> u32 {
        let every = times.every(steps.steps.into(), Some(steps.epochs));
        u32::try_from(every)
            .unwrap_or(STEPS_MAX)
            .clamp(1, STEPS_MAX)
    }

    /// The epochs, where the steps depend on them.
    pub fn epochs(&self) -> Option<f64> {
        self.length.num_epochs.filter(|_| self.length.needs_rows())
    }
}

/// When an own job file asks for checkpoints, and whether they become folders.
fn saves(keys: &Keys) -> anyhow::Result<(Saves, bool)> {
    // The key has a default, which is not what was asked for.
    let steps = match keys.has("save_steps") {
        true => Some(keys.whole("save_steps")?),
        false => None,
    };
    let often = keys.exact_if("saves_per_epoch")?;
    if often.is_some() && steps.is_some() {
        return Err(keys.idle("saves_per_epoch", "beside `save_steps`"));
    }
    let by_number = match often {
        Some(often) => Saves::PerEpoch(often),
        None => Saves::Every(steps.map_or(SAVE_STEPS, u64::from)),
    };
    // Without folders, an interrupted job still goes on from its checkpoints.
    let strategies = [
        (by_number, true),
        (Saves::PerEpoch(1.0), true),
        (by_number, false),
    ];
    let found = keys.word("save_strategy", &strategies)?;
    let given = ["save_steps", "saves_per_epoch"];
    match given.into_iter().find(|key| keys.has(key)) {
        Some(key) if found != (by_number, found.1) => {
            Err(keys.idle(key, "with `save_strategy: epoch`"))
        }
        _ => Ok(found),
    }
}
