//! `text`: documents, tokenized whole, joined, and cut into full sequences.
//!
//! Consecutive data sets of this type in a job are one stream of documents. Each document begins
//! with the special tokens that the tokenizer puts in front of a text. Between two documents stands
//! the end-of-text token, added only where the tokenizer has not done so, so that no document reads
//! as if it continued into the next. After the last document nothing is added. Tokens at the end
//! that do not fill a sequence are left out, and counted.

use std::path::PathBuf;

use concord_text::{PieceStream, Pieces};

use crate::chosen::Chosen;
use crate::error::DataError;
use crate::fields;
use crate::files::{self, FileForm};
use crate::loader::DataLoader;
use crate::sequences::{DataCounts, Sequencer, Sink};
use crate::source::{DatasetSource, ExcessLength};
use crate::text_chunks;
use crate::{each_row, rows};

/// A long document is tokenized in pieces of this size, which takes about 30 MB of memory.
const PIECE_BYTES: usize = 256 << 10;

/// The documents so far.
struct Documents<'a> {
    pieces: &'a Pieces<'a>,
    /// The token between two documents, if the model has one.
    end: Option<u32>,
    joined: Joined<'a>,
    count: u32,
}

/// The stream of tokens, cut into sequences.
struct Joined<'a> {
    sequencer: Sequencer<'a>,
    len: usize,
    /// Ids are below.
    vocab: usize,
    /// Tokens that fill no sequence yet.
    ids: Vec<u32>,
    last: Option<u32>,
    /// All tokens so far.
    count: u64,
    /// The first token that the model has no embedding for, and its index.
    beyond: Option<(u64, u32)>,
}

impl Joined<'_> {
    fn take(&mut self, ids: &[u32]) {
        let vocab = self.vocab;
        let beyond = ids.iter().position(|id| *id as usize >= vocab);
        if let Some(index) = beyond.filter(|_| self.beyond.is_none()) {
            self.beyond = Some((self.count + index as u64, ids[index]));
        }
        self.count += ids.len() as u64;
        self.last = ids.last().copied().or(self.last);
        self.ids.extend(ids);
        let whole = self.ids.len() / self.len * self.len;
        for sequence in self.ids[..whole].chunks_exact(self.len) {
            self.sequencer.add_full(sequence);
        }
        self.ids.drain(..whole);
    }
}

/// The sequences of `sources`, all of type `text`, as one stream.
pub(crate) fn load(
    sources: &[DatasetSource],
    loader: &mut DataLoader,
    sink: &mut Sink,
) -> Result<DataCounts, DataError> {
    let Some(source) = sources.first() else {
        return Ok(DataCounts::default());
    };
    let (tokenizer, len) = (loader.tokenizer(source)?, loader.sequence_len);
    let pieces = tokenizer.pieces(PIECE_BYTES);
    let mut sink = |view: crate::sequences::SequenceView| sink(view);
    let mut documents = Documents {
        pieces: &pieces,
        end: loader.end_of_text(),
        joined: Joined {
            sequencer: Sequencer::new(len, ExcessLength::Error, &mut sink),
            len: len as usize,
            vocab: loader.vocab,
            ids: Vec::new(),
            last: None,
            count: 0,
            beyond: None,
        },
        count: 0,
    };
    let (mut blank, mut rows) = (0, 0);
    for source in sources {
        let (before, blank_before) = (documents.count, blank);
        rows += read(source, &mut documents, &mut blank, &mut *loader.progress)?;
        if documents.count == before {
            return Err(source.fail(match blank - blank_before {
                0 => "it is empty".to_string(),
                count => format!("all its {count} documents are empty"),
            }));
        }
        if let Some((index, id)) = documents.joined.beyond {
            return Err(source.fail(loader.beyond(index, id)));
        }
    }
    let (examples, joined) = (documents.count, documents.joined);
    if joined.sequencer.counts.sequences == 0 {
        let among = match sources.len() {
            1 => String::new(),
            more => format!(" with those of the {} data sets after it", more - 1),
        };
        return Err(DataError::Unfilled {
            path: source.path.clone(),
            tokens: joined.count,
            among,
            len,
        });
    }
    Ok(DataCounts {
        rows,
        examples,
        blank,
        tail: joined.ids.len() as u32,
        ..joined.sequencer.counts
    })
}

