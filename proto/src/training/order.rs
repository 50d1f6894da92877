//! Which sequences a microbatch consists of: a pure function of spec and manifest.

use crate::crypto::{Digest, Domain, Hasher};
use crate::manifest::DataManifest;
use crate::training::{JobSpec, Order};

/// Which sequences every microbatch of a job takes. Keeps the permutation of one round of the data.
#[derive(Clone, Debug)]
pub struct BatchPlan {
    order: Order,
    count: u64,
    per_microbatch: u64,
    per_step: u64,
    round: Option<(u64, Vec<u32>)>,
}

impl BatchPlan {
    /// The plan of a job over a data set of `count` sequences (at least one).
    ///
    /// # Panics
    /// For a data set without sequences: callers check the manifest first.
    pub fn new(spec: &JobSpec, count: u64) -> Self {
        assert!(count > 0, "a data set has at least one sequence");
        Self {
            order: spec.order,
            count,
            per_microbatch: u64::from(spec.micro_batch_size),
            per_step: spec.sequences_per_step(),
            round: None,
        }
    }

    /// Indices of the sequences of a microbatch, in order.
    pub fn sequences(&mut self, step: u32, microbatch: u32) -> Vec<u64> {
        let start = u64::from(step) * self.per_step + u64::from(microbatch) * self.per_microbatch;
        (start..start + self.per_microbatch)
            .map(|position| self.sequence_at(position))
            .collect()
    }

    fn sequence_at(&mut self, position: u64) -> u64 {
        let (round, place) = (position / self.count, position % self.count);
        let Order::Shuffled { seed } = self.order else {
            return place;
        };
        if self
            .round
            .as_ref()
            .is_none_or(|(cached, _)| *cached != round)
        {
            self.round = Some((round, permutation(seed, round, self.count)));
        }
        let permutation = self.round.as_ref().map(|(_, p)| p).expect("just filled");
        u64::from(permutation[place as usize])
    }
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
        for microbatch in 0..spec.microbatches {
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
