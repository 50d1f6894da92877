//! Reads data sets for a preview, in the form in which a job learns them: data sets may alternate,
//! and examples share a sequence.

use anyhow::Context;
use concord_data::{DataError, DataLoader, DatasetSource, Loaded, SequenceView};
use concord_models::weights::ModelFolder;
use concord_proto::TrainingSequence;
use concord_text::{ChatTemplate, TextTokenizer};

use crate::support::ingest::{mixing, packing, parted};
use crate::support::job_file::{HeldRows, JobFile};

/// What data sets are read with.
pub(super) struct Reader<'a> {
    pub(super) folder: &'a ModelFolder,
    pub(super) tokenizer: Option<&'a TextTokenizer>,
    pub(super) template: Option<&'a ChatTemplate>,
    /// The job, where there is one.
    pub(super) job: Option<&'a JobFile>,
    /// How many sequences are shown.
    pub(super) shown: usize,
}

/// What was read.
pub(super) struct Read {
    /// The first sequences; all of them where the job arranges them.
    pub(super) sequences: Vec<TrainingSequence>,
    pub(super) loaded: Vec<Loaded>,
    pub(super) sequence_len: u32,
    /// Where the sequences of each data set end, if data sets alternate.
    ends: Vec<usize>,
}

impl Reader<'_> {
    /// Reads data sets, those that are held out as a whole or the others.
    pub(super) fn read(
        &self,
        sources: &[DatasetSource],
        sequence_len: u32,
        is_held: bool,
    ) -> Result<Read, DataError> {
        let config = self.folder.config();
        let mut loader = DataLoader {
            tokenizer: self.tokenizer,
            chat_template: self.template,
            vocab: config.vocab,
            max_positions: config.max_positions,
            eos: &config.eos,
            sequence_len,
            progress: &mut |_| {},
        };
        let packs = self.job.is_some_and(|job| job.sample_packing);
        let mixes = !is_held && self.job.is_some_and(|job| job.mix.is_some());
        let (mut sequences, mut loaded, mut ends) = (Vec::new(), Vec::new(), Vec::new());
        let take = |view: SequenceView, sequences: &mut Vec<TrainingSequence>| {
            if packs || mixes || sequences.len() < self.shown {
                let whole = TrainingSequence::whole(view.tokens.to_vec(), view.mask.to_vec());
                sequences.push(match packs || mixes {
                    true => whole.trimmed(),
                    false => whole,
                });
            }
        };
        let run = if mixes { 1 } else { sources.len().max(1) };
        for (number, sources) in sources.chunks(run).enumerate() {
            let read = loader.each(sources, &mut |view| take(view, &mut sequences))?;
            loaded.extend(read.into_iter().map(|mut read| {
                read.sources = read.sources.start + number..read.sources.end + number;
                read
            }));
            ends.push(sequences.len());
        }
        Ok(Read {
            sequences,
            loaded,
            sequence_len,
            ends: if mixes { ends } else { Vec::new() },
        })
    }

    /// Puts what was read into the form in which the job learns it; returns what is to be said.
    ///
    /// # Errors
    /// Where data sets cannot alternate so.
    pub(super) fn arrange(&self, read: &mut Read, is_held: bool) -> anyhow::Result<Vec<String>> {
        let Some(job) = self.job else {
            return Ok(Vec::new());
        };
        let mut notes = Vec::new();
        let counts = read.loaded.iter().map(|loaded| loaded.counts.sequences);
        let mut total = counts.map(u64::from).sum();
        if let (Some(mix), false) = (&job.mix, is_held) {
            let order = mix.order(&mixing::lengths(&read.ends), job.seed);
            let order = order.map_err(anyhow::Error::msg).context("mix_strategy")?;
            let mixed = mixing::mixed(&read.sequences, &read.ends, &order);
            read.sequences = mixed.cloned().collect();
            total = order.len() as u64;
            notes.push(mixing::taken(&job.datasets, &order).0);
        }
        let drawn = match job.evaluation.as_ref().map(|evaluation| &evaluation.rows) {
            Some(HeldRows::Sets(_)) | None => 0,
            Some(_) if is_held => 0,
            Some(rows) => {
                let drawn = rows.count(total);
                notes.push(format!(
                    "val_set_size: {drawn} of these {total} are held out, and not learnt; which \
                     ones is drawn by seed"
                ));
                drawn
            }
        };
        if job.sample_packing {
            let examples = std::mem::take(&mut read.sequences);
            let (count, len) = (
                (examples.len() as u64).saturating_sub(drawn),
                read.sequence_len as usize,
            );
            let (learnt, _) = parted(examples, None, u32::try_from(drawn)?, job.seed);
            read.sequences = packing::packed(learnt, len);
            notes.push(packing::words(count, &read.sequences, len));
        }
        Ok(notes)
    }
}
