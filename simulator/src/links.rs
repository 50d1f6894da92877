//! Links between workers that carry nothing.

use std::collections::BTreeSet;

use concord_proto::WorkerId;
use concord_proto::session::ToCoordinator;

use super::worker::Frame;

/// A process that is slow to hear and to be heard.
#[derive(Clone, Copy, Debug)]
pub struct Lag {
    pub from: u64,
    pub until: u64,
    pub extra: u64,
}

#[derive(Default)]
pub struct Links {
    /// Who does not reach whom.
    pub broken: BTreeSet<(WorkerId, WorkerId)>,
    /// Whom the coordinator does not reach.
    pub hidden: BTreeSet<WorkerId>,
    /// When it reaches them, too, if ever.
    pub shown_from: Option<u64>,
    told: BTreeSet<(WorkerId, WorkerId, u32)>,
}

impl Links {
    /// Breaks the links of a worker to all others, or of all others to it.
    pub fn cut(&mut self, worker: WorkerId, others: &[WorkerId], inwards: bool) {
        for other in others.iter().filter(|other| **other != worker) {
            let pair = if inwards {
                (*other, worker)
            } else {
                (worker, *other)
            };
            self.broken.insert(pair);
        }
    }

    /// Whether a frame gets lost, and what its sender says: once for each plan.
    pub fn loss(&mut self, frame: &Frame) -> Option<Option<ToCoordinator>> {
        let (from, to) = (frame.origin.worker, frame.to);
        if !self.broken.contains(&(from, to)) {
            return None;
        }
        let is_news = self.told.insert((from, to, frame.epoch));
        Some(is_news.then(|| ToCoordinator::Unreached {
            job: frame.job,
            epoch: frame.epoch,
            worker: to,
            reason: "connection refused".to_string(),
        }))
    }
}
