//! How much of the end of a text must be held back, because more text may complete a marker.

/// The length of the part of `text` that is certain. The rest may be the start of `marker`, or is
/// white space before that.
pub fn certain(text: &str, marker: &str) -> usize {
    let start = text
        .char_indices()
        .map(|(at, _)| at)
        .find(|at| marker.starts_with(&text[*at..]));
    text[..start.unwrap_or(text.len())].trim_end().len()
}
