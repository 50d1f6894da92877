//! What a worker holds so that a checker can compute its leaves again: inputs by address, until the
//! coordinator releases them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use concord_kernels::{KernelError, Tensor};
use concord_models::train::Moment;
use concord_proto::session::{AuditedStep, OpenRequest, OpenedMicrobatch, Opening};
use concord_proto::tree::Node;
use concord_proto::{Digest, JobId, LeafKey, LeafPhase};

use crate::blobs::OpenBlob;

/// Inputs of the leaves of recent steps.
#[derive(Default)]
pub(crate) struct Openings {
    steps: BTreeMap<(JobId, u32, u32), StepOpenings>,
}

/// Inputs of the leaves of one step.
#[derive(Default)]
pub(crate) struct StepOpenings {
    leaves: BTreeMap<LeafKey, Opening>,
    blobs: BTreeMap<Digest, OpenBlob>,
}

impl StepOpenings {
    /// Adds the inputs of a leaf: for each port the addresses that its digest is over.
    pub(crate) fn leaf(&mut self, phase: LeafPhase, microbatch: u32, ports: Vec<Vec<Digest>>) {
        self.leaves
            .insert(LeafKey { phase, microbatch }, Opening::Inputs(ports));
    }

    /// The sum over `node` is opened by what its microbatches are computed from again.
    pub(crate) fn again(
        &mut self,
        node: Node,
        values: Vec<Digest>,
        microbatches: Vec<OpenedMicrobatch>,
    ) {
        let opening = Opening::Again {
            values,
            microbatches,
        };
        let key = LeafKey {
            phase: LeafPhase::Reduce,
            microbatch: node.start,
        };
        self.leaves.insert(key, opening);
    }

    pub(crate) fn tensor(&mut self, digest: Digest, tensor: &Arc<Tensor>) {
        self.blobs
            .entry(digest)
            .or_insert_with(|| OpenBlob::Tensor(tensor.clone()));
    }

    pub(crate) fn moment(&mut self, digest: Digest, moment: &Moment) {
        self.blobs
            .entry(digest)
            .or_insert_with(|| OpenBlob::Moment(moment.clone()));
    }

    pub(crate) fn bytes(&mut self, digest: Digest, bytes: Vec<u8>) {
        self.blobs.insert(digest, OpenBlob::Bytes(Arc::new(bytes)));
    }
}

impl Openings {
    /// Adds inputs of leaves of a step to those that are there.
    pub(crate) fn add(&mut self, job: JobId, step: u32, epoch: u32, openings: StepOpenings) {
        let held = self.steps.entry((job, step, epoch)).or_default();
        held.leaves.extend(openings.leaves);
        held.blobs.extend(openings.blobs);
    }

    /// The step is final, and these of its leaves may be asked for: forgets the inputs of others.
    pub(crate) fn keep(&mut self, audited: &AuditedStep) {
        let at = (audited.job, audited.step, audited.epoch);
        let Some(held) = self.steps.get_mut(&at) else {
            return;
        };
        held.leaves.retain(|key, _| audited.leaves.contains(key));
        let kept: BTreeSet<Digest> = held.leaves.values().flat_map(addresses).collect();
        held.blobs.retain(|digest, _| kept.contains(digest));
    }

    /// Forgets a step.
    pub(crate) fn remove(&mut self, job: JobId, step: u32, epoch: u32) {
        self.steps.remove(&(job, step, epoch));
    }

    /// Forgets the steps of a job below `below`.
    pub(crate) fn release(&mut self, job: &JobId, below: u32) {
        self.steps
            .retain(|(of, step, _), _| of != job || *step >= below);
    }

    /// Fetches what lies on a GPU, so that its memory is free.
    ///
    /// # Errors
    /// [`KernelError::Cuda`] where the GPU fails.
    pub(crate) fn fetch(&mut self) -> Result<(), KernelError> {
        let steps = self.steps.values_mut();
        for blob in steps.flat_map(|step| step.blobs.values_mut()) {
            blob.fetch()?;
        }
        Ok(())
    }

    /// The inputs of a leaf.
    pub(crate) fn open(&self, request: &OpenRequest) -> Opening {
        let step = self.steps.get(&(request.job, request.step, request.epoch));
        let key = LeafKey {
            phase: request.phase,
            microbatch: request.microbatch,
        };
        let leaf = step.and_then(|step| step.leaves.get(&key));
        leaf.cloned().unwrap_or(Opening::Gone)
    }

    /// A blob of any step.
    pub(crate) fn blob(&self, digest: &Digest) -> Option<OpenBlob> {
        self.steps
            .values()
            .rev()
            .find_map(|step| step.blobs.get(digest).cloned())
    }
}

/// The blobs that open a leaf.
pub(super) fn addresses(opening: &Opening) -> Vec<Digest> {
    match opening {
        Opening::Inputs(ports) => ports.concat(),
        Opening::Again {
            values,
            microbatches,
        } => {
            let came_in = |opened: &OpenedMicrobatch| [opened.activation, opened.gradient];
            let came_in = microbatches.iter().flat_map(came_in).flatten();
            values.iter().copied().chain(came_in).collect()
        }
        Opening::Gone => Vec::new(),
    }
}
