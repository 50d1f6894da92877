//! Runs the checks, and reports the outcome of each.

use std::time::Instant;

use concord_kernels::KernelError;
use concord_kernels::cuda::CudaError;
use concord_models::ModelError;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use serde_json::json;

use super::check::{Check, Subjects};
use super::find::Mismatch;
use crate::support::output::Output;

/// The outcome of a check.
#[derive(Clone, Debug, Serialize)]
pub struct SuiteVerdict {
    /// The check's group.
    pub group: &'static str,
    pub name: String,
    /// Seconds that it took, on both devices.
    pub seconds: f64,
    /// The first difference, if there is one.
    pub finding: Option<Mismatch>,
    /// Why the GPU gave no result, if so.
    pub error: Option<String>,
}

impl SuiteVerdict {
    /// Whether the GPU gave the right bits.
    pub fn is_good(&self) -> bool {
        self.finding.is_none() && self.error.is_none()
    }

    /// How many numbers differ.
    pub fn differing(&self) -> usize {
        self.finding.as_ref().map_or(0, |finding| finding.count)
    }
}

/// Runs all checks with a progress bar, and reports every failure at once and every group at its
/// end. Outcomes are appended to `verdicts`.
///
/// # Errors
/// Where the GPU is lost: nothing can be checked after that.
pub fn run_all(
    checks: Vec<Check>,
    subjects: &Subjects,
    repeat: &str,
    output: &Output,
    verdicts: &mut Vec<SuiteVerdict>,
) -> anyhow::Result<()> {
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len}  {wide_msg}")?;
    let bar = ProgressBar::new(checks.len() as u64).with_style(style);
    let mut group_start = verdicts.len();
    for check in checks {
        if verdicts
            .last()
            .is_some_and(|last| last.group != check.group)
        {
            bar.suspend(|| show_group(&verdicts[group_start..], output));
            group_start = verdicts.len();
        }
        bar.set_message(check.name.clone());
        let verdict = run(&check, subjects)?;
        if !verdict.is_good() {
            bar.suspend(|| show_failure(&verdict, repeat, output));
        }
        verdicts.push(verdict);
        bar.inc(1);
    }
    bar.finish_and_clear();
    show_group(&verdicts[group_start..], output);
    Ok(())
}

fn run(check: &Check, subjects: &Subjects) -> anyhow::Result<SuiteVerdict> {
    let start = Instant::now();
    let (finding, error) = match check.run(subjects) {
        Ok(finding) => (finding, None),
        Err(ModelError::Kernel(error @ KernelError::Cuda(CudaError::Lost { .. }))) => {
            return Err(anyhow::Error::new(error).context(format!("in \"{}\"", check.name)));
        }
        Err(error) => (None, Some(error.to_string())),
    };
    Ok(SuiteVerdict {
        group: check.group,
        name: check.name.clone(),
        seconds: start.elapsed().as_secs_f64(),
        finding,
        error,
    })
}

fn show_failure(verdict: &SuiteVerdict, repeat: &str, output: &Output) {
    let repeat = format!("{repeat} '{}'", verdict.name);
    let what = match (&verdict.finding, &verdict.error) {
        (Some(finding), _) => format!(
            "{} differ; the first at {}: the GPU gives {}, the CPU {}",
            finding.count, finding.place, finding.got, finding.expected
        ),
        (None, Some(error)) => error.clone(),
        (None, None) => return,
    };
    let text = format!("DIFFERS  {}\n  {what}\n  again: {repeat}", verdict.name);
    let object = json!({ "event": "difference", "check": verdict, "repeat": repeat });
    output.result(&text, &object);
}

/// Prints one line that sums up the verdicts of a group.
fn show_group(verdicts: &[SuiteVerdict], output: &Output) {
    let Some(first) = verdicts.first() else {
        return;
    };
    let differing: usize = verdicts.iter().map(SuiteVerdict::differing).sum();
    let failed = verdicts.iter().filter(|verdict| !verdict.is_good()).count();
    let seconds: f64 = verdicts.iter().map(|verdict| verdict.seconds).sum();
    let text = format!(
        "{:<20} {:>5} checks  {failed} failed  {differing} differ  {seconds:.1} s",
        first.group,
        verdicts.len()
    );
    let object = json!({
        "event": "group", "group": first.group, "checks": verdicts.len(), "failed": failed,
        "differing": differing, "seconds": seconds,
    });
    output.result(&text, &object);
}

#[cfg(all(test, feature = "emulator"))]
mod tests {
    use concord_kernels::conformance::difference;
    use concord_kernels::{Device, Tensor};

    use super::*;
    use crate::commands::gpu_suite::hardware;

    fn subjects() -> Subjects {
        let cuda = hardware::open("emulated").unwrap();
        Subjects {
            gpu: Device::Cuda(cuda.clone()),
            cpu: Device::cpu(1),
            with_library: None,
            cuda,
        }
    }

    /// A sum on the GPU of numbers of which `flipped` has one bit more.
    fn sum_of(flipped: u32) -> Check {
        Check::new("sums", format!("sum of {flipped}"), move |subjects| {
            let numbers = |first| Tensor::new(&[3], vec![f32::from_bits(first), 2.0, 4.0]);
            let one = 1.0f32.to_bits();
            let got = subjects.gpu.sum(&numbers(one + flipped)?)?;
            let expected = subjects.cpu.sum(&numbers(one)?)?;
            Ok(difference(&vec![vec![got]], &vec![vec![expected]]).map(Mismatch::from))
        })
    }

    #[test]
    fn a_wrong_bit_is_a_failure_with_its_place() {
        let checks = vec![sum_of(0), sum_of(8)];
        let mut verdicts = Vec::new();
        run_all(
            checks,
            &subjects(),
            "again",
            &Output::new(false),
            &mut verdicts,
        )
        .unwrap();
        assert!(verdicts[0].is_good());
        assert!(!verdicts[1].is_good());
        let finding = verdicts[1].finding.as_ref().unwrap();
        assert_eq!(
            (finding.place.as_str(), finding.count),
            ("output 0, element 0", 1)
        );
        assert_eq!(finding.expected, "7e0 (bits 0x40e00000)");
    }

    #[test]
    fn an_error_is_a_failure_and_a_lost_gpu_the_end() {
        let refused = |lost| {
            Check::new("refusals", "refused", move |_| {
                let cause = "it fell off the bus".to_string();
                let error = match lost {
                    true => CudaError::Lost { cause },
                    false => CudaError::NoDriver,
                };
                Err(KernelError::Cuda(error).into())
            })
        };
        let mut verdicts = Vec::new();
        let mut run = |lost| {
            let checks = vec![refused(lost)];
            run_all(
                checks,
                &subjects(),
                "again",
                &Output::new(false),
                &mut verdicts,
            )
        };
        run(false).unwrap();
        let lost = run(true).unwrap_err();
        assert!(verdicts[0].error.is_some() && !verdicts[0].is_good());
        assert_eq!(verdicts.len(), 1);
        assert!(format!("{lost:#}").contains("fell off the bus"), "{lost:#}");
    }
}
