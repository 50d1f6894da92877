//! Which end of a text must wait, since more text may make a marker of it.

/// Where the end of `text` begins that may be the start of `marker`, with the white space before
/// it. All before that is certain.
pub fn certain(text: &str, marker: &str) -> usize {
    let start = text
        .char_indices()
        .map(|(at, _)| at)
        .find(|at| marker.starts_with(&text[*at..]));
    text[..start.unwrap_or(text.len())].trim_end().len()
}
