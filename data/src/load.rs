//! Reads the data sets of a job into sequences.

use std::ops::Range;

use crate::chosen::Chosen;
use crate::each_row;
use crate::error::DataError;
use crate::example::Example;
use crate::loader::DataLoader;
use crate::maker::ExampleMaker;
use crate::row_example;
use crate::rows::Row;
use crate::sequences::{DataCounts, Grouping, SequenceView, Sequencer, Sequences, Sink};
use crate::source::{DatasetKind, DatasetSource};
use crate::{text, token_rows, tokens};

/// What was read of some data sets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// Indices of the data sets: one, or consecutive ones of type `text`.
    pub sources: Range<usize>,
    /// What was read, and what was left out. There is one sequence at least.
    pub counts: DataCounts,
    /// How a file of type `tokens` groups its sequences.
    pub grouping: Option<Grouping>,
}

impl DataLoader<'_> {
    /// Reads data sets, in their order, and hands over their sequences one by one. Consecutive data
    /// sets of type `text` are one stream of documents.
    ///
    /// Beside what `take` keeps, this holds one row and its tokens (a row has 16 MiB at most), or
    /// of a text a piece, where the tokenizer's texts can be cut
    /// ([`concord_text::Pieces::are_cut`]).
    ///
    /// The end-of-text token is the tokenizer's, or else the model's first.
    ///
    /// # Errors
    /// [`DataError`] naming the file, and the row where there is one. Sequences may have been
    /// handed over before.
    pub fn each(
        &mut self,
        sources: &[DatasetSource],
        take: &mut dyn FnMut(SequenceView),
    ) -> Result<Vec<Loaded>, DataError> {
        let mut loaded = Vec::new();
        let mut start = 0;
        let joins = |a: &DatasetSource, b: &DatasetSource| {
            a.kind == DatasetKind::Text && b.kind == DatasetKind::Text
        };
        for run in sources.chunk_by(joins) {
            let (counts, grouping) = self.read_run(run, take)?;
            loaded.push(Loaded {
                sources: start..start + run.len(),
                counts,
                grouping,
            });
            start += run.len();
        }
        Ok(loaded)
    }

    /// Reads one data set, and holds its sequences.
    ///
    /// # Errors
    /// Those of [`Self::each`].
    pub fn load(&mut self, source: &DatasetSource) -> Result<Sequences, DataError> {
        let (mut tokens, mut loss_mask, mut ends) = (Vec::new(), Vec::new(), Vec::new());
        let loaded = self.each(std::slice::from_ref(source), &mut |view| {
            tokens.extend(view.tokens);
            loss_mask.extend(view.mask);
            ends.push(tokens.len());
        })?;
        let first = loaded.into_iter().next();
        let (counts, grouping) =
            first.map_or_else(Default::default, |loaded| (loaded.counts, loaded.grouping));
        Ok(Sequences {
            tokens,
            loss_mask,
            ends,
            grouping,
            counts,
        })
    }

    fn read_run(
        &mut self,
        run: &[DatasetSource],
        sink: &mut Sink,
    ) -> Result<(DataCounts, Option<Grouping>), DataError> {
        let (source, len) = (&run[0], self.sequence_len);
        if len as usize > self.max_positions {
            return Err(DataError::SequenceTooLong {
                asked: len,
                max: self.max_positions,
            });
        }
        if len < 2 {
            return Err(source.fail(format!(
                "sequence_len is {len}, but predicting takes at least 2 tokens"
            )));
        }
        match source.kind {
            DatasetKind::Text => Ok((text::load(run, self, sink)?, None)),
            DatasetKind::Tokens if !source.has_rows() => {
                let (counts, grouping) = tokens::load(source, self, sink)?;
                Ok((counts, Some(grouping)))
            }
            DatasetKind::Tokens => {
                let make = |row: &Row| token_rows::example(source, row);
                Ok((self.examples(source, &make, sink)?, None))
            }
            _ => {
                let maker = ExampleMaker::new(source, self)?;
                let make = |row: &Row| row_example::of_row(&maker, row);
                Ok((self.examples(source, &make, sink)?, None))
            }
        }
    }

    /// The sequences of a data set whose rows are examples.
    fn examples(
        &mut self,
        source: &DatasetSource,
        make: &dyn Fn(&Row) -> Result<Example, DataError>,
        sink: &mut Sink,
    ) -> Result<DataCounts, DataError> {
        let (vocab, paths) = (self.vocab, source.files()?);
        let chosen = Chosen::of(source, &mut || each_row::count(source, &paths))?;
        let mut sink = |view: SequenceView| sink(view);
        let mut sequencer = Sequencer::new(self.sequence_len, source.excess_length, &mut sink);
        let rows = each_row::for_each(source, &paths, &chosen, &mut *self.progress, &mut |row| {
            let mut example = make(row)?;
            if source.train_on_inputs {
                example.mask.fill(1);
            }
            if let Some(id) = example.ids.iter().find(|id| **id as usize >= vocab) {
                return Err(row.fail(format!(
                    "it has a token of id {id}, but the model has only {vocab} embeddings"
                )));
            }
            sequencer.add(&example).map_err(|reason| row.fail(reason))
        })?;
        let prompts = match source.kind {
            DatasetKind::Instruct | DatasetKind::Alpaca => "instructions",
            _ => "prompts",
        };
        sequencer
            .loss(prompts)
            .map_err(|reason| source.fail(reason))?;
        Ok(DataCounts {
            rows,
            ..sequencer.counts
        })
    }

    /// What is said of a token that the model has no embedding for.
    pub(crate) fn beyond(&self, index: u64, id: u32) -> String {
        format!(
            "token {index} of the data has id {id}, but the model has only {} embeddings",
            self.vocab
        )
    }
}
