//! Measures how long work takes on a GPU: by the GPU's clock, after a warm-up, as the median of
//! several runs.

use std::time::Duration;

use concord_kernels::KernelError;
use concord_kernels::cuda::Cuda;

use super::SuiteSize;

/// How work is timed.
#[derive(Clone, Copy, Debug)]
pub struct Clock<'a> {
    cuda: &'a Cuda,
    /// The length of a run; shorter work is repeated.
    run: Duration,
    /// The number of runs, of which the median counts.
    runs: usize,
}

/// Most repetitions in one run; each is at least one launch by the host.
const REPEATED_MAX: u32 = 1_000;

impl<'a> Clock<'a> {
    /// The clock of a GPU.
    pub fn new(cuda: &'a Cuda, size: SuiteSize) -> Self {
        match size {
            // For emulated GPUs, whose speed says nothing: one run shows that the suite works.
            SuiteSize::Small => Self {
                cuda,
                run: Duration::ZERO,
                runs: 1,
            },
            SuiteSize::Full => Self {
                cuda,
                run: Duration::from_millis(5),
                runs: 7,
            },
        }
    }

    /// Seconds that `work` takes.
    ///
    /// # Errors
    /// Those of `work`, and [`KernelError::Cuda`] where the GPU fails.
    pub fn seconds(
        &self,
        mut work: impl FnMut() -> Result<(), KernelError>,
    ) -> Result<f64, KernelError> {
        // The first run loads kernels and allocates memory.
        let mut timed = |repeated: u32| {
            let all = || (0..repeated).try_for_each(|_| work());
            self.cuda.timed(all).map(|((), time)| time)
        };
        timed(1)?;
        let once = timed(1)?.as_secs_f64().max(1e-7);
        let repeated = (self.run.as_secs_f64() / once).ceil() as u32;
        let repeated = repeated.clamp(1, REPEATED_MAX);
        let runs: Vec<Duration> = (0..self.runs)
            .map(|_| timed(repeated))
            .collect::<Result<_, _>>()?;
        Ok(median(runs).as_secs_f64().max(1e-9) / f64::from(repeated))
    }
}

/// The median, of an even number the upper middle one; zero for no runs.
fn median(mut runs: Vec<Duration>) -> Duration {
    runs.sort_unstable();
    runs.get(runs.len() / 2).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_slow_run_does_not_count() {
        let runs = [9, 2, 3].map(Duration::from_millis).to_vec();
        assert_eq!(median(runs), Duration::from_millis(3));
        assert_eq!(median(Vec::new()), Duration::ZERO);
    }

    #[cfg(feature = "emulator")]
    #[test]
    fn work_is_warmed_up_and_repeated() {
        let cuda = Cuda::emulated(concord_kernels::cuda::emulator::EmulatorOptions::default());
        let clock = Clock {
            cuda: &cuda,
            run: Duration::from_millis(20),
            runs: 3,
        };
        let mut calls = 0;
        let seconds = clock.seconds(|| {
            calls += 1;
            std::thread::sleep(Duration::from_millis(4));
            Ok(())
        });
        assert!(seconds.unwrap() >= 0.004);
        assert!((5..=2 + 3 * 5).contains(&calls), "{calls} calls");
    }
}
