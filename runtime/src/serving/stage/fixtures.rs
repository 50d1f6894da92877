//! Values for tests.

use concord_proto::serving::{Deployment, SequenceRun, ServedPrecision};
use concord_proto::{Digest, Layers};

use super::binding::StageBinding;

pub(crate) fn binding() -> StageBinding {
    let deployment = Deployment {
        arithmetic: 1,
        model: Digest([1; 32]),
        tokenizer: Digest([2; 32]),
        layers: 4,
        vocab: 100,
        positions: 1_000,
        precision: ServedPrecision::of(16),
    };
    StageBinding {
        incarnation: 1,
        id: deployment.id(),
        deployment,
        epoch: 3,
        layers: Layers::new(2, 4),
        pages: 8,
        entering: 4,
        leaving: 4,
        previous: None,
        next: None,
    }
}

pub(crate) fn run(sequence: u64, first: u32, count: u32, pages: &[u32]) -> SequenceRun {
    SequenceRun {
        sequence,
        first,
        count,
        pages: pages.to_vec(),
        adapter: None,
    }
}
