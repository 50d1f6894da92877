//! Seeds on all cores.

use std::cell::RefCell;
use std::ops::Range;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::support::output::Output;

/// A seed of which something does not hold.
pub(super) struct FailedRun {
    pub(super) seed: u64,
    pub(super) reason: String,
    /// What was run, in words.
    pub(super) what: String,
}

/// What came of all seeds.
pub(super) struct AllRuns<T> {
    pub(super) counts: T,
    /// By rising seed.
    pub(super) failures: Vec<FailedRun>,
    pub(super) took: Duration,
    pub(super) threads: usize,
}

thread_local! {
    /// Where the last panic of a thread was, which its words do not say.
    static PLACE: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Panics of runs are failures, and are told at the end with their seed: nobody wants to read them
/// in between.
fn keep_panics_quiet() {
    std::panic::set_hook(Box::new(|info| {
        let place = info.location().map_or(String::new(), ToString::to_string);
        PLACE.with_borrow_mut(|kept| *kept = place);
    }));
}

/// The words of a failure, with its place in the code.
pub(super) fn placed(reason: String) -> String {
    let place = PLACE.take();
    match place.is_empty() {
        true => reason,
        false => format!("{reason} ({place})"),
    }
}

/// Runs each seed once, on as many threads as there are cores. `begin` makes what a thread keeps
/// between two seeds; what the runs give is put together by `add`, in any order.
pub(super) fn run_all<T: Default + Send, Kept>(
    seeds: &Range<u64>,
    output: &Output,
    begin: impl Fn() -> Kept + Sync,
    run: impl Fn(&mut Kept, u64) -> Result<T, FailedRun> + Sync,
    add: impl Fn(&mut T, &T) + Sync,
) -> anyhow::Result<AllRuns<T>> {
    let bar = match output.is_json() {
        true => ProgressBar::hidden(),
        false => ProgressBar::new(seeds.end - seeds.start),
    };
    let style = "{bar:30} {pos} of {len} seeds, {msg}{eta} left";
    bar.set_style(ProgressStyle::with_template(style)?);
    keep_panics_quiet();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = cores.min((seeds.end - seeds.start) as usize);
    let (start, next) = (Instant::now(), AtomicU64::new(seeds.start));
    let all = Mutex::new((T::default(), Vec::new()));
    let work = || {
        let mut kept = begin();
        let mut counts = T::default();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end {
                break;
            }
            match run(&mut kept, seed) {
                Ok(one) => add(&mut counts, &one),
                Err(failed) => {
                    let mut all = all.lock().unwrap_or_else(PoisonError::into_inner);
                    all.1.push(failed);
                    bar.set_message(format!("{} failed, ", all.1.len()));
                }
            }
            bar.inc(1);
        }
        let mut all = all.lock().unwrap_or_else(PoisonError::into_inner);
        add(&mut all.0, &counts);
    };
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(work);
        }
    });
    bar.finish_and_clear();
    drop(std::panic::take_hook());
    let (counts, mut failures) = all.into_inner().unwrap_or_else(PoisonError::into_inner);
    failures.sort_by_key(|failed: &FailedRun| failed.seed);
    Ok(AllRuns {
        counts,
        failures,
        took: start.elapsed(),
        threads,
    })
}
