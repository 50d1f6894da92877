//! Tries whether a worker is reached at the address that it gave, as its neighbours will.
//!
//! A worker may give any address, and so make the coordinator connect to it. What it is told of the
//! outcome is therefore no more than whether a worker with its key answers there: not whether a
//! port is open, not how long it took to close.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use concord_proto::address::Address;
use concord_proto::session::{AddressChallenge, AddressProof};
use concord_proto::wire::worker_client::WorkerClient;
use concord_proto::wire::{Body, ending};
use concord_proto::{Keypair, WorkerId, canonical, link};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::driver_event::DriverEvent;
use crate::core::{CoreEvent, SessionId};

/// A worker that has not answered within this time is not reached. Other failures are told after
/// the same time, too, so that it does not show what kind they are.
const ANSWER_MAX: Duration = Duration::from_secs(4);

/// Addresses that are tried at a time. Workers beyond that wait for their turn.
const PROBES_MAX: usize = 64;

/// All that is told of a failure.
const NOT_THERE: &str = "no Concord worker with this key answers there";

/// Tries addresses beside the driver.
pub(super) struct Probes {
    free: Arc<Semaphore>,
    /// One for each session at most, so that no more wait than are connected.
    under_way: BTreeMap<SessionId, AbortHandle>,
    /// Weak, because the driver ends once all strong senders are dropped.
    driver: mpsc::WeakSender<DriverEvent>,
    /// The coordinator's, which is shown to workers.
    key: Keypair,
}

impl Probes {
    pub(super) fn new(driver: &mpsc::Sender<DriverEvent>, key: Keypair) -> Self {
        Self {
            key,
            free: Arc::new(Semaphore::new(PROBES_MAX)),
            under_way: BTreeMap::new(),
            driver: driver.downgrade(),
        }
    }

    /// Tries the address of a worker, and tells the driver the outcome. While it is being tried
    /// for the same session, no second try begins.
    pub(super) fn start(&mut self, session: SessionId, worker: WorkerId, endpoint: String) {
        self.under_way.retain(|_, task| !task.is_finished());
        if self.under_way.contains_key(&session) {
            return;
        }
        let mut nonce = [0; 32];
        if let Err(why) = getrandom::fill(&mut nonce) {
            tracing::error!("no random numbers to try an address with: {why}");
            return;
        }
        let (driver, free, key) = (self.driver.clone(), self.free.clone(), self.key.clone());
        let task = tokio::spawn(async move {
            // The semaphore is never closed.
            let Ok(permit) = free.acquire_owned().await else {
                return;
            };
            let due = Instant::now() + ANSWER_MAX;
            let challenge = AddressChallenge { worker, nonce };
            let asked = tokio::time::timeout_at(due, probe(&endpoint, &challenge, &key)).await;
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
        self.under_way.insert(session, task.abort_handle());
    }

    /// Gives up a try for a session that is over.
    pub(super) fn stop(&mut self, session: &SessionId) {
        if let Some(task) = self.under_way.remove(session) {
            task.abort();
        }
    }
}

/// Asks the process at an address to sign what only the worker can sign.
async fn probe(endpoint: &str, challenge: &AddressChallenge, key: &Keypair) -> Result<(), String> {
    let address = Address::for_others(endpoint).map_err(|error| error.to_string())?;
    let connected = link::connect(&address.of(challenge.worker), key).await;
    let channel = connected.map_err(|error| error.to_string())?;
    let bytes = canonical::encode(challenge);
    let answer = WorkerClient::new(channel).prove(Body { bytes }).await;
    let answer = answer.map_err(|status| ending(&status))?.into_inner();
    let proof: AddressProof = canonical::decode(&answer.bytes).map_err(|why| why.to_string())?;
    match challenge.is_proven_by(&proof) {
        true => Ok(()),
        false => Err("its answer is not signed by the worker's key".to_string()),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// All are tried, however many there are at a time, each once, except one whose session is
    /// over.
    #[tokio::test]
    async fn those_beyond_the_most_at_a_time_wait_for_their_turn() {
        let (events, mut heard) = mpsc::channel(PROBES_MAX * 2);
        let mut probes = Probes::new(&events, Keypair::from_secret([2; 32]));
        let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let nobody = Address::at(closed.local_addr().unwrap()).to_string();
        drop(closed);
        let worker = Keypair::from_secret([1; 32]).public();
        let (count, gone) = (PROBES_MAX as u64 + 8, SessionId(PROBES_MAX as u64 + 3));
        for _ in 0..2 {
            for number in 0..count {
                probes.start(SessionId(number), worker, nobody.clone());
            }
        }
        probes.stop(&gone);
        let mut tried = BTreeSet::new();
        let wait = ANSWER_MAX * 2;
        while let Ok(Some(event)) = tokio::time::timeout(wait, heard.recv()).await {
            let DriverEvent::Core(CoreEvent::Probed { session, failure }) = event else {
                panic!("no outcome of a try");
            };
            assert_eq!(failure.as_deref(), Some(NOT_THERE));
            assert!(tried.insert(session), "{session:?} is tried twice");
            if tried.len() as u64 == count - 1 {
                break;
            }
        }
        assert_eq!(tried.len() as u64, count - 1, "some are not tried");
        assert!(!tried.contains(&gone));
        assert!(heard.try_recv().is_err(), "no more than these");
    }
}
