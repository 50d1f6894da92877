//! A long training, which checks that the hash stays right and the memory flat while the card is
//! hot.

use std::time::{Duration, Instant};

use concord_kernels::Device;
use concord_kernels::cuda::Cuda;
use concord_models::ModelError;
use concord_models::golden::{FineTune, FineTuneKind};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use super::SuiteSize;
use super::check::Subjects;
use super::training;
use crate::support::output::Output;

const ROUND_STEPS: u32 = 20;
const ROUND_STEPS_SMALL: u32 = 3;

/// The outcome of a soak. It trains the same models again and again, so that all rounds of a kind
/// must have the same hash.
#[derive(Clone, Debug, Serialize)]
pub struct Soaked {
    /// Seconds that the GPU trained.
    pub seconds: f64,
    /// Complete fine-tunes.
    pub rounds: u32,
    pub steps: u32,
    /// Rounds whose hash is not the CPU's.
    pub wrong_rounds: u32,
    /// Most bytes that the pool held in the first round of each kind.
    pub first_bytes: u64,
    /// Most bytes that it held after that.
    pub later_bytes: u64,
}

impl Soaked {
    /// Whether the hashes are right and the memory is flat.
    pub fn is_good(&self) -> bool {
        self.wrong_rounds == 0 && self.is_flat()
    }

    /// Whether the memory is flat.
    fn is_flat(&self) -> bool {
        self.later_bytes <= self.first_bytes
    }

    /// As text.
    pub fn text(&self) -> String {
        let memory = match self.is_flat() {
            true => format!("memory flat at {} MiB", self.first_bytes >> 20),
            false => format!(
                "MEMORY GROWS from {} to {} bytes",
                self.first_bytes, self.later_bytes
            ),
        };
        let hashes = match self.wrong_rounds {
            0 => "every hash the CPU's".to_string(),
            wrong => format!("{wrong} HASHES DIFFER from the CPU's"),
        };
        format!(
            "soak: {:.0} s, {} fine-tunes of {} steps in all, {hashes}, {memory}",
            self.seconds, self.rounds, self.steps
        )
    }
}

/// Trains for `time`, and to the end of the round that is running then.
///
/// # Errors
/// Where a device fails.
pub fn soak(
    subjects: &Subjects,
    size: SuiteSize,
    seed: u64,
    time: Duration,
    output: &Output,
) -> anyhow::Result<Soaked> {
    let steps = match size {
        SuiteSize::Small => ROUND_STEPS_SMALL,
        SuiteSize::Full => ROUND_STEPS,
    };
    let fits = FineTuneKind::ALL.map(|kind| training::fit(size, seed, kind));
    let mut expected = Vec::new();
    for fit in &fits {
        expected.push(digest(fit, &subjects.cpu, steps, &mut || {})?);
    }
    let bar = bar(time, output)?;
    let start = Instant::now();
    let mut soaked = Soaked {
        seconds: 0.0,
        rounds: 0,
        steps: 0,
        wrong_rounds: 0,
        first_bytes: 0,
        later_bytes: 0,
    };
    let kinds = fits.len() as u32;
    // Each kind runs at least twice: the first run shows how much memory it needs.
    while start.elapsed() < time || soaked.rounds < 2 * kinds {
        let kind = (soaked.rounds % kinds) as usize;
        let mut held_max = 0;
        let digest = digest(&fits[kind], &subjects.gpu, steps, &mut || {
            held_max = held_max.max(held(&subjects.cuda));
            bar.set_position(start.elapsed().as_secs());
        })?;
        let most = match soaked.rounds < kinds {
            true => &mut soaked.first_bytes,
            false => &mut soaked.later_bytes,
        };
        *most = held_max.max(*most);
        soaked.wrong_rounds += u32::from(digest != expected[kind]);
        soaked.rounds += 1;
        soaked.steps += steps;
    }
    soaked.seconds = start.elapsed().as_secs_f64();
    bar.finish_and_clear();
    Ok(soaked)
}

/// Bytes that the pool has taken from the card.
fn held(cuda: &Cuda) -> u64 {
    let report = cuda.memory();
    report.in_use() + report.cached
}

/// The digest after `steps` steps; `each` is called after each of them.
fn digest(
    fit: &FineTune,
    device: &Device,
    steps: u32,
    each: &mut dyn FnMut(),
) -> Result<String, ModelError> {
    let mut run = fit.start(device)?;
    for _ in 0..steps {
        run.step()?;
        each();
    }
    Ok(run.digest()?)
}

fn bar(time: Duration, output: &Output) -> anyhow::Result<ProgressBar> {
    if output.is_json() {
        return Ok(ProgressBar::hidden());
    }
    let style = ProgressStyle::with_template("{bar:30} soak {elapsed} of {msg}")?;
    let minutes = format!("{:.1} min", time.as_secs_f64() / 60.0);
    Ok(ProgressBar::new(time.as_secs())
        .with_style(style)
        .with_message(minutes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn growth_and_wrong_hashes_are_failures() {
        let good = Soaked {
            seconds: 1.0,
            rounds: 4,
            steps: 12,
            wrong_rounds: 0,
            first_bytes: 5 << 20,
            later_bytes: 4 << 20,
        };
        assert!(good.is_good());
        assert!(
            good.text().contains("memory flat at 5 MiB"),
            "{}",
            good.text()
        );
        let grown = Soaked {
            later_bytes: (5 << 20) + 1,
            ..good.clone()
        };
        assert!(!grown.is_good() && grown.text().contains("MEMORY GROWS"));
        let wrong = Soaked {
            wrong_rounds: 1,
            ..good
        };
        assert!(!wrong.is_good() && wrong.text().contains("1 HASHES DIFFER"));
    }
}
