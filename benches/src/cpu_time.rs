//! CPU time.

use anyhow::Context;

/// CPU time of this process in seconds, as Linux counts it.
///
/// # Errors
/// Where the system does not say.
pub fn cpu_seconds() -> anyhow::Result<f64> {
    let mut nanoseconds = 0;
    for task in std::fs::read_dir("/proc/self/task")? {
        let text = std::fs::read_to_string(task?.path().join("schedstat"))?;
        let first = text.split(' ').next().context("the time of a thread")?;
        nanoseconds += first.parse::<u64>()?;
    }
    Ok(nanoseconds as f64 / 1e9)
}
