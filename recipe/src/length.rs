//! How long a job is: steps from epochs, warm-up and checkpoints, each by the rule of the tool
//! whose file it is. They depend on the number of rows, which is known once the data are read.

use std::fmt;

/// How epochs become steps. Rows are those that are left after dropping and filtering, a batch is
/// `micro_batch_size` rows, a step takes `accumulation` batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StepsRule {
    /// `ceil(rows epochs / (batch accumulation))`, and `max_steps` if that is less: Axolotl and
    /// Concord.
    Whole,
    /// The same of sequences that several rows share, but rounded down: `floor(epochs max(1,
    /// floor(sequences / (batch accumulation))))`: Axolotl with sample_packing.
    WholePacked,
    /// Steps of an epoch are `ceil(ceil(rows / batch) / accumulation)`, of the job `ceil(epochs
    /// steps)`; `max_steps` is taken instead: Hugging Face's trainer.
    PerEpochUp,
    /// Steps of an epoch are `floor(floor(rows / batch) / accumulation)`: torchtune, which drops
    /// what does not fill a batch.
    PerEpochDown,
}

/// The length of a job.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Length {
    /// Steps.
    pub max_steps: Option<u64>,
    /// Passes over the data.
    pub num_epochs: Option<f64>,
    /// Steps after which an epoch ends early.
    pub max_steps_per_epoch: Option<u64>,
    /// How epochs become steps.
    pub rule: StepsRule,
}

impl Length {
    /// The steps of the job; `None` where the rows do not fill one, or neither steps nor epochs
    /// are given.
    pub fn steps(&self, rows: u64, batch: u64, accumulation: u64) -> Option<u64> {
        let (batch, accumulation) = (batch.max(1), accumulation.max(1));
        let by_epochs = self.num_epochs.map(|epochs| match self.rule {
            StepsRule::Whole => {
                (rows as f64 * epochs / batch.saturating_mul(accumulation) as f64).ceil()
            }
            StepsRule::WholePacked => {
                let steps = (rows / batch.saturating_mul(accumulation)).max(1);
                (steps as f64 * epochs).floor()
            }
            StepsRule::PerEpochUp => {
                let steps = rows.div_ceil(batch).div_ceil(accumulation).max(1);
                (self.of_epoch(steps) as f64 * epochs).ceil()
            }
            StepsRule::PerEpochDown => self.of_epoch(rows / batch / accumulation) as f64 * epochs,
        });
        // A float becomes an integer without wrapping.
        let by_epochs = by_epochs.map(|steps| steps as u64);
        let steps = match (self.rule, self.max_steps, by_epochs) {
            (StepsRule::Whole | StepsRule::WholePacked, Some(most), Some(steps)) => {
                Some(steps.min(most))
            }
            (_, Some(steps), _) => Some(steps),
            (_, None, steps) => steps,
        };
        steps.filter(|steps| *steps > 0)
    }

    fn of_epoch(&self, steps: u64) -> u64 {
        self.max_steps_per_epoch
            .map_or(steps, |most| steps.min(most))
    }

    /// Whether the rows must be counted first.
    pub fn needs_rows(&self) -> bool {
        match self.rule {
            StepsRule::Whole | StepsRule::WholePacked => self.num_epochs.is_some(),
            _ => self.max_steps.is_none(),
        }
    }
}

/// Steps of warm-up.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Warmup {
    /// So many.
    Steps(u64),
    /// This share of the job, rounded up: Hugging Face's trainer.
    ShareUp(f64),
    /// This share, rounded down; 1 becomes 2: Axolotl.
    ShareDown(f64),
    /// 3 % of the job, rounded down, 100 at most; 1 becomes 2: Axolotl without a key.
    Axolotl,
}

impl Warmup {
    /// Steps of warm-up of a job of `steps` steps.
    pub fn steps(&self, steps: u64) -> u64 {
        let not_one = |warmup: u64| if warmup == 1 { 2 } else { warmup };
        match self {
            Self::Steps(warmup) => *warmup,
            Self::ShareUp(share) => (steps as f64 * share).ceil() as u64,
            Self::ShareDown(share) => not_one((steps as f64 * share) as u64),
            Self::Axolotl => not_one(((steps as f64 * 0.03) as u64).min(100)),
        }
    }
}

/// When checkpoints are written, or the model is evaluated.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Saves {
    /// After so many steps, again and again.
    Every(u64),
    /// So often in each epoch.
    PerEpoch(f64),
    /// After this share of the job, again and again.
    Share(f64),
    /// At the end alone.
    End,
    /// None, but for those that a job needs to go on.
    Never,
}

/// Steps between checkpoints where a job has no epochs to count by.
const SAVE_STEPS: u64 = 500;

