//! What was read of data sets, as the event that commands print with `--json`.

use std::path::Path;

use concord_data::{DataCounts, DatasetSource};
use serde_json::{Value, json};

/// The event `data`: rows, tokens, and what is left out of `sources`.
pub fn data_event(sources: &[DatasetSource], sequence_len: u32, counts: &DataCounts) -> Value {
    let paths: Vec<&Path> = sources.iter().map(|source| source.path.as_path()).collect();
    json!({
        "event": "data", "paths": paths, "type": sources.first().map(|source| source.kind.name()),
        "rows": counts.rows, "examples": counts.examples, "sequences": counts.sequences,
        "sequence_len": sequence_len, "tokens": counts.tokens, "trained_tokens": counts.trained,
        "longest": counts.longest, "truncated": counts.truncated, "split": counts.split,
        "dropped": counts.dropped, "skipped": counts.skipped, "shortened": counts.shortened,
        "blank": counts.blank,
        "tail_tokens": counts.tail,
    })
}
