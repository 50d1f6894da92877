//! Names of fields that no key of a job file changes.

/// A text that stands before all turns.
pub(crate) const SYSTEM: &str = "system";
/// Earlier turns, as pairs of what was asked and answered.
pub(crate) const HISTORY: &str = "history";
/// The segments of a row of type `input_output`.
pub(crate) const SEGMENTS: &str = "segments";
/// The tools that the assistant may call.
pub(crate) const TOOLS: &str = "tools";
/// Token ids of a row.
pub(crate) const IDS: &str = "input_ids";
/// Token ids that are predicted; -100 where none is.
pub(crate) const LABELS: &str = "labels";
/// 1 for each token that is data.
pub(crate) const ATTENTION: &str = "attention_mask";
