//! Which changes of a fine-tune would make it fit.

use concord_models::decoder::Trainable;
use concord_models::memory::TrainingRun;
use concord_models::train::MomentForm;
use concord_proto::client::PlanChoice;

use super::model::PlannedModel;
use super::{LORA_R, fit, proposal};

/// Sequences shorter than this are not suggested.
const SEQUENCE_MIN: u32 = 128;

/// The single changes that make the fine-tune fit; where none does, all changes together. Empty
/// where not even these help.
pub fn of(model: &PlannedModel, run: &TrainingRun, workers: &[u64]) -> String {
    let devices = fit::devices(workers);
    let fits = |changes: &[Change]| {
        let run = with(run, changes);
        proposal::planned(model, &run, &PlanChoice::Auto, &devices).is_ok()
    };
    let shorter = |&len: &u32| fits(&[Change::SequenceLen(len)]);
    let longest = lengths(run).find(shorter).map(Change::SequenceLen);
    let alone = changes(run).into_iter().filter(|&change| fits(&[change]));
    let alone: Vec<String> = alone.chain(longest).map(Change::words).collect();
    if !alone.is_empty() {
        return format!("; or with {}", alone.join(", or with "));
    }
    let mut all = changes(run);
    all.extend(lengths(run).last().map(Change::SequenceLen));
    if all.is_empty() || !fits(&all) {
        return String::new();
    }
    let words: Vec<String> = all.into_iter().map(Change::words).collect();
    format!("; or with all of {}", words.join(", "))
}

/// A change of one key of the job file.
#[derive(Clone, Copy)]
enum Change {
    Lora,
    Recompute,
    Bits8,
    OneSequence,
    OneMicrobatch,
    SequenceLen(u32),
}

impl Change {
    /// The line of the job file.
    fn words(self) -> String {
        match self {
            Self::Lora => "`adapter: lora`".to_string(),
            Self::Recompute => "`recompute: true`".to_string(),
            Self::Bits8 => "`optimizer: adamw_8bit`".to_string(),
            Self::OneSequence => "`micro_batch_size: 1`".to_string(),
            Self::OneMicrobatch => "`gradient_accumulation_steps: 1`".to_string(),
            Self::SequenceLen(len) => format!("`sequence_len: {len}`"),
        }
    }
}

/// The changes that make a fine-tune smaller, without shorter sequences.
fn changes(run: &TrainingRun) -> Vec<Change> {
    let is_full = run.trainable == Trainable::Full;
    let all = [
        (is_full, Change::Lora),
        (!run.recompute, Change::Recompute),
        (run.moments == MomentForm::F32, Change::Bits8),
        (run.micro_batch_size > 1, Change::OneSequence),
        (is_full && run.microbatches > 1, Change::OneMicrobatch),
    ];
    let useful = all.into_iter().filter(|(is_useful, _)| *is_useful);
    useful.map(|(_, change)| change).collect()
}

/// Shorter sequences, the longest first.
fn lengths(run: &TrainingRun) -> impl Iterator<Item = u32> {
    let halves = std::iter::successors(Some(run.sequence_len / 2), |len| Some(len / 2));
    halves.take_while(|&len| len >= SEQUENCE_MIN)
}

/// The fine-tune with these changes; later ones override earlier ones.
fn with(run: &TrainingRun, changes: &[Change]) -> TrainingRun {
    let mut run = run.clone();
    for change in changes {
        match *change {
            Change::Lora => {
                run.trainable = TrainingRun::lora(LORA_R, run.sequence_len).trainable;
            }
            Change::Recompute => run.recompute = true,
            Change::Bits8 => run.moments = MomentForm::Bits8,
            Change::OneSequence => run.micro_batch_size = 1,
            Change::OneMicrobatch => run.microbatches = 1,
            Change::SequenceLen(len) => run.sequence_len = len,
        }
    }
    run
}
