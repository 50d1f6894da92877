//! Examples and texts, cut to sequences. Nothing is padded: a sequence is as long as its example.

use std::ops::Range;

use crate::example::Example;
use crate::shortened::shortened;
use crate::source::ExcessLength;

/// Sequences held in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sequences {
    /// Token ids of all sequences, one after another.
    pub tokens: Vec<u32>,
    /// As many: 1 where the token is predicted from those before it, else 0. Always 0 at the first
    /// token of a sequence. A sequence's loss is the sum over its ones.
    pub loss_mask: Vec<u8>,
    /// Where each sequence ends in these.
    pub ends: Vec<usize>,
    /// How a file of type `tokens` groups its sequences; other kinds leave that to the job.
    pub grouping: Option<Grouping>,
    /// What was read, and what was left out.
    pub counts: DataCounts,
}

impl Sequences {
    /// The number of sequences.
    pub fn count(&self) -> usize {
        self.ends.len()
    }

    /// The tokens of sequence `index`, or an empty slice beyond the end.
    pub fn tokens_of(&self, index: usize) -> &[u32] {
        &self.tokens[self.range(index)]
    }

    /// The loss mask of sequence `index`, or an empty slice beyond the end.
    pub fn mask_of(&self, index: usize) -> &[u8] {
        &self.loss_mask[self.range(index)]
    }

    fn range(&self, index: usize) -> Range<usize> {
        let end = |count: usize| match count.checked_sub(1) {
            Some(last) => self.ends.get(last).copied().unwrap_or(self.tokens.len()),
            None => 0,
        };
        end(index)..end(index.saturating_add(1))
    }
}

/// One sequence, as it is handed over.
#[derive(Clone, Copy, Debug)]
pub struct SequenceView<'a> {
    /// Token ids.
    pub tokens: &'a [u32],
    /// As long: 1 where the token is predicted, else 0; 0 at position 0.
    pub mask: &'a [u8],
}

/// What takes sequences, in their order.
pub(crate) type Sink<'a> = dyn FnMut(SequenceView) + 'a;

/// What was read of data sets, and what was left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DataCounts {
    /// Rows that were read; texts without rows count as one.
    pub rows: u32,
    /// Examples or documents, not counting blank ones.
    pub examples: u32,
    /// Sequences that were made.
    pub sequences: u32,
    /// Tokens in them that are data.
    pub tokens: u64,
    /// Tokens in them that are predicted.
    pub trained: u64,
    /// Tokens of the longest example; 0 for texts that are joined.
    pub longest: u32,
    /// Examples whose end was cut off, or the ends of their turns.
    pub truncated: u32,
    /// Examples that were cut into several sequences.
    pub split: u32,
    /// Examples that were left out, as longer than a sequence.
    pub dropped: u32,
    /// Examples that were left out, because nothing of them would be predicted.
    pub skipped: u32,
    /// Turns of which the chat template leaves a part out, such as a thought of an earlier answer.
    pub shortened: u32,
    /// Empty documents, which are left out.
    pub blank: u32,
    /// Tokens at the end of a text that do not fill a sequence, and are left out.
    pub tail: u32,
}

/// The axes in front of the sequence in a file of type `tokens`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grouping {
    /// Steps in the file.
    pub steps: u32,
    /// Microbatches of a step.
    pub microbatches: u32,
    /// Sequences of a microbatch.
    pub batch: u32,
}

/// Cuts examples.
pub(crate) struct Sequencer<'a> {
    len: usize,
    excess: ExcessLength,
    sink: &'a mut Sink<'a>,
    pub counts: DataCounts,
    /// The mask of the sequence in the making.
    mask: Vec<u8>,
}

impl<'a> Sequencer<'a> {
    pub fn new(len: u32, excess: ExcessLength, sink: &'a mut Sink<'a>) -> Self {
        Self {
            len: len as usize,
            excess,
            sink,
            counts: DataCounts::default(),
            mask: Vec::new(),
        }
    }

