//! Sequences on their way into the chunks of a data set.

use concord_data::SequenceView;
use concord_proto::{Digest, SequenceEntry, TrainingSequence};

use super::packing;
use super::told::Told;
use crate::support::blobs::BlobSet;

/// Sequences of a data chunk; with 2,048 tokens each, a chunk has 10 MB.
pub(super) const CHUNK_SEQUENCES: u32 = 1_024;

/// One chunk is held, the others are blobs; where examples are packed, all are held, because the
/// longest is placed first.
pub(super) struct Chunks<'a> {
    blobs: &'a mut BlobSet,
    /// The chunk in the making.
    chunk: Vec<u8>,
    written: Vec<Digest>,
    entries: Vec<SequenceEntry>,
    to_pack: Option<Vec<TrainingSequence>>,
}

/// What a manifest says of them.
pub(super) struct Written {
    pub(super) chunks: Vec<Digest>,
    pub(super) entries: Vec<SequenceEntry>,
    /// A note on what was packed.
    pub(super) told: Option<Told>,
}

impl<'a> Chunks<'a> {
    pub(super) fn new(blobs: &'a mut BlobSet, packs: bool) -> Self {
        Self {
            blobs,
            chunk: Vec::new(),
            written: Vec::new(),
            entries: Vec::new(),
            to_pack: packs.then(Vec::new),
        }
    }

    /// Takes an example. What stands behind its last token to predict, as a last question does, is
    /// neither sent nor computed.
    pub(super) fn add(&mut self, example: SequenceView) {
        let SequenceView { tokens, mask } = example;
        let sequence = TrainingSequence::whole(tokens.to_vec(), mask.to_vec()).trimmed();
        match &mut self.to_pack {
            Some(examples) => examples.push(sequence),
            None => self.push(&sequence),
        }
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

    /// Writes what is left, in sequences of at most `len` tokens.
    pub(super) fn finish(mut self, len: usize) -> Written {
        let told = self.to_pack.take().map(|examples| {
            let count = examples.len();
            let packed = packing::packed(examples, len);
            packed.iter().for_each(|sequence| self.push(sequence));
            packing::told(count, &packed, len)
        });
        self.write();
        Written {
            chunks: self.written,
            entries: self.entries,
            told,
        }
    }
}
