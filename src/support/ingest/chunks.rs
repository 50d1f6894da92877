//! Sequences on their way into the chunks of a data set.

use concord_data::{Mix, MixedPlace, SequenceView};
use concord_proto::{Digest, HeldOut, SequenceEntry, TrainingSequence};

use super::told::Told;
use super::{mixing, packing};
use crate::support::blobs::BlobSet;

/// Sequences of a data chunk; with 2,048 tokens each, a chunk has 10 MB.
pub(super) const CHUNK_SEQUENCES: u32 = 1_024;

/// One chunk is held, the others are blobs; where examples are packed, all are held, because the
/// longest is placed first; and where data sets alternate, until the order is known.
pub(super) struct Chunks<'a> {
    blobs: &'a mut BlobSet,
    /// The chunk in the making.
    chunk: Vec<u8>,
    written: Vec<Digest>,
    entries: Vec<SequenceEntry>,
    packs: bool,
    held: Option<Vec<TrainingSequence>>,
    /// Where in these each of the data sets ends that alternate.
    ends: Vec<usize>,
    /// How many of the sequences, or of the examples to pack, came before what is held out by a
    /// data set of its own.
    learnt: Option<usize>,
}

/// What a manifest says of them.
pub(super) struct Written {
    pub(super) chunks: Vec<Digest>,
    pub(super) entries: Vec<SequenceEntry>,
    /// A note on what was packed.
    pub(super) told: Option<Told>,
    /// Which of them are held out.
    pub(super) held_out: Option<HeldOut>,
}

impl<'a> Chunks<'a> {
    pub(super) fn new(blobs: &'a mut BlobSet, packs: bool, mixes: bool) -> Self {
        Self {
            blobs,
            chunk: Vec::new(),
            written: Vec::new(),
            entries: Vec::new(),
            packs,
            held: (packs || mixes).then(Vec::new),
            ends: Vec::new(),
            learnt: None,
        }
    }

    /// Takes an example. What stands behind its last token to predict, as a last question does, is
    /// neither sent nor computed.
    pub(super) fn add(&mut self, example: SequenceView) {
        let SequenceView { tokens, mask } = example;
        let sequence = TrainingSequence::whole(tokens.to_vec(), mask.to_vec()).trimmed();
        match &mut self.held {
            Some(examples) => examples.push(sequence),
            None => self.push(&sequence),
        }
    }

    /// Examples so far.
    pub(super) fn examples(&self) -> usize {
        match &self.held {
            Some(examples) => examples.len(),
            None => self.entries.len(),
        }
    }

    /// The examples so far are all of a data set.
    pub(super) fn end_set(&mut self) {
        self.ends.push(self.examples());
    }

    /// Puts what was held of several data sets into the order in which these alternate.
    pub(super) fn mix(&mut self, mix: &Mix, seed: u64) -> anyhow::Result<Vec<MixedPlace>> {
        let ends = std::mem::take(&mut self.ends);
        let order = mix.order(&mixing::lengths(&ends), seed);
        let order = order.map_err(anyhow::Error::msg)?;
        let held = self.held.take().unwrap_or_default();
        let mixed = mixing::mixed(&held, &ends, &order);
        match self.packs {
            true => self.held = Some(mixed.cloned().collect()),
            false => mixed.for_each(|sequence| self.push(sequence)),
        }
        Ok(order)
    }

    /// All examples that follow are held out.
    pub(super) fn hold_out_the_rest(&mut self) {
        self.learnt = Some(self.examples());
    }

    fn push(&mut self, sequence: &TrainingSequence) {
        self.entries.push(sequence.entry());
        self.chunk.extend(sequence.encode());
        if self.entries.len().is_multiple_of(CHUNK_SEQUENCES as usize) {
            self.write();
        }
    }

    fn write(&mut self) {
        if !self.chunk.is_empty() {
            let chunk = std::mem::take(&mut self.chunk);
            self.written.push(self.blobs.data(chunk));
        }
    }

    /// Writes what is left, in sequences of at most `len` tokens. `drawn` of the examples are held
    /// out, by `seed`.
    pub(super) fn finish(mut self, len: usize, drawn: u32, seed: u64) -> Written {
        let told = self.held.take().map(|examples| {
            let count = examples.len();
            let (learnt, held) = parted(examples, self.learnt, drawn, seed);
            let held_count = held.len();
            let mut packed = packing::packed(learnt, len);
            let learnt = packed.len();
            packed.extend(packing::packed(held, len));
            packed.iter().for_each(|sequence| self.push(sequence));
            self.learnt = (held_count > 0).then_some(learnt);
            Told::note(&packing::words(count as u64, &packed, len))
        });
        let is_packed = told.is_some();
        self.write();
        let sequences = |learnt: usize| (self.entries.len() - learnt) as u32;
        let held_out = match self.learnt {
            Some(learnt) => Some(HeldOut::Last {
                sequences: sequences(learnt),
            }),
            None if drawn > 0 && !is_packed => Some(HeldOut::Drawn {
                sequences: drawn,
                seed,
            }),
            None => None,
        };
        Written {
            chunks: self.written,
            entries: self.entries,
            told,
            held_out,
        }
    }
}

/// Examples to learn from, and those that are held out, each in their order: those behind the first
/// `learnt`, or `drawn` of all, by `seed`.
pub fn parted(
    mut examples: Vec<TrainingSequence>,
    learnt: Option<usize>,
    drawn: u32,
    seed: u64,
) -> Parted {
    if let Some(learnt) = learnt {
        let held = examples.split_off(learnt);
        return (examples, held);
    }
    let indices = concord_proto::held_out(seed, drawn, examples.len() as u32);
    let mut drawn = indices.into_iter().peekable();
    let is_held = |index: u32| drawn.next_if_eq(&index).is_some();
    let (held, learnt) = part(examples, is_held);
    (learnt, held)
}

pub type Parted = (Vec<TrainingSequence>, Vec<TrainingSequence>);

/// Those of which `is_first` holds, by their index, and the others.
fn part(examples: Vec<TrainingSequence>, mut is_first: impl FnMut(u32) -> bool) -> Parted {
    let numbered = (0_u32..).zip(examples);
    let (first, others): (Vec<_>, Vec<_>) = numbered.partition(|(index, _)| is_first(*index));
    let bare = |all: Vec<(u32, TrainingSequence)>| all.into_iter().map(|(_, one)| one).collect();
    (bare(first), bare(others))
}
