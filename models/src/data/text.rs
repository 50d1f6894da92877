//! `text`: documents, tokenized whole, joined, and cut into full sequences.
//!
//! Consecutive data sets of this type in a job are one stream of documents. Each document begins
//! with the special tokens that the tokenizer puts in front of a text. Between two documents stands
//! the end-of-text token, added only where the tokenizer has not done so, so that no document reads
//! as if it continued into the next. After the last document nothing is added. Tokens at the end
//! that do not fill a sequence are left out, and counted.

use std::fs;

use super::{DataLoader, DatasetSource, Sequences, fields, rows, utf8};
use crate::error::ModelError;
use concord_text::Pieces;

/// A long document is tokenized in pieces of this size, which takes about 30 MB of memory.
const PIECE_BYTES: usize = 256 << 10;

/// The tokens of the documents so far.
struct Documents<'a> {
    pieces: Pieces<'a>,
    /// The token between two documents, if the model has one.
    end: Option<u32>,
    ids: Vec<u32>,
    count: u32,
}

/// The sequences of `sources`, all of type `text`, as one stream.
pub(super) fn load(
    sources: &[DatasetSource],
    loader: &mut DataLoader,
) -> Result<Sequences, ModelError> {
    let (Some(source), len) = (sources.first(), loader.sequence_len) else {
        return Ok(Sequences::empty(loader.sequence_len));
    };
    let tokenizer = loader.tokenizer(source)?;
    let mut documents = Documents {
        pieces: tokenizer.pieces(PIECE_BYTES),
        end: loader.end_of_text(),
        ids: Vec::new(),
        count: 0,
    };
    let mut blank = 0;
    for source in sources {
        let (before, blank_before) = (documents.count, blank);
        blank += read(source, &mut documents, &mut *loader.progress)?;
        if documents.count == before {
            return Err(source.fail(match blank - blank_before {
                0 => "it is empty".to_string(),
                count => format!("all its {count} documents are empty"),
            }));
        }
    }
    let mut ids = documents.ids;
    let count = ids.len() / len as usize;
    if count == 0 {
        let among = match sources.len() {
            1 => String::new(),
            more => format!(" with those of the {} data sets after it", more - 1),
        };
        return Err(source.fail(format!(
            "its {} tokens{among} do not fill one sequence of {len}; add text or lower \
             sequence_len",
            ids.len()
        )));
    }
    let tail = ids.len() - count * len as usize;
    ids.truncate(count * len as usize);
    Ok(Sequences {
        loss_mask: all_but_first(count, len),
        tokens: ids,
        examples: documents.count,
        blank,
        tail: tail as u32,
        ..Sequences::empty(len)
    })
}

/// Adds the documents of a file. Returns how many of them are empty.
fn read(
    source: &DatasetSource,
    documents: &mut Documents,
    progress: &mut dyn FnMut(u64),
) -> Result<u32, ModelError> {
    if !source.has_rows() {
        let bytes = fs::read(&source.path).map_err(ModelError::io("read", &source.path))?;
        let mut text = utf8(bytes).map_err(|reason| source.fail(reason))?;
        if text.contains("\r\n") {
            text = text.replace("\r\n", "\n");
        }
        if !text.is_empty() {
            documents.add(source, &text, progress)?;
        }
        return Ok(0);
    }
    let mut blank = 0;
    rows::for_each(&source.path, |row, bytes| {
        let text = row.text(&source.field)?;
        let text = text.ok_or_else(|| fields::missing(source, row, &source.field))?;
        fields::check(source, row)?;
        progress(bytes as u64);
        match text.is_empty() {
            true => {
                blank += 1;
                Ok(())
            }
            false => documents.add(source, text, &mut |_| {}),
        }
    })?;
    Ok(blank)
}

impl Documents<'_> {
    fn add(
        &mut self,
        source: &DatasetSource,
        text: &str,
        progress: &mut dyn FnMut(u64),
    ) -> Result<(), ModelError> {
        if self.count > 0 {
            let end = self.end.ok_or_else(|| {
                source.fail(
                    "several documents need an end-of-text token between them: neither \
                     tokenizer_config.json (eos_token) nor config.json (eos_token_id) names one",
                )
            })?;
            if self.ids.last() != Some(&end) {
                self.ids.push(end);
            }
        }
        let ids = self
            .pieces
            .encode(text, true, &mut |bytes| progress(bytes as u64))?;
        // The first document is often the only one, and large: it is moved, not copied.
        match self.ids.is_empty() {
            true => self.ids = ids,
            false => self.ids.extend(ids),
        }
        self.count += 1;
        Ok(())
    }
}

/// The mask that predicts every token but the first of each of `count` sequences.
pub(super) fn all_but_first(count: usize, len: u32) -> Vec<u8> {
    let mut mask = vec![1; count * len as usize];
    mask.iter_mut()
        .step_by(len as usize)
        .for_each(|first| *first = 0);
    mask
}
