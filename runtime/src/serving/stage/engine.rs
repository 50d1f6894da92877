//! The thread that owns the device while a worker serves: passes in, rows or tokens out.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use concord_kernels::ops::KvPages;
use concord_models::decoder::StageAdapter;
use concord_proto::serving::{DrawOrder, FromStage, Pass, Passed, ToStage};
use concord_proto::{Digest, Keypair, Signed};
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};

use super::binding::StageBinding;
use super::claim::claim;
use super::draw::ComputedPass;
use super::load::ServedStage;
use super::pass::Rows;
use super::row_log::RowLog;
use super::rows::{OutgoingPass, ReceivedPass};
use crate::RuntimeError;
use crate::faults::Faults;

/// Draw orders that may be ahead of their passes: as many as passes can be in flight, and more.
pub(super) const ORDERS_MAX: usize = 1_024;

/// What happens to the engine, for the binding of an incarnation.
pub(crate) struct StageEvent {
    pub(crate) incarnation: u64,
    pub(crate) kind: StageEventKind,
}

/// What happens to a stage that serves.
pub(crate) enum StageEventKind {
    /// There is a new binding.
    Bind(Box<BoundStage>),
    /// The binding is no more.
    Unbind,
    /// A message of the coordinator, which came at this time.
    Order(ToStage, Instant),
    /// A pass has come from the stage before, at this time. The permit bounds how many wait.
    Pass(Box<ReceivedPass>, Instant, OwnedSemaphorePermit),
    /// An adapter is loaded, or may go.
    Adapter(Digest, Option<Arc<StageAdapter>>),
}

/// A stage that is bound, with all that it needs to serve.
pub(crate) struct BoundStage {
    pub(crate) binding: Arc<StageBinding>,
    pub(crate) loaded: Arc<ServedStage>,
    pub(crate) adapters: BTreeMap<Digest, Arc<StageAdapter>>,
    /// To the coordinator.
    pub(crate) up: mpsc::Sender<FromStage>,
    /// To the next stage.
    pub(crate) next: Option<mpsc::Sender<OutgoingPass>>,
    /// Told once passes may come.
    pub(crate) bound: oneshot::Sender<Result<(), RuntimeError>>,
}

/// The engine of a worker that serves.
pub(crate) struct ServingEngine {
    key: Keypair,
    device_name: String,
    /// Told when the GPU cannot go on.
    gpu_gone: mpsc::Sender<RuntimeError>,
    pub(super) serving: Option<ServingStage>,
    pub(super) faults: Faults,
}

/// A stage in use.
pub(super) struct ServingStage {
    pub(super) binding: Arc<StageBinding>,
    pub(super) loaded: Arc<ServedStage>,
    pub(super) adapters: BTreeMap<Digest, Arc<StageAdapter>>,
    pub(super) pages: KvPages,
    pub(super) log: RowLog,
    /// Number of the next pass.
    pub(super) next_pass: u64,
    /// Orders whose pass has not come yet.
    pub(super) orders: BTreeMap<u64, DrawOrder>,
    /// Passes whose order has not come yet.
    pub(super) undrawn: BTreeMap<u64, (ComputedPass, Passed)>,
    pub(super) idle_since: Instant,
    pub(super) up: mpsc::Sender<FromStage>,
    pub(super) next: Option<mpsc::Sender<OutgoingPass>>,
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
                StageEventKind::Bind(bound) => {
                    self.bind(*bound);
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

    fn bind(&mut self, bound: BoundStage) {
        // The pages of two bindings may be more than the device holds.
        self.serving = None;
        let pages = match bound.loaded.stage.kv_pages(bound.binding.pages) {
            Ok(pages) => pages,
            Err(error) => {
                let _ = bound.bound.send(Err(error.into()));
                return;
            }
        };
        self.serving = Some(ServingStage {
            log: RowLog::new(bound.binding.pages),
            binding: bound.binding,
            loaded: bound.loaded,
            adapters: bound.adapters,
            pages,
            next_pass: 0,
            orders: BTreeMap::new(),
            undrawn: BTreeMap::new(),
            idle_since: Instant::now(),
            up: bound.up,
            next: bound.next,
        });
        let _ = bound.bound.send(Ok(()));
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
            ToStage::Draws(order) => return self.draws(order),
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

impl ServingStage {
    /// Takes an adapter that is loaded, or drops one.
    fn set_adapter(&mut self, adapter: Digest, loaded: Option<Arc<StageAdapter>>) {
        match loaded {
            Some(loaded) => {
                self.adapters.insert(adapter, loaded);
                let outcome = Ok(());
                self.tell(FromStage::Adapter { adapter, outcome });
            }
            None => drop(self.adapters.remove(&adapter)),
        }
    }

    /// Tells the coordinator, without waiting: where the stream is full, the coordinator has not
    /// read for long, and a thread that waits for it would miss the next plan.
    pub(super) fn tell(&self, message: FromStage) {
        if let Err(error) = self.up.try_send(message) {
            tracing::warn!("the coordinator cannot be told: {error}");
        }
    }
}
