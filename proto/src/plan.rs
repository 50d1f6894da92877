//! A plan: which worker holds which layers and computes which microbatches. It changes no bit.

use borsh::{BorshDeserialize, BorshSerialize};

use crate::digest::{Digest, Domain};
use crate::job::{JobId, Place};
use crate::signed::WorkerId;

/// The decoder layers `[start, end)` of a stage.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, BorshSerialize, BorshDeserialize,
)]
pub struct Layers {
    /// First layer.
    pub start: u32,
    /// One past the last layer.
    pub end: u32,
}

impl Layers {
    /// Whether a tensor at `place` belongs to this stage of a model of `count` layers.
    pub fn holds(self, place: Place, count: u32) -> bool {
        let (first, last) = (self.start == 0, self.end == count);
        match place {
            Place::Embed => first,
            Place::Layer(layer) => (self.start..self.end).contains(&layer),
            Place::Head => last,
            Place::EmbedAndHead => first || last,
        }
    }
}

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
    /// The job.
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
pub struct Seat {
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
    pub fn workers(&self) -> impl Iterator<Item = (Seat, WorkerId)> + '_ {
        self.replicas
            .iter()
            .enumerate()
            .flat_map(|(replica, pipeline)| {
                let seat = move |stage| Seat { replica, stage };
                pipeline
                    .workers
                    .iter()
                    .enumerate()
                    .map(move |(stage, id)| (seat(stage), *id))
            })
    }

    /// Where `worker` stands.
    pub fn seat(&self, worker: &WorkerId) -> Option<Seat> {
        self.workers()
            .find(|(_, id)| id == worker)
            .map(|(seat, _)| seat)
    }

    /// Checks shape and coverage.
    ///
    /// # Errors
    /// A sentence naming what does not hold.
    pub fn validate(&self, layers: u32, microbatches: u32) -> Result<(), String> {
        let contiguous = |edges: Vec<(u32, u32)>, end: u32| {
            let mut at = 0;
            edges.iter().all(|&(start, stop)| {
                let fits = start == at && stop > start;
                at = stop;
                fits
            }) && at == end
        };
        if !contiguous(
            self.stages.iter().map(|s| (s.start, s.end)).collect(),
            layers,
        ) {
            return Err(format!(
                "the stages do not cover the {layers} layers in order"
            ));
        }
        if !contiguous(
            self.replicas.iter().map(|r| (r.start, r.end)).collect(),
            microbatches,
        ) {
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