impl Saves {
    /// Steps between two checkpoints of a job of `steps` steps in `epochs` epochs; the last step is
    /// always one. Also a job that is to write none has some, to go on after an interruption.
    pub fn every(&self, steps: u64, epochs: Option<f64>) -> u64 {
        let share = match (self, epochs) {
            (Self::Every(every), _) => return (*every).max(1),
            (Self::End, _) => 1.0,
            (Self::Never, _) => return SAVE_STEPS.min(steps.max(1)),
            (Self::Share(share), _) => *share,
            (Self::PerEpoch(times), Some(epochs)) => 1.0 / (times * epochs),
            (Self::PerEpoch(_), None) => return SAVE_STEPS.min(steps.max(1)),
        };
        ((steps as f64 * share).ceil() as u64).clamp(1, steps.max(1))
    }
}

impl fmt::Display for Warmup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Steps(steps) => write!(f, "{steps}"),
            Self::ShareUp(share) => write!(f, "{share} of the steps, rounded up"),
            Self::ShareDown(share) => write!(f, "{share} of the steps, rounded down; 1 becomes 2"),
            Self::Axolotl => {
                f.write_str("0.03 of the steps, rounded down, 100 at most; 1 becomes 2")
            }
        }
    }
}

impl fmt::Display for Saves {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Every(steps) => write!(f, "{steps}"),
            Self::PerEpoch(times) => write!(f, "{times} times an epoch"),
            Self::Share(share) => write!(f, "{share} of the steps"),
            Self::End => f.write_str("the last step alone"),
            Self::Never => f.write_str("no folders of checkpoints"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn length(rule: StepsRule, epochs: f64) -> Length {
        Length {
            max_steps: None,
            num_epochs: Some(epochs),
            max_steps_per_epoch: None,
            rule,
        }
    }

    #[test]
    fn epochs_become_steps_as_each_tool_counts() {
        // 1,001 rows, batches of 4, 8 batches a step: 251 batches, 31.28 steps an epoch.
        let steps = |rule, epochs| length(rule, epochs).steps(1_001, 4, 8);
        assert_eq!(steps(StepsRule::Whole, 3.0), Some(94));
        assert_eq!(steps(StepsRule::WholePacked, 3.0), Some(93));
        assert_eq!(steps(StepsRule::PerEpochUp, 3.0), Some(96));
        assert_eq!(steps(StepsRule::PerEpochDown, 3.0), Some(93));
        assert_eq!(steps(StepsRule::Whole, 0.5), Some(16));
        assert_eq!(steps(StepsRule::PerEpochUp, 0.5), Some(16));
        // Fewer rows than a step takes.
        assert_eq!(length(StepsRule::Whole, 1.0).steps(3, 4, 8), Some(1));
        assert_eq!(length(StepsRule::PerEpochUp, 2.0).steps(3, 4, 8), Some(2));
        assert_eq!(length(StepsRule::PerEpochDown, 2.0).steps(3, 4, 8), None);
    }

    #[test]
    fn max_steps_is_a_limit_or_wins() {
        let both = |rule, max| Length {
            max_steps: Some(max),
            ..length(rule, 1.0)
        };
        assert_eq!(both(StepsRule::Whole, 10).steps(1_001, 4, 8), Some(10));
        assert_eq!(both(StepsRule::Whole, 99).steps(1_001, 4, 8), Some(32));
        assert_eq!(both(StepsRule::PerEpochUp, 99).steps(1_001, 4, 8), Some(99));
        assert!(both(StepsRule::Whole, 1).needs_rows());
        assert!(!both(StepsRule::PerEpochUp, 1).needs_rows());
        let short = Length {
            max_steps_per_epoch: Some(5),
            ..length(StepsRule::PerEpochDown, 2.0)
        };
        assert_eq!(short.steps(1_001, 4, 8), Some(10));
    }

    #[test]
    fn shares_become_steps_of_warm_up() {
        assert_eq!(Warmup::ShareUp(0.1).steps(94), 10);
        assert_eq!(Warmup::ShareDown(0.1).steps(94), 9);
        assert_eq!(Warmup::ShareDown(0.1).steps(19), 2);
        assert_eq!(Warmup::ShareDown(0.0).steps(19), 0);
        assert_eq!(Warmup::Axolotl.steps(94), 2);
        assert_eq!(Warmup::Axolotl.steps(1_000), 30);
        assert_eq!(Warmup::Axolotl.steps(100_000), 100);
        assert_eq!(Warmup::Steps(7).steps(3), 7);
    }

    #[test]
    fn checkpoints_are_at_least_one_step_apart() {
        assert_eq!(Saves::PerEpoch(4.0).every(94, Some(3.0)), 8);
        assert_eq!(Saves::PerEpoch(1.0).every(94, None), 94);
        assert_eq!(Saves::PerEpoch(1.0).every(9_000, None), 500);
        assert_eq!(Saves::PerEpoch(1_000.0).every(94, Some(3.0)), 1);
        assert_eq!(Saves::Share(0.05).every(94, None), 5);
        assert_eq!(Saves::Never.every(94, None), 94);
        assert_eq!(Saves::Every(500).every(94, None), 500);
    }
}
