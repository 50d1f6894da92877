//! A plan: which worker holds which layers and computes which microbatches. It changes no bit.
//!
//! ```
//! use concord_proto::{Digest, JobId, Keypair, Layers, Plan, Replica};
//!
//! let workers = [1, 2].map(|secret| Keypair::from_secret([secret; 32]).public());
//! let plan = Plan {
//!     job: JobId(Digest::default()),
//!     epoch: 0,
//!     stages: vec![Layers::new(0, 3), Layers::new(3, 8)],
//!     replicas: vec![Replica { workers: workers.to_vec(), start: 0, end: 4 }],
//! };
//! plan.validate(8, 4)?;
//! assert_eq!(plan.slot(&workers[1]).map(|slot| slot.stage), Some(1));
//! # Ok::<(), String>(())
//! ```

use borsh::{BorshDeserialize, BorshSerialize};

use crate::crypto::{Digest, Domain, WorkerId};
use crate::training::{JobId, Layers};

/// A pipeline: one worker for each stage, and the run of microbatches that it computes.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Replica {
    /// One worker for each stage, in order.
    pub workers: Vec<WorkerId>,
    /// First microbatch of its run.
    pub start: u32,
    /// One past the last.
    pub end: u32,
}

/// Stages x replicas.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Plan {
    pub job: JobId,
    /// Counts the plans of a job; messages of an older plan are dropped.
    pub epoch: u32,
    /// Layers of each stage, in order, without gaps. The same in every replica.
    pub stages: Vec<Layers>,
    /// The pipelines; their runs cover all microbatches in order.
    pub replicas: Vec<Replica>,
}

/// Where a worker stands in a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    /// Index of the replica.
    pub replica: usize,
    /// Index of the stage.
    pub stage: usize,
}

impl Plan {
    /// The digest that claims name.
    pub fn digest(&self) -> Digest {
        Digest::of_value(Domain::Plan, self)
    }

    /// All workers, replica by replica, stage by stage.
    pub fn workers(&self) -> impl Iterator<Item = (Slot, WorkerId)> + '_ {
        self.replicas
            .iter()
            .enumerate()
            .flat_map(|(replica, pipeline)| {
                let slot = move |stage| Slot { replica, stage };
                pipeline
                    .workers
                    .iter()
                    .enumerate()
                    .map(move |(stage, id)| (slot(stage), *id))
            })
    }

    /// Where `worker` stands.
    pub fn slot(&self, worker: &WorkerId) -> Option<Slot> {
        self.workers()
            .find(|(_, id)| id == worker)
            .map(|(slot, _)| slot)
    }

    /// Checks shape and coverage.
    ///
    /// # Errors
    /// A sentence naming what does not hold.
    pub fn validate(&self, layers: u32, microbatches: u32) -> Result<(), String> {
        if !contiguous(self.stages.iter().map(|s| (s.start, s.end)), layers.into()) {
            return Err(format!(
                "the stages do not cover the {layers} layers in order"
            ));
        }
        if !contiguous(self.replicas.iter().map(|r| (r.start, r.end)), microbatches) {
            return Err(format!(
                "the replicas do not cover the {microbatches} microbatches"
            ));
        }
        if self
            .replicas
            .iter()
            .any(|r| r.workers.len() != self.stages.len())
        {
            return Err("a replica has not one worker for each stage".to_string());
        }
        let mut ids: Vec<WorkerId> = self.workers().map(|(_, id)| id).collect();
        ids.sort_unstable();
        let distinct = ids.windows(2).all(|pair| pair[0] != pair[1]);
        if distinct {
            Ok(())
        } else {
            Err("a worker stands twice in the plan".to_string())
        }
    }
}

/// Whether runs follow one another from the first place to `end`, none of them empty.
fn contiguous<T: Copy + Default + PartialOrd>(
    mut runs: impl Iterator<Item = (T, T)>,
    end: T,
) -> bool {
    let mut at = T::default();
    runs.all(|(start, stop)| {
        let fits = start == at && stop > start;
        at = stop;
        fits
    }) && at == end
}
