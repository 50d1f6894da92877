//! The coordinator's side of serving: lanes to stages, a scheduler for each pipeline, receipts.
//!
//! [`Serving`] is the handle. Each pipeline has a task of its own that owns its lanes and drives
//! its scheduler; who holds which seat is up to the core.

mod adapters;
mod archive;
mod error;
mod forward;
mod hub;
mod lane;
mod notary;
mod pipeline;
mod routes;

use std::sync::Arc;

use concord_proto::serving::{Control, Generation, PoolView, ServedModel, Update};
use concord_proto::{Digest, Signed};
use tokio::sync::mpsc;

use crate::blobs::BlobError;
use crate::store::StoreError;

pub use error::SubmitError;
pub(crate) use hub::{Hub, Parts};
pub(crate) use lane::{Down, open as open_lane};

/// An answer under way. Dropping it, or one of its ends, cancels the answer.
#[derive(Debug)]
pub struct Answering {
    /// What becomes of it, in order. Whoever does not read them holds nobody up.
    pub updates: mpsc::Receiver<Update>,
    /// What whoever asked says about it.
    pub control: mpsc::Sender<Control>,
}

/// A model that is served. Clones are the same.
#[derive(Clone)]
pub struct Serving {
    hub: Arc<Hub>,
}

impl Serving {
    pub(crate) fn new(hub: Arc<Hub>) -> Self {
        Self { hub }
    }

    pub(crate) fn hub(&self) -> &Arc<Hub> {
        &self.hub
    }

    /// What is served.
    pub fn served(&self) -> &ServedModel {
        &self.hub.served
    }

    /// Takes a generation, or says at once why not. Call it from within a tokio runtime.
    ///
    /// # Errors
    /// [`SubmitError`].
    pub fn submit(&self, generation: Generation) -> Result<Answering, SubmitError> {
        self.hub.submit(generation)
    }

    /// The state of the pool.
    pub fn view(&self) -> PoolView {
        self.hub.view()
    }

    /// The signed receipts whose name is `id`, or `id` and the index of a choice after a "-".
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn receipts(&self, id: &str) -> Result<Vec<Signed>, StoreError> {
        self.hub.store.receipts(id).await
    }

    /// Puts a blob into the store: a manifest, a tensor, a tokenizer, an adapter.
    ///
    /// # Errors
    /// [`BlobError`].
    pub async fn put_blob(&self, bytes: Vec<u8>) -> Result<Digest, BlobError> {
        self.hub.blobs.put(bytes).await
    }

    /// Has all stages load an adapter whose blobs are in the store.
    ///
    /// # Errors
    /// A sentence: a stage cannot load it, or does not in time.
    pub async fn add_adapter(&self, adapter: Digest) -> Result<(), String> {
        self.hub.add_adapter(adapter).await
    }

    /// Has all stages drop an adapter. Answers that use it and are not done fail.
    ///
    /// # Errors
    /// A sentence: there is no such adapter.
    pub async fn remove_adapter(&self, adapter: Digest) -> Result<(), String> {
        self.hub.remove_adapter(adapter).await
    }
}
