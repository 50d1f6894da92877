//! The thread that owns the device while a worker serves: passes in, rows or tokens out.

use std::sync::Arc;
use std::time::Instant;

use concord_models::decoder::StageAdapter;
use concord_proto::serving::{FromStage, Pass, SequenceRun, ToStage};
use concord_proto::{Digest, Keypair, Signed};
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};

use super::bound::{BoundStage, ServingStage};
use super::claim::claim;
use super::pass::Rows;
use super::rows::ReceivedPass;
use crate::RuntimeError;
use crate::faults::Faults;

/// What happens to the engine, for the binding of an incarnation.
pub(crate) struct StageEvent {
    pub(crate) incarnation: u64,
    pub(crate) kind: StageEventKind,
}

/// What happens to a stage that serves.
pub(crate) enum StageEventKind {
    /// There is a new binding. The other end is told once passes may come.
    Bind(Box<BoundStage>, oneshot::Sender<Result<(), RuntimeError>>),
    /// The binding is no more.
    Unbind,
    /// A message of the coordinator, which came at this time.
    Order(ToStage, Instant),
    /// A pass has come from the stage before, at this time. The permit bounds how many wait.
    Pass(Box<ReceivedPass>, Instant, OwnedSemaphorePermit),
    /// An adapter is loaded, or may go.
    Adapter(Digest, Option<Arc<StageAdapter>>),
}

/// The engine of a worker that serves.
pub(crate) struct ServingEngine {
    key: Keypair,
    device_name: String,
    /// Told when the GPU cannot go on.
    gpu_gone: mpsc::Sender<RuntimeError>,
    serving: Option<ServingStage>,
    faults: Faults,
}

impl ServingEngine {
    /// An engine without a stage. `gpu_gone` is told when the GPU cannot go on.
    pub(crate) fn new(
        key: Keypair,
        device_name: String,
        gpu_gone: mpsc::Sender<RuntimeError>,
        faults: Faults,
    ) -> Self {
        Self {
            key,
            device_name,
            gpu_gone,
            serving: None,
            faults,
        }
    }

    /// Works until all senders of events are gone.
    pub(crate) fn run(mut self, mut inbox: mpsc::Receiver<StageEvent>) {
        while let Some(event) = inbox.blocking_recv() {
            let done = match event.kind {
                StageEventKind::Bind(bound, is_bound) => {
                    let _ = is_bound.send(self.bind(*bound));
                    Ok(())
                }
                // It is for a binding that is no more.
                _ if self.incarnation() != Some(event.incarnation) => Ok(()),
                StageEventKind::Unbind => {
                    self.serving = None;
                    Ok(())
                }
                StageEventKind::Order(message, arrived) => self.order(message, arrived),
                StageEventKind::Pass(received, arrived, _permit) => {
                    self.receive(*received, arrived)
                }
                StageEventKind::Adapter(adapter, loaded) => {
                    self.with_serving(|serving| serving.set_adapter(adapter, loaded));
                    Ok(())
                }
            };
            if let Err(error) = done {
                self.fail(error);
            }
        }
    }

    fn incarnation(&self) -> Option<u64> {
        self.serving
            .as_ref()
            .map(|serving| serving.binding.incarnation)
    }

    fn bind(&mut self, bound: BoundStage) -> Result<(), RuntimeError> {
        // The pages of two bindings may be more than the device holds.
        self.serving = None;
        self.serving = Some(ServingStage::new(bound)?);
        Ok(())
    }

    /// Does a pass of the stage before.
    fn receive(&mut self, received: ReceivedPass, arrived: Instant) -> Result<(), RuntimeError> {
        let ReceivedPass { header, rows } = received;
        let (number, runs) = (header.pass, header.runs.clone());
        let digests = header.rows.clone();
        self.with_serving(|serving| serving.log.receive(header));
        self.pass(number, runs, Rows::Hidden { rows, digests }, arrived)
    }

    fn order(&mut self, message: ToStage, arrived: Instant) -> Result<(), RuntimeError> {
        match message {
            ToStage::Pass(pass) => {
                let Pass {
                    number,
                    runs,
                    tokens,
                } = pass;
                return self.pass(number, runs, Rows::Tokens(tokens), arrived);
            }
            ToStage::Draws(order) => {
                return match &mut self.serving {
                    Some(serving) => serving.draws(&self.faults, order),
                    None => Ok(()),
                };
            }
            ToStage::Claim(order) => {
                let (device, key) = (self.device_name.clone(), self.key.clone());
                self.with_serving(|serving| {
                    let claim = claim(&serving.binding, &serving.log, &order, &device);
                    let claim = claim.map(|claim| Signed::new(&key, &claim));
                    let order = order.order;
                    serving.tell(FromStage::Claimed { order, claim });
                });
            }
            ToStage::Evidence { order, sequence } => self.with_serving(|serving| {
                let headers = serving.log.headers_of(sequence);
                serving.tell(FromStage::Evidence { order, headers });
            }),
            ToStage::Forget { sequence } => {
                self.with_serving(|serving| serving.log.forget(sequence));
            }
            // The stage stream turns them into events of their own, once an adapter is fetched.
            ToStage::AddAdapter(_) | ToStage::RemoveAdapter(_) => {}
        }
        Ok(())
    }

    fn pass(
        &mut self,
        number: u64,
        runs: Vec<SequenceRun>,
        rows: Rows,
        arrived: Instant,
    ) -> Result<(), RuntimeError> {
        match &mut self.serving {
            Some(serving) => serving.pass(&self.faults, number, runs, rows, arrived),
            None => Ok(()),
        }
    }

    fn with_serving(&mut self, action: impl FnOnce(&mut ServingStage)) {
        if let Some(serving) = &mut self.serving {
            action(serving);
        }
    }

    /// Gives the binding up, and says why.
    fn fail(&mut self, error: RuntimeError) {
        tracing::warn!("the stage cannot go on: {error}");
        if let Some(serving) = self.serving.take() {
            let reason = error.to_string();
            serving.tell(FromStage::Failed { reason });
        }
        if error.gpu_is_gone() {
            let _ = self.gpu_gone.blocking_send(error);
        }
    }
}
