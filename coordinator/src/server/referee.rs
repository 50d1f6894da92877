//! The referee: a leaf that two parties contradict each other about is re-run in this process.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::pin::Pin;
use std::sync::Arc;

use concord_proto::ledger::Finding;
use concord_proto::session::AuditOrder;
use concord_proto::{Digest, JobId, Keypair, WorkerId};
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};

use super::driver_event::DriverEvent;
use crate::core::CoreEvent;

/// What a referee has found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refereed {
    /// [`Finding::Inconclusive`] where the leaf cannot be computed here.
    pub finding: Finding,
    /// The addresses of what the leaf was computed from; see
    /// [`concord_proto::Conviction::FalseVerdict`].
    pub inputs: Vec<Vec<Digest>>,
    /// What only who has computed the leaf knows, under the key that was asked for: see
    /// [`concord_proto::ledger::Verdict::trace`].
    pub trace: Digest,
    /// Whether it can compute the leaf at all: it has the memory for it. Otherwise others are
    /// asked.
    pub is_able: bool,
}

/// How the process of a coordinator reaches it, and workers: with the coordinator's own key.
#[derive(Clone)]
pub struct OwnLink {
    /// Such as "concord://KEY@127.0.0.1:7700".
    pub url: String,
    /// That of the coordinator.
    pub key: Keypair,
}

/// Re-runs leaves. The coordinator holds no tensors and links no kernel, so the program that it is
/// a part of brings this along.
pub trait Referee: Debug + Send + Sync {
    /// Re-runs a leaf of a job whose blobs are in the store of this coordinator. It is asked for
    /// one at a time, and may take as long as it needs. Its trace is under the key `traced`.
    fn rerun(
        &self,
        coordinator: OwnLink,
        order: AuditOrder,
        traced: WorkerId,
    ) -> Pin<Box<dyn Future<Output = Refereed> + Send>>;
}

/// The re-runs of the driver.
pub(super) struct Reruns {
    referee: Option<Arc<dyn Referee>>,
    coordinator: OwnLink,
    /// Weak: re-runs do not keep the driver running.
    driver: mpsc::WeakSender<DriverEvent>,
    running: BTreeMap<JobId, AbortHandle>,
}

impl Reruns {
    pub(super) fn new(
        referee: Option<Arc<dyn Referee>>,
        coordinator: OwnLink,
        driver: &mpsc::Sender<DriverEvent>,
    ) -> Self {
        Self {
            referee,
            coordinator,
            driver: driver.downgrade(),
            running: BTreeMap::new(),
        }
    }

    /// Begins a re-run. Whatever comes of it, the core gets an answer. An earlier one of the job is
    /// given up: nobody waits for it any more.
    pub(super) fn start(&mut self, order: AuditOrder, traced: WorkerId) {
        let (job, number) = (order.job, order.order);
        let (referee, coordinator) = (self.referee.clone(), self.coordinator.clone());
        let driver = self.driver.clone();
        let task = tokio::spawn(async move {
            let found = match referee {
                Some(referee) => {
                    // A task of its own, which ends with this one: a panic there is an answer, too.
                    let mut rerun = JoinSet::new();
                    rerun.spawn(referee.rerun(coordinator, order, traced));
                    match rerun.join_next().await {
                        Some(Ok(found)) => found,
                        Some(Err(why)) => cannot(why.to_string()),
                        None => cannot("the re-run did not begin".to_string()),
                    }
                }
                None => cannot("this coordinator has no referee".to_string()),
            };
            let event = CoreEvent::Refereed {
                job,
                order: number,
                finding: found.finding,
                inputs: found.inputs,
                trace: found.trace,
                is_able: found.is_able,
            };
            if let Some(driver) = driver.upgrade() {
                // The driver may have ended.
                let _ = driver.send(DriverEvent::Core(event)).await;
            }
        });
        self.running.retain(|_, task| !task.is_finished());
        if let Some(earlier) = self.running.insert(job, task.abort_handle()) {
            earlier.abort();
        }
    }
}

fn cannot(reason: String) -> Refereed {
    Refereed {
        finding: Finding::Inconclusive { reason },
        inputs: Vec::new(),
        trace: Digest::default(),
        is_able: true,
    }
}
