//! The state of the pool in words and figures, as the core and the pipelines report it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use concord_proto::serving::{PoolView, WorkerView};

/// What is known of the pool beside its pipelines.
#[derive(Default)]
pub(super) struct ServingStatus {
    /// Whether the members are about to be ended on purpose.
    parting: AtomicBool,
    figures: Mutex<PoolFigures>,
}

/// Never held over an await.
#[derive(Default)]
struct PoolFigures {
    words: String,
    workers: Vec<WorkerView>,
    /// Audits that agreed, and those that did not.
    audits: (u64, u64),
    failovers: u64,
    /// Seconds from the last loss of a stage to the next token.
    last_resume: Option<f64>,
}

impl ServingStatus {
    fn figures(&self) -> MutexGuard<'_, PoolFigures> {
        self.figures.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in what the core says of the pool.
    pub(super) fn report(&self, words: String, workers: Vec<WorkerView>, audits: (u64, u64)) {
        let mut figures = self.figures();
        (figures.words, figures.workers, figures.audits) = (words, workers, audits);
    }

    /// A pipeline runs again after it lost a stage.
    pub(super) fn failed_over(&self) {
        self.figures().failovers += 1;
    }

    /// Tokens come again, so long after a stage was lost.
    pub(super) fn resumed(&self, after: Duration) {
        self.figures().last_resume = Some(after.as_secs_f64());
    }

    /// What the deployment waits for, in words.
    pub(super) fn words(&self) -> String {
        let figures = self.figures();
        if figures.words.is_empty() {
            return "it starts".to_string();
        }
        figures.words.clone()
    }

    /// From here on stages are expected to end.
    pub(super) fn part(&self) {
        self.parting.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_parting(&self) -> bool {
        self.parting.load(Ordering::Relaxed)
    }

    /// The pool without its pipelines.
    pub(super) fn view(&self) -> PoolView {
        let figures = self.figures();
        PoolView {
            ready: false,
            state: figures.words.clone(),
            workers: figures.workers.clone(),
            pipelines: Vec::new(),
            failovers: figures.failovers,
            last_resume_seconds: figures.last_resume,
            audits: figures.audits,
            receipts_lost: 0,
        }
    }
}
