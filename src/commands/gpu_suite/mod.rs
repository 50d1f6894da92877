//! `concord gpu-suite`: whether a GPU gives the bits of the CPU, and how fast it is.

mod bench;
mod ceilings;
mod check;
mod checks;
mod clock;
mod engines;
mod find;
mod hardware;
mod operations;
mod products;
mod record;
mod soak;
mod timing;
mod training;
mod verdict;

use std::hash::{BuildHasher, RandomState};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::bail;
use clap::ValueEnum;
use concord_kernels::Device;
use concord_kernels::conformance;
use serde_json::json;

use crate::support::output::Output;
use check::{Check, Subjects};
use record::Record;
use timing::Timing;

/// Options of `concord gpu-suite`.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  concord gpu-suite
  concord gpu-suite --device cuda:1 --cases attention --seed 7 --skip-timing
  concord gpu-suite --soak 10 --record benches/runs/2026-11-22-h200")]
pub struct GpuSuiteArgs {
    /// "cuda" or "cuda:N".
    #[arg(long, default_value = "cuda:0", value_name = "DEVICE")]
    device: String,
    /// Threads of the CPU that the GPU is compared with; all cores by default.
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    /// "full" has shapes of real models; "small" takes seconds.
    #[arg(long, default_value = "full")]
    size: SuiteSize,
    /// Seed of the random input; by default a random one, which is shown.
    #[arg(long, value_name = "SEED")]
    seed: Option<u64>,
    /// Run only the checks whose names contain this text, or one of several.
    #[arg(long, value_name = "TEXT")]
    cases: Vec<String>,
    /// Only check, without measuring.
    #[arg(long)]
    skip_timing: bool,
    /// Then train for this many minutes, and check memory and hashes.
    #[arg(long, value_name = "MINUTES", allow_negative_numbers = true)]
    soak: Option<f64>,
    /// Write results.json and results.md into this folder.
    #[arg(long, value_name = "DIR")]
    record: Option<PathBuf>,
}

/// How much is checked and timed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum SuiteSize {
    /// Every edge of every operation.
    Small,
    /// Also shapes of real models.
    Full,
}

impl SuiteSize {
    /// The corresponding size of the conformance suite.
    pub fn of_cases(self) -> conformance::CaseSize {
        match self {
            Self::Small => conformance::CaseSize::Small,
            Self::Full => conformance::CaseSize::Full,
        }
    }

    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Small => "small",
            Self::Full => "full",
        }
    }
}

/// Checks the GPU, then times it.
///
/// # Errors
/// Where there is no such GPU, where it fails, and where it differs from the CPU in a single bit.
pub fn run(args: &GpuSuiteArgs, output: &Output) -> anyhow::Result<()> {
    args.soak_time()?;
    let cuda = hardware::open(&args.device)?;
    let subjects = Subjects {
        gpu: Device::Cuda(cuda.clone()),
        cpu: hardware::cpu(args.threads)?,
        with_library: hardware::open_with_library(&args.device)?,
        cuda,
    };
    let seed = args.seed.unwrap_or_else(drawn_seed);
    let header = hardware::SuiteHeader::of(&subjects, seed, args.size);
    output.result(&header.text(), &header.object());
    let mut record = Record::new(header);

    let checks = checks::all(&subjects, args.size, seed, &args.cases);
    if checks.is_empty() {
        bail!(
            "no check has {:?} in its name: there are \"training\", \"rmsnorm\" and many more, \
             which --record writes down",
            args.cases
        );
    }
    let done = args.fill(&mut record, checks, &subjects, output);
    args.keep(&record)?;
    done?;
    let result = json!({
        "event": "result", "checks": record.verdicts.len(), "failed": record.failures().len(),
        "differing": record.differing(),
    });
    output.result(&record.last_line(), &result);
    match record.failures().first() {
        None => Ok(()),
        Some(first) => bail!(
            "{} of {} checks found a difference, first \"{first}\": this GPU must not work on a \
             job. Please report it, with what is above",
            record.failures().len(),
            record.verdicts.len()
        ),
    }
}

impl GpuSuiteArgs {
    /// Runs the checks, then the measurements that were asked for.
    fn fill(
        &self,
        record: &mut Record,
        checks: Vec<Check>,
        subjects: &Subjects,
        output: &Output,
    ) -> anyhow::Result<()> {
        let seed = record.header.seed;
        let repeat = self.repeat(seed);
        verdict::run_all(checks, subjects, &repeat, output, &mut record.verdicts)?;
        self.keep(record)?;
        if !self.skip_timing {
            let timing = Timing::measure(subjects, self.size, output)?;
            output.result(
                &timing.text(),
                &json!({ "event": "timing", "timing": timing }),
            );
            record.timing = Some(timing);
            self.keep(record)?;
        }
        if let Some(time) = self.soak_time()? {
            let soaked = soak::soak(subjects, self.size, seed, time, output)?;
            output.result(&soaked.text(), &json!({ "event": "soak", "soak": soaked }));
            record.soak = Some(soaked);
        }
        Ok(())
    }

    /// Writes the results so far, with `--record`: a failing GPU may end the process.
    fn keep(&self, record: &Record) -> anyhow::Result<()> {
        match &self.record {
            Some(folder) => record.write(folder),
            None => Ok(()),
        }
    }

    fn soak_time(&self) -> anyhow::Result<Option<Duration>> {
        match self.soak {
            None => Ok(None),
            Some(minutes) => match Duration::try_from_secs_f64(minutes * 60.0) {
                Ok(time) if !time.is_zero() => Ok(Some(time)),
                _ => bail!("--soak {minutes}: a number of minutes above 0"),
            },
        }
    }

    /// The command that repeats checks, without the name to be appended.
    fn repeat(&self, seed: u64) -> String {
        format!(
            "concord gpu-suite --device {} --size {} --seed {seed} --skip-timing --cases",
            self.device,
            self.size.name()
        )
    }
}

/// A seed that is short enough to be typed.
fn drawn_seed() -> u64 {
    RandomState::new().hash_one(0u8) >> 40
}
