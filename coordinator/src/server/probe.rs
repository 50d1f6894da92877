//! Tries whether a worker is reached at the address that it gave, as its neighbours will.
//!
//! A worker may give any address, and so make the coordinator connect to it. What it is told of the
//! outcome is therefore no more than whether a worker with its key answers there: not whether a
//! port is open, not how long it took to close.

use std::sync::Arc;
use std::time::Duration;

use concord_proto::session::{AddressChallenge, AddressProof};
use concord_proto::wire::worker_client::WorkerClient;
use concord_proto::wire::{Body, ending, root_cause};
use concord_proto::{WorkerId, canonical};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::Instant;
use tonic::transport::Endpoint;

use super::driver_event::DriverEvent;
use crate::core::{CoreEvent, SessionId};

/// A worker that has not answered by then is not reached. Other failures are told no earlier.
const ANSWER_MAX: Duration = Duration::from_secs(4);

/// Addresses that are tried at a time. Of workers beyond that it stays unknown whether they are
/// reached.
const PROBES_MAX: usize = 64;

/// All that is told of a failure.
const NOT_THERE: &str = "no Concord worker with this key answers there";

/// Tries addresses beside the driver.
pub(super) struct Probes {
    free: Arc<Semaphore>,
    /// Weak, because the driver ends once nobody can tell it anything any more.
    driver: mpsc::WeakSender<DriverEvent>,
}

impl Probes {
    pub(super) fn new(driver: &mpsc::Sender<DriverEvent>) -> Self {
        Self {
            free: Arc::new(Semaphore::new(PROBES_MAX)),
            driver: driver.downgrade(),
        }
    }

    /// Tries the address of a worker, and tells the driver the outcome.
    pub(super) fn start(&self, session: SessionId, worker: WorkerId, endpoint: String) {
        let Ok(permit) = self.free.clone().try_acquire_owned() else {
            return;
        };
        let mut nonce = [0; 32];
        if let Err(why) = getrandom::fill(&mut nonce) {
            tracing::error!("no random numbers to try an address with: {why}");
            return;
        }
        let driver = self.driver.clone();
        tokio::spawn(async move {
            let due = Instant::now() + ANSWER_MAX;
            let challenge = AddressChallenge { worker, nonce };
            let asked = tokio::time::timeout_at(due, probe(&endpoint, &challenge)).await;
            drop(permit);
            let outcome = asked.unwrap_or_else(|_| Err(format!("no answer within {ANSWER_MAX:?}")));
            if let Err(why) = &outcome {
                // For the log of the coordinator; the worker learns no more than that it failed.
                tracing::debug!(worker = %worker.short(), endpoint, why, "not reached");
                tokio::time::sleep_until(due).await;
            }
            let failure = outcome.err().map(|_| NOT_THERE.to_string());
            if let Some(driver) = driver.upgrade() {
                // Nobody needs it where the driver has ended meanwhile.
                let probed = CoreEvent::Probed { session, failure };
                let _ = driver.send(DriverEvent::Core(probed)).await;
            }
        });
    }
}

/// Asks the process at an address to sign what only the worker can sign.
async fn probe(endpoint: &str, challenge: &AddressChallenge) -> Result<(), String> {
    let endpoint =
        Endpoint::from_shared(endpoint.to_string()).map_err(|error| error.to_string())?;
    let channel = endpoint
        .connect()
        .await
        .map_err(|error| root_cause(&error))?;
    let bytes = canonical::encode(challenge);
    let answer = WorkerClient::new(channel).prove(Body { bytes }).await;
    let answer = answer.map_err(|status| ending(&status))?.into_inner();
    let proof: AddressProof = canonical::decode(&answer.bytes).map_err(|why| why.to_string())?;
    match challenge.is_proven_by(&proof) {
        true => Ok(()),
        false => Err("its answer is not signed by the worker's key".to_string()),
    }
}
