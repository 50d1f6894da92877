//! `text`: documents, tokenized whole, joined, and cut into full sequences.

use std::ffi::OsStr;
use std::fs;

use super::{DatasetSource, Sequences, lines};
use crate::error::ModelError;
use concord_text::TextTokenizer;

pub(super) fn load(
    source: &DatasetSource,
    tokenizer: &TextTokenizer,
    len: u32,
) -> Result<Sequences, ModelError> {
    let mut ids = Vec::new();
    if source.path.extension() == Some(OsStr::new("jsonl")) {
        lines::for_each(&source.path, |line| {
            ids.extend(tokenizer.encode(line.text(&source.field)?, true)?);
            Ok(())
        })?;
    } else {
        let bytes = fs::read(&source.path).map_err(ModelError::io("read", &source.path))?;
        let document = String::from_utf8(bytes).map_err(|error| {
            let at = error.utf8_error().valid_up_to();
            source.fail(format!("not UTF-8 text: byte {at} begins no character"))
        })?;
        if !document.is_empty() {
            ids = tokenizer.encode(&document, true)?;
        }
    }
    if ids.is_empty() {
        return Err(source.fail("it is empty"));
    }
    let count = ids.len() / len as usize;
    if count == 0 {
        return Err(source.fail(format!(
            "its {} tokens do not fill one sequence of {len}; add text or lower sequence_len",
            ids.len()
        )));
    }
    ids.truncate(count * len as usize);
    Ok(Sequences {
        len,
        loss_mask: all_but_first(count, len),
        tokens: ids,
        grouping: None,
        truncated: 0,
        skipped: 0,
    })
}

/// The mask that predicts every token but the first of each of `count` sequences.
pub(super) fn all_but_first(count: usize, len: u32) -> Vec<u8> {
    let mut mask = vec![1; count * len as usize];
    mask.iter_mut()
        .step_by(len as usize)
        .for_each(|first| *first = 0);
    mask
}
