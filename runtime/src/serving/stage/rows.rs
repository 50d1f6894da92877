//! The rows of a pass: hidden states that come in, and those that go out.

use concord_proto::Digest;
use concord_proto::serving::{PassHeader, Passed, SequenceRun, row_digest};

/// A pass that has arrived, checked.
#[derive(Debug)]
pub(crate) struct ReceivedPass {
    pub(crate) header: PassHeader,
    /// Hidden states, row after row.
    pub(crate) rows: Vec<f32>,
}

/// A pass to be sent.
pub(crate) struct OutgoingPass {
    pub(crate) runs: Vec<SequenceRun>,
    pub(crate) digests: Vec<Digest>,
    pub(crate) rows: Vec<f32>,
    /// What the coordinator is told once it is sent.
    pub(crate) passed: Passed,
}

/// The digests of rows of `hidden` features.
pub(crate) fn digests(rows: &[f32], hidden: usize) -> Vec<Digest> {
    rows.chunks_exact(hidden).map(row_digest).collect()
}

/// The rows of each run, `[start, end)`.
pub(crate) fn ranges(runs: &[SequenceRun]) -> impl Iterator<Item = std::ops::Range<usize>> {
    let mut end = 0;
    runs.iter().map(move |run| {
        let start = end;
        end += run.count as usize;
        start..end
    })
}
