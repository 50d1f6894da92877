//! A stage that is bound to its place in a pipeline, and what it has in hand.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use concord_kernels::ops::KvPages;
use concord_models::decoder::StageAdapter;
use concord_proto::Digest;
use concord_proto::serving::{DrawOrder, FromStage, Passed};
use tokio::sync::mpsc;

use super::binding::StageBinding;
use super::draw::ComputedPass;
use super::load::ServedStage;
use super::row_log::RowLog;
use super::rows::OutgoingPass;
use crate::RuntimeError;

/// A stage that is bound, with all that it needs to serve.
pub(crate) struct BoundStage {
    pub(crate) binding: Arc<StageBinding>,
    pub(crate) loaded: Arc<ServedStage>,
    pub(crate) adapters: BTreeMap<Digest, Arc<StageAdapter>>,
    /// To the coordinator.
    pub(crate) up: mpsc::Sender<FromStage>,
    /// To the next stage.
    pub(crate) next: Option<mpsc::Sender<OutgoingPass>>,
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

impl ServingStage {
    /// A stage with fresh pages.
    ///
    /// # Errors
    /// [`RuntimeError`] where the device has no room for the pages.
    pub(super) fn new(bound: BoundStage) -> Result<Self, RuntimeError> {
        let pages = bound.loaded.stage.kv_pages(bound.binding.pages)?;
        Ok(Self {
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
        })
    }

    /// Takes an adapter that is loaded, or drops one.
    pub(super) fn set_adapter(&mut self, adapter: Digest, loaded: Option<Arc<StageAdapter>>) {
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
