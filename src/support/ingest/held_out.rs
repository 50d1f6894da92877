//! What is held out of the data of a job.

use anyhow::bail;
use concord_proto::HeldOut;

use super::told::Told;
use crate::support::job_file::{HeldRows, JobFile};
use crate::support::output::counted;

/// How many of `examples` are held out by `val_set_size`; 0 where nothing is.
///
/// # Errors
/// Where none would be left, or none held out.
pub(super) fn count(job: &JobFile, examples: u64) -> anyhow::Result<u32> {
    let Some(evaluation) = &job.evaluation else {
        return Ok(0);
    };
    if job.is_grouped() {
        bail!(
            "{}: a file of tokens says itself what each step learns, and holds nothing out: give \
             its tokens as rows of `input_ids` in a .jsonl file, or remove the key",
            evaluation.rows.key()
        );
    }
    if let HeldRows::Sets(_) = evaluation.rows {
        return Ok(0);
    }
    let held = evaluation.rows.count(examples);
    if held == 0 || held >= examples {
        bail!(
            "val_set_size: {held} of {} would be held out: at least one must be, and one be left \
             to learn from",
            counted(examples, "example")
        );
    }
    Ok(u32::try_from(held)?)
}

/// A note on what is held out of so many sequences.
pub(super) fn told(held: HeldOut, all: usize) -> Told {
    let (count, rest) = (held.sequences(), all as u64 - u64::from(held.sequences()));
    let how = match held {
        HeldOut::Drawn { seed, .. } => format!("drawn by seed {seed}, "),
        HeldOut::Last { .. } => String::new(),
    };
    Told::note(&format!(
        "held out: {}, {how}and {} to learn from",
        counted(count.into(), "sequence"),
        counted(rest, "sequence")
    ))
}