    /// Adds an example.
    ///
    /// # Errors
    /// Half a sentence, where it is too long and the data set says that this is an error.
    pub fn add(&mut self, example: &Example) -> Result<(), String> {
        let (len, all) = (self.len, example.ids.len());
        self.counts.examples += 1;
        self.counts.shortened += example.shortened;
        self.counts.longest = self.counts.longest.max(all as u32);
        if all <= len {
            let is_made = self.make(&example.ids, &example.mask);
            self.counts.skipped += u32::from(!is_made);
            return Ok(());
        }
        match self.excess {
            ExcessLength::Error => {
                return Err(format!(
                    "the example has {all} tokens, and sequence_len is {len}; raise it, remove \
                     the row, or set another `excess_length_strategy`"
                ));
            }
            ExcessLength::Drop => self.counts.dropped += 1,
            ExcessLength::Truncate => match self.make(&example.ids[..len], &example.mask[..len]) {
                true => self.counts.truncated += 1,
                false => self.counts.skipped += 1,
            },
            ExcessLength::ShortenTurns => {
                let short = shortened(example, len);
                match self.make(&short.ids, &short.mask) {
                    true => self.counts.truncated += 1,
                    false => self.counts.skipped += 1,
                }
            }
            ExcessLength::Split => {
                let pieces = example.ids.chunks(len).zip(example.mask.chunks(len));
                let made = pieces.filter(|(ids, mask)| self.make(ids, mask)).count();
                match made {
                    0 => self.counts.skipped += 1,
                    _ => self.counts.split += 1,
                }
            }
        }
        Ok(())
    }

    /// Adds a full sequence of which everything but the first token is predicted.
    pub fn add_full(&mut self, ids: &[u32]) {
        self.make(ids, &vec![1; ids.len()]);
    }

    /// Hands over one sequence, unless nothing of it is predicted. Whether it did.
    fn make(&mut self, ids: &[u32], mask: &[u8]) -> bool {
        let trained = mask.iter().skip(1).filter(|mask| **mask == 1).count();
        if trained == 0 {
            return false;
        }
        self.mask.clear();
        self.mask.extend(mask);
        // The first token of a sequence has nothing before it to be predicted from.
        self.mask[0] = 0;
        self.counts.sequences += 1;
        self.counts.tokens += ids.len() as u64;
        self.counts.trained += trained as u64;
        (self.sink)(SequenceView {
            tokens: ids,
            mask: &self.mask,
        });
        true
    }

    /// Why the examples are not worth training on: there is none, too many are left out, or none
    /// fits whole, so that the end of an answer would never be learnt. `prompts` is the noun for
    /// what may fill a sequence alone.
    pub fn loss(&self, prompts: &str) -> Result<(), String> {
        let (len, counts) = (self.len, &self.counts);
        let (all, skipped, dropped) = (counts.examples, counts.skipped, counts.dropped);
        let longest = counts.longest;
        let remedy = format!("raise sequence_len (the longest example has {longest} tokens)");
        if all == 0 {
            return Err("it is empty".to_string());
        }
        if skipped == all {
            return Err(format!(
                "all {all} {prompts} fill sequence_len = {len} alone; {remedy}"
            ));
        }
        if skipped > all / 2 {
            return Err(format!(
                "{skipped} of {all} {prompts} fill sequence_len = {len} alone, so these examples \
                 would be left out; {remedy}, or remove them"
            ));
        }
        if dropped + skipped > all / 2 {
            return Err(format!(
                "{dropped} of {all} examples are longer than sequence_len = {len}, and would be \
                 left out; {remedy}, remove them, or set another `excess_length_strategy`"
            ));
        }
        // Where turns are shortened, answers may have their ends.
        let is_cut = self.excess != ExcessLength::ShortenTurns;
        match is_cut && counts.truncated + skipped == all {
            true => Err(format!(
                "none of {all} examples fits sequence_len = {len} whole, so no end of an answer \
                 would be learnt; {remedy}"
            )),
            false => Ok(()),
        }
    }
}
