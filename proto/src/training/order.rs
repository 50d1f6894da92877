//! Which sequences a microbatch consists of: a pure function of spec and manifest.

use crate::crypto::{Digest, Domain, Hasher};
use crate::manifest::DataManifest;
use crate::training::{EvaluationSpec, HeldOut, JobSpec, Order, StepWork};

/// The round of the data by whose digests held-out sequences are drawn: no job comes as far.
const HELD_OUT_ROUND: u64 = u64::MAX;

/// Which sequences every microbatch of a job takes. Keeps the permutation of one round of the data.
#[derive(Clone, Debug)]
pub struct BatchPlan {
    spec: JobSpec,
    /// Sequences that updates learn from.
    learnt: Vec<u32>,
    /// Sequences that evaluations take.
    held_out: Vec<u32>,
    round: Option<(u64, Vec<u32>)>,
}

impl BatchPlan {
    /// The plan of a job over a data set of `count` sequences (at least one more than are held
    /// out).
    ///
    /// # Panics
    /// For a data set without sequences to learn from: callers check the manifest first, by
    /// [`JobSpec::check_data`].
    pub fn new(spec: &JobSpec, count: u64) -> Self {
        let (learnt, held_out) = split(spec.evaluation.as_ref(), count as u32);
        assert!(!learnt.is_empty(), "a data set has at least one sequence");
        Self {
            spec: spec.clone(),
            learnt,
            held_out,
            round: None,
        }
    }

    /// The spec of the job.
    pub fn spec(&self) -> &JobSpec {
        &self.spec
    }

    /// Indices of the sequences of a microbatch of a step of the chain, in order.
    pub fn sequences(&mut self, step: u32, microbatch: u32) -> Vec<u64> {
        match (self.spec.work(step), self.spec.evaluation) {
            (StepWork::Evaluation { .. }, Some(evaluation)) => {
                let size = evaluation.micro_batch_size as usize;
                let start = (microbatch as usize * size).min(self.held_out.len());
                let end = (start + size).min(self.held_out.len());
                let sequences = self.held_out[start..end].iter();
                sequences.map(|&index| u64::from(index)).collect()
            }
            (StepWork::Update(update) | StepWork::Evaluation { updates: update }, _) => {
                self.of_update(update, microbatch)
            }
        }
    }

    fn of_update(&mut self, update: u32, microbatch: u32) -> Vec<u64> {
        let size = u64::from(self.spec.micro_batch_size);
        let before = u64::from(update) * self.spec.sequences_per_step();
        let start = before + u64::from(microbatch) * size;
        (start..start + size)
            .map(|position| self.sequence_at(position))
            .collect()
    }

    fn sequence_at(&mut self, position: u64) -> u64 {
        let count = self.learnt.len() as u64;
        let (round, place) = (position / count, position % count);
        let Order::Shuffled { seed } = self.spec.order else {
            return self.learnt[place as usize].into();
        };
        if self
            .round
            .as_ref()
            .is_none_or(|(cached, _)| *cached != round)
        {
            self.round = Some((round, permutation(seed, round, count)));
        }
        let permutation = self.round.as_ref().map(|(_, p)| p).expect("just filled");
        self.learnt[permutation[place as usize] as usize].into()
    }
}

/// The sequences that are learnt and those that are held out, each in the order of the data set.
fn split(evaluation: Option<&EvaluationSpec>, count: u32) -> (Vec<u32>, Vec<u32>) {
    let drawn = match evaluation.map(|evaluation| evaluation.held_out) {
        None => Vec::new(),
        Some(HeldOut::Last { sequences }) => (count.saturating_sub(sequences)..count).collect(),
        Some(HeldOut::Drawn { sequences, seed }) => held_out(seed, sequences, count),
    };
    let mut is_held = vec![false; count as usize];
    drawn
        .iter()
        .for_each(|&index| is_held[index as usize] = true);
    let learnt = (0..count).filter(|&index| !is_held[index as usize]);
    (learnt.collect(), drawn)
}

/// The `sequences` of `count` that are held out by this seed, rising: those with the lowest keyed
/// digests.
pub fn held_out(seed: u64, sequences: u32, count: u32) -> Vec<u32> {
    let mut drawn = permutation(seed, HELD_OUT_ROUND, u64::from(count));
    drawn.truncate(sequences as usize);
    drawn.sort_unstable();
    drawn
}

/// The sequences ordered by a keyed digest of their index; between equal digests the index decides.
fn permutation(seed: u64, round: u64, count: u64) -> Vec<u32> {
    let key = |index: u32| {
        let mut hasher = Hasher::new(Domain::Shuffle);
        hasher.update(&seed.to_le_bytes());
        hasher.update(&round.to_le_bytes());
        hasher.update(&index.to_le_bytes());
        hasher.finish()
    };
    let mut keyed: Vec<(Digest, u32)> = (0..count as u32).map(|i| (key(i), i)).collect();
    keyed.sort_unstable();
    keyed.into_iter().map(|(_, index)| index).collect()
}

/// The digest of a microbatch, from the digests of its sequences.
pub fn microbatch_digest(data: &DataManifest, sequences: &[u64]) -> Digest {
    let mut hasher = Hasher::new(Domain::Batch);
    for &index in sequences {
        hasher.update(&data.sequences[index as usize].digest.0);
    }
    hasher.finish()
}

impl BatchPlan {
    /// The digests of the microbatches of a step, in order, and how many tokens its loss counts.
    pub fn step_digests(
        &mut self,
        spec: &JobSpec,
        data: &DataManifest,
        step: u32,
    ) -> (Vec<Digest>, u64) {
        let mut digests = Vec::new();
        let mut targets = 0;
        for microbatch in 0..spec.microbatches_of(step) {
            let sequences = self.sequences(step, microbatch);
            let of = |&index: &u64| u64::from(data.sequences[index as usize].targets);
            targets += sequences.iter().map(of).sum::<u64>();
            digests.push(microbatch_digest(data, &sequences));
        }
        (digests, targets)
    }

    /// The root over the microbatches of a step, and how many tokens its loss counts.
    pub fn step_root(&mut self, spec: &JobSpec, data: &DataManifest, step: u32) -> (Digest, u64) {
        let (digests, targets) = self.step_digests(spec, data, step);
        (crate::crypto::merkle::root(&digests), targets)
    }
}

impl JobSpec {
    /// Checks that a data set is whole, and that the job can learn from it and be evaluated on it.
    ///
    /// # Errors
    /// The first thing that does not hold, as a sentence.
    pub fn check_data(&self, data: &DataManifest) -> Result<(), String> {
        data.check()?;
        let Some(evaluation) = &self.evaluation else {
            return Ok(());
        };
        let (count, held) = (data.sequences.len(), evaluation.held_out.sequences());
        if held as usize >= count {
            return Err(format!("{held} of its {count} sequences are held out"));
        }
        let (_, held_out) = split(Some(evaluation), count as u32);
        let targets = |&index: &u32| data.sequences[index as usize].targets > 0;
        match held_out.iter().any(targets) {
            true => Ok(()),
            false => Err("what is held out of it has no token to predict".to_string()),
        }
    }
}
