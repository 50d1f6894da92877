//! How many seeds a test runs.

use std::ops::Range;

/// Those that `CONCORD_SEEDS` names, or `few`.
pub fn seeds(few: Range<u64>) -> Range<u64> {
    let Ok(text) = std::env::var("CONCORD_SEEDS") else {
        return few;
    };
    let range = text
        .split_once("..")
        .and_then(|(from, to)| Some(from.parse().ok()?..to.parse().ok()?));
    range.unwrap_or_else(|| panic!("CONCORD_SEEDS is {text:?}, not such as 0..10000"))
}
