//! Data sets of fine-tunes: files in, sequences out.
//!
//! Five layers, each a pure function of the one before it:
//!
//! 1. `files`: a path, a folder or a pattern becomes files, and these become bytes, unpacked;
//! 2. `rows`: objects with fields, one at a time, each with its file and line, of which `split`
//!    chooses;
//! 3. `conversation`, and a file for each kind without turns: what a row says, every field of which
//!    is used, known to hold nothing to learn, or refused;
//! 4. `example`: token ids, and which of them are learnt; of any length;
//! 5. `sequences`: examples, cut or left out where they are longer than a sequence may be.
//!
//! The order and the content of sequences are a pure function of the files, the tokenizer, its
//! chat template and the sequence length. Nothing is shuffled here: that belongs to the job. No
//! file is held in memory: of a file of rows one row is, of a text a piece.

mod alpaca;
mod array_rows;
mod chat;
mod chosen;
mod completion;
mod conversation;
mod each_row;
mod error;
mod example;
mod fields;
mod files;
mod guess;
mod input_output;
mod instruct;
mod json;
mod line_rows;
mod load;
mod loader;
mod maker;
mod messages;
mod mix;
mod names;
#[cfg(feature = "parquet")]
mod parquet_rows;
mod pattern;
mod prompt_completion;
mod row_example;
mod rows;
mod separated_rows;
mod sequences;
mod shortened;
mod source;
mod split;
mod text;
mod text_chunks;
mod token_rows;
mod tokens;
mod unpack;
mod utf8;

pub use error::{DataError, RowPlace};
pub use guess::{first_row, guess};
pub use load::Loaded;
pub use loader::DataLoader;
pub use maker::CLOCK;
pub use mix::{Mix, MixEnd, MixedPlace};
pub use sequences::{DataCounts, Grouping, SequenceView, Sequences};
pub use source::{DatasetKind, DatasetSource, ExcessLength, HubChoice, Shard, TrainedEnds};
pub use split::RowSplit;
pub use utf8::utf8;
