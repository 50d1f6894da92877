//! Tries whether a worker is reached at the address that it gave, as its neighbours will.

use std::sync::Arc;
use std::time::Duration;

use concord_proto::session::OpenRequest;
use concord_proto::wire::worker_client::WorkerClient;
use concord_proto::wire::{Body, ending};
use concord_proto::{Digest, JobId, LeafPhase, canonical};
use tokio::sync::{Semaphore, mpsc};
use tonic::transport::Endpoint;

use super::driver::Input;
use crate::core::{Event, SessionId};

/// Who has not answered by then is not reached.
const ANSWER_MAX: Duration = Duration::from_secs(4);

/// Addresses that are tried at a time. Of workers beyond that it is not known.
const PROBES_MAX: usize = 64;

/// Tries addresses beside the driver.
pub(super) struct Probes {
    free: Arc<Semaphore>,
    /// The driver ends with its inputs: this does not keep them open.
    inputs: mpsc::WeakSender<Input>,
}

impl Probes {
    pub(super) fn new(inputs: &mpsc::Sender<Input>) -> Self {
        Self {
            free: Arc::new(Semaphore::new(PROBES_MAX)),
            inputs: inputs.downgrade(),
        }
    }

    /// Tries an address; the driver is told what came of it.
    pub(super) fn start(&self, session: SessionId, endpoint: String) {
        let Ok(permit) = self.free.clone().try_acquire_owned() else {
            return;
        };
        let inputs = self.inputs.clone();
        tokio::spawn(async move {
            let failure = probe(endpoint).await.err();
            drop(permit);
            if let Some(inputs) = inputs.upgrade() {
                // Nobody needs it where the driver has ended meanwhile.
                let _ = inputs
                    .send(Input::Event(Event::Probed { session, failure }))
                    .await;
            }
        });
    }
}

/// Asks whoever is at an address what only a worker answers.
async fn probe(endpoint: String) -> Result<(), String> {
    let endpoint = Endpoint::from_shared(endpoint).map_err(|error| error.to_string())?;
    let asked = async {
        let channel = endpoint.connect().await.map_err(|error| cause(&error))?;
        // No worker has it: the answer is that it is gone.
        let request = OpenRequest {
            job: JobId(Digest::default()),
            epoch: 0,
            step: 0,
            phase: LeafPhase::Forward,
            microbatch: 0,
        };
        let bytes = canonical::encode(&request);
        let answer = WorkerClient::new(channel).open(Body { bytes }).await;
        answer.map(drop).map_err(|status| {
            let said = ending(&status);
            format!("whoever answers there is no worker of this release ({said})")
        })
    };
    let asked = tokio::time::timeout(ANSWER_MAX, asked).await;
    asked.unwrap_or_else(|_| Err(format!("no answer within {ANSWER_MAX:?}")))
}

/// The innermost reason of an error: the one that says something.
fn cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}
