//! The thread that owns the device while a worker serves: passes in, rows or tokens out.

mod pass;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use concord_kernels::ops::KvPages;
use concord_models::decoder::StageAdapter;
use concord_proto::serving::{DrawOrder, FromStage, Pass, Passed, ToStage};
use concord_proto::{Digest, Keypair, Signed};
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};

use super::book::Book;
use super::claim::claim;
use super::draw::Computed;
use super::frame::ReceivedPass;
use super::load::LoadedStage;
use super::seat::Seat;
use super::sender::Outgoing;
use crate::RuntimeError;

/// Draw orders that may be ahead of their passes: as many as passes can be in flight, and more.
const ORDERS_MAX: usize = 1_024;

/// What happens to the engine, for the seat of a term.
pub(crate) struct StageEvent {
    pub(crate) term: u64,
    pub(crate) what: What,
}

/// What happens.
pub(crate) enum What {
    /// There is a new seat.
    Take(Box<Taken>),
    /// The seat is no more.
    Leave,
    /// The coordinator says something, at this time.
    Lane(ToStage, Instant),
    /// A pass has come from the stage before, at this time. The permit bounds how many wait.
    Frame(Box<ReceivedPass>, Instant, OwnedSemaphorePermit),
    /// An adapter is loaded, or may go.
    Adapter(Digest, Option<Arc<StageAdapter>>),
}

/// A seat, and all that it takes.
pub(crate) struct Taken {
    pub(crate) seat: Arc<Seat>,
    pub(crate) loaded: Arc<LoadedStage>,
    pub(crate) adapters: BTreeMap<Digest, Arc<StageAdapter>>,
    /// To the coordinator.
    pub(crate) up: mpsc::Sender<FromStage>,
    /// To the next stage.
    pub(crate) next: Option<mpsc::Sender<Outgoing>>,
    /// Told once passes may come.
    pub(crate) taken: oneshot::Sender<Result<(), RuntimeError>>,
}

/// The engine.
pub(crate) struct StageEngine {
    pub(crate) key: Keypair,
    pub(crate) device_name: String,
    /// Told when the GPU cannot go on.
    pub(crate) gpu_gone: mpsc::Sender<RuntimeError>,
    pub(crate) serving: Option<Serving>,
    #[cfg(feature = "liars")]
    pub(crate) lie: Option<crate::liar::Lie>,
}

/// A seat in use.
pub(crate) struct Serving {
    seat: Arc<Seat>,
    loaded: Arc<LoadedStage>,
    adapters: BTreeMap<Digest, Arc<StageAdapter>>,
    pages: KvPages,
    book: Book,
    /// Number of the next pass.
    next_pass: u64,
    /// Orders whose pass has not come yet.
    orders: BTreeMap<u64, DrawOrder>,
    /// Passes whose order has not come yet.
    undrawn: BTreeMap<u64, (Computed, Passed)>,
    idle_since: Instant,
    up: mpsc::Sender<FromStage>,
    next: Option<mpsc::Sender<Outgoing>>,
}

impl StageEngine {
    /// Works until nobody can say anything any more.
    pub(crate) fn run(mut self, mut inbox: mpsc::Receiver<StageEvent>) {
        while let Some(event) = inbox.blocking_recv() {
            let done = match event.what {
                What::Take(taken) => {
                    self.take(*taken);
                    Ok(())
                }
                _ if self.term() != Some(event.term) => Ok(()),
                What::Leave => {
                    self.serving = None;
                    Ok(())
                }
                what => self.apply(what),
            };
            if let Err(error) = done {
                self.fail(error);
            }
        }
    }

    fn term(&self) -> Option<u64> {
        self.serving.as_ref().map(|serving| serving.seat.term)
    }

    fn take(&mut self, taken: Taken) {
        // The pages of two seats may be more than the device holds.
        self.serving = None;
        let pages = match taken.loaded.stage.kv_pages(taken.seat.pages) {
            Ok(pages) => pages,
            Err(error) => {
                let _ = taken.taken.send(Err(error.into()));
                return;
            }
        };
        self.serving = Some(Serving {
            book: Book::new(taken.seat.pages),
            seat: taken.seat,
            loaded: taken.loaded,
            adapters: taken.adapters,
            pages,
            next_pass: 0,
            orders: BTreeMap::new(),
            undrawn: BTreeMap::new(),
            idle_since: Instant::now(),
            up: taken.up,
            next: taken.next,
        });
        let _ = taken.taken.send(Ok(()));
    }

    fn apply(&mut self, what: What) -> Result<(), RuntimeError> {
        match what {
            What::Take(_) | What::Leave => Ok(()),
            What::Lane(message, arrived) => self.order(message, arrived),
            What::Frame(received, arrived, _permit) => {
                let ReceivedPass { header, rows } = *received;
                let (number, runs) = (header.pass, header.runs.clone());
                let digests = header.rows.clone();
                self.serving_mut(|serving| serving.book.receive(header));
                self.pass(number, runs, pass::Rows::Hidden { rows, digests }, arrived)
            }
            What::Adapter(adapter, loaded) => {
                self.serving_mut(|serving| match loaded {
                    Some(loaded) => {
                        serving.adapters.insert(adapter, loaded);
                        let outcome = Ok(());
                        serving.say(FromStage::Adapter { adapter, outcome });
                    }
                    None => drop(serving.adapters.remove(&adapter)),
                });
                Ok(())
            }
        }
    }

    fn order(&mut self, message: ToStage, arrived: Instant) -> Result<(), RuntimeError> {
        match message {
            ToStage::Pass(pass) => {
                let Pass {
                    number,
                    runs,
                    tokens,
                } = pass;
                return self.pass(number, runs, pass::Rows::Tokens(tokens), arrived);
            }
            ToStage::Draws(order) => return self.draws(order),
            ToStage::Claim(order) => {
                let (device, key) = (self.device_name.clone(), self.key.clone());
                self.serving_mut(|serving| {
                    let claim = claim(&serving.seat, &serving.book, &order, &device);
                    let claim = claim.map(|claim| Signed::new(&key, &claim));
                    let order = order.order;
                    serving.say(FromStage::Claimed { order, claim });
                });
            }
            ToStage::Evidence { order, sequence } => self.serving_mut(|serving| {
                let headers = serving.book.headers_of(sequence);
                serving.say(FromStage::Evidence { order, headers });
            }),
            ToStage::Forget { sequence } => {
                self.serving_mut(|serving| serving.book.forget(sequence));
            }
            // The lane fetches them first.
            ToStage::AddAdapter(_) | ToStage::RemoveAdapter(_) => {}
        }
        Ok(())
    }

    fn serving_mut(&mut self, action: impl FnOnce(&mut Serving)) {
        if let Some(serving) = &mut self.serving {
            action(serving);
        }
    }

    /// Gives the seat up, and says why.
    fn fail(&mut self, error: RuntimeError) {
        tracing::warn!("the stage cannot go on: {error}");
        if let Some(serving) = self.serving.take() {
            let reason = error.to_string();
            serving.say(FromStage::Failed { reason });
        }
        if error.gpu_is_gone() {
            let _ = self.gpu_gone.blocking_send(error);
        }
    }
}

impl Serving {
    /// Tells the coordinator. Where the lane is closed nobody wants to know; where it is full the
    /// coordinator has not read for long, and a thread that waits for it hears of no other plan.
    fn say(&self, message: FromStage) {
        if let Err(error) = self.up.try_send(message) {
            tracing::warn!("the coordinator cannot be told: {error}");
        }
    }
}
