//! The binding of a stage to its place in a pipeline, and what may come to it there.

use std::collections::BTreeSet;

use concord_proto::limits::FRAME_BYTES_MAX;
use concord_proto::serving::{Deployment, DeploymentId, PAGE_TOKENS, SequenceRun, StageAssignment};
use concord_proto::{Layers, WorkerId};

/// Rows of a pass: far more than any device does at once.
const ROWS_MAX: usize = 8_192;

/// What a stage has to know of its place in a pipeline.
#[derive(Clone, Debug)]
pub(crate) struct StageBinding {
    /// Counts the bindings of this process: messages for an older incarnation are dropped.
    pub(crate) incarnation: u64,
    pub(crate) deployment: Deployment,
    pub(crate) id: DeploymentId,
    pub(crate) epoch: u32,
    pub(crate) layers: Layers,
    pub(crate) pages: u32,
    /// Columns of the rows that come in, where they are not tokens.
    pub(crate) entering: usize,
    /// Columns of the rows that go out.
    pub(crate) leaving: usize,
    /// The worker that sends passes; with none, the coordinator does.
    pub(crate) previous: Option<WorkerId>,
    /// The address that passes go to; with none, results go to the coordinator.
    pub(crate) next: Option<String>,
}

impl StageBinding {
    /// The binding that a valid assignment gives; none where it gives no layers.
    pub(crate) fn new(
        assignment: &StageAssignment,
        incarnation: u64,
        [entering, leaving]: [usize; 2],
    ) -> Option<Self> {
        let layers = assignment.layers()?;
        let place = assignment.stage? as usize;
        Some(Self {
            incarnation,
            id: assignment.deployment.id(),
            deployment: assignment.deployment.clone(),
            epoch: assignment.epoch,
            layers,
            pages: assignment.pages,
            entering,
            leaving,
            previous: place
                .checked_sub(1)
                .map(|before| assignment.workers[before]),
            next: assignment.endpoints.get(place + 1).cloned(),
        })
    }

    /// Whether the model's head is here.
    pub(crate) fn is_last(&self) -> bool {
        self.layers.end == self.deployment.layers
    }

    /// Bytes of so many rows that come in.
    ///
    /// # Errors
    /// A sentence, where a pass has no or too many rows.
    pub(crate) fn row_bytes(&self, rows: usize) -> Result<usize, String> {
        let bytes = rows.saturating_mul(4 * self.entering);
        if rows == 0 || rows > ROWS_MAX || bytes as u64 > FRAME_BYTES_MAX {
            return Err(format!(
                "a pass of {rows} rows: 1 to {ROWS_MAX} are possible"
            ));
        }
        Ok(bytes)
    }

    /// Checks the runs of a pass of `rows` rows.
    ///
    /// # Errors
    /// A sentence naming the run that does not fit.
    pub(crate) fn check_runs(&self, runs: &[SequenceRun], rows: usize) -> Result<(), String> {
        self.row_bytes(rows)?;
        let mut sequences = BTreeSet::new();
        let mut written = BTreeSet::new();
        let mut left = rows as u64;
        for (index, run) in runs.iter().enumerate() {
            let bad = |what: &str| Err(format!("run {index}: {what}"));
            let end = u64::from(run.first) + u64::from(run.count);
            if run.count == 0 || end > u64::from(self.deployment.positions) {
                return bad("no tokens, or beyond the last position");
            }
            let Some(rest) = left.checked_sub(u64::from(run.count)) else {
                return bad("more tokens than the pass has rows");
            };
            left = rest;
            if (run.pages.len() as u64) != end.div_ceil(u64::from(PAGE_TOKENS)) {
                return bad("its pages do not hold its tokens");
            }
            if run.pages.iter().any(|page| *page >= self.pages) {
                return bad("a page that the stage lacks");
            }
            if !sequences.insert(run.sequence) {
                return bad("its sequence has another run in the pass");
            }
            let fresh = &run.pages[(run.first / PAGE_TOKENS) as usize..];
            if fresh.iter().any(|page| !written.insert(*page)) {
                return bad("another run writes one of its pages");
            }
        }
        if left > 0 {
            return Err(format!("{left} rows belong to no run"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::{binding, run};

    #[test]
    fn runs_must_fit_their_pages_and_each_other() {
        let binding = binding();
        let good = [run(1, 120, 10, &[5, 0]), run(2, 0, 1, &[7])];
        assert_eq!(binding.check_runs(&good, 11), Ok(()));
        // A page that nobody writes may be shared: a common prefix.
        let shared = [run(1, 128, 1, &[5, 0]), run(2, 128, 2, &[5, 1])];
        assert_eq!(binding.check_runs(&shared, 3), Ok(()));
        for (runs, rows, word) in [
            (vec![run(1, 0, 1, &[8])], 1, "lacks"),
            (vec![run(1, 0, 0, &[1])], 1, "no tokens"),
            (vec![run(1, u32::MAX, 2, &[1])], 2, "beyond"),
            (vec![run(1, 0, 2, &[1])], 1, "more tokens"),
            (vec![run(1, 0, 2, &[1])], 3, "no run"),
            (vec![run(1, 128, 1, &[1])], 1, "hold"),
            (vec![run(1, 0, 1, &[1, 2])], 1, "hold"),
            (
                vec![run(1, 0, 1, &[1]), run(1, 1, 1, &[2])],
                2,
                "another run in",
            ),
            (vec![run(1, 0, 1, &[1]), run(2, 0, 1, &[1])], 2, "writes"),
            (Vec::new(), 0, "0 rows"),
            (Vec::new(), 1 << 40, "rows"),
        ] {
            let why = binding.check_runs(&runs, rows).unwrap_err();
            assert!(why.contains(word), "{why} lacks '{word}'");
        }
    }
}