/// Adds the documents of a data set, and counts those that are empty. Returns the rows.
fn read(
    source: &DatasetSource,
    documents: &mut Documents,
    blank: &mut u32,
    progress: &mut dyn FnMut(u64),
) -> Result<u32, DataError> {
    let paths = source.files()?;
    let is_plain = |path: &PathBuf| files::form(path, source.kind).1 == FileForm::Plain;
    let texts = paths.iter().filter(|path| is_plain(path)).count();
    let is_mixed = texts > 0 && texts < paths.len();
    if is_mixed && source.selects() {
        return Err(source.fail(
            "it has both texts and files of rows, so `split`, `weight` and `shards` do not say \
             what is taken: name them as two data sets, by patterns such as *.txt and *.jsonl",
        ));
    }
    let mut each = |row: &rows::Row, documents: &mut Documents| {
        let text = row.text(&source.field)?;
        let text = text.ok_or_else(|| fields::missing(source, row, &source.field))?;
        fields::check(source, row)?;
        match text.is_empty() {
            true => *blank += 1,
            false => documents.add(source, text)?,
        }
        Ok(())
    };
    if texts == 0 {
        let chosen = Chosen::of(source, &mut || each_row::count(source, &paths))?;
        let mut each = |row: &rows::Row| each(row, documents);
        return each_row::for_each(source, &paths, &chosen, progress, &mut each);
    }
    let chosen = Chosen::of(source, &mut || Ok(texts as u64))?;
    let (mut count, most) = (0, source.max_samples.unwrap_or(u32::MAX));
    for (index, path) in paths.iter().enumerate() {
        let (packing, form) = files::form(path, source.kind);
        if count >= most {
            break;
        }
        if form != FileForm::Plain {
            let (path, rest) = (std::slice::from_ref(path), Chosen::first(most - count));
            let mut each = |row: &rows::Row| each(row, documents);
            count += each_row::for_each(source, path, &rest, progress, &mut each)?;
            continue;
        }
        if !chosen.takes(index as u64) {
            continue;
        }
        let mut stream: Option<PieceStream> = None;
        text_chunks::for_each(path, packing, &mut |text, bytes| {
            if !text.is_empty() {
                let stream = match &mut stream {
                    Some(stream) => stream,
                    none => none.insert(documents.begin(source)?),
                };
                stream.push(text, &mut |ids| documents.joined.take(ids))?;
            }
            progress(bytes);
            Ok(())
        })?;
        if let Some(stream) = stream {
            stream.finish(&mut |ids| documents.joined.take(ids))?;
        }
        count += 1;
    }
    Ok(count)
}

impl<'a> Documents<'a> {
    fn add(&mut self, source: &DatasetSource, text: &str) -> Result<(), DataError> {
        let mut stream = self.begin(source)?;
        stream.push(text, &mut |ids| self.joined.take(ids))?;
        Ok(stream.finish(&mut |ids| self.joined.take(ids))?)
    }

    /// Begins a document: behind another one, with the token that ends that one.
    fn begin(&mut self, source: &DatasetSource) -> Result<PieceStream<'a>, DataError> {
        if self.count > 0 {
            let end = self.end.ok_or_else(|| {
                source.fail(
                    "several documents need an end-of-text token between them: neither \
                     tokenizer_config.json (eos_token) nor config.json (eos_token_id) names one",
                )
            })?;
            if self.joined.last != Some(end) {
                self.joined.take(&[end]);
            }
        }
        self.count += 1;
        Ok(self.pieces.stream())
    }
}
