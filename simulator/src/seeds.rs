//! One seed after another: a failure of one is told with its seed, and the others go on.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::scenario::{ExpectedRecords, Scenario, ScenarioCounts, run};

/// A seed whose run does not keep what it must.
#[derive(Clone, Debug)]
pub struct FailedSeed {
    pub seed: u64,
    /// The run, in words.
    pub scenario: String,
    pub reason: String,
}

/// Draws the run of a seed, and runs it.
///
/// # Errors
/// What does not hold.
pub fn run_seed(
    seed: u64,
    has_liar: bool,
    expected: &mut ExpectedRecords,
) -> Result<ScenarioCounts, FailedSeed> {
    let scenario = Scenario::draw(seed, has_liar);
    caught(|| run(&scenario, expected)).map_err(|reason| FailedSeed {
        seed,
        scenario: scenario.to_string(),
        reason,
    })
}

/// What `act` gives, or the words with which it panics.
///
/// # Errors
/// Those words.
pub fn caught<T>(act: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(act)).map_err(|panic| words(&*panic))
}

fn words(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_string());
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
    text.unwrap_or_else(|| "a panic without words".to_string())
}
