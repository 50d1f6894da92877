//! The interface of the pool behind the gateway.

use std::path::PathBuf;

use concord_proto::Digest;
use concord_proto::serving::{BatchedReceipt, Control, Generation, PoolView, Update};
use futures_util::future::BoxFuture;
use tokio::sync::mpsc;

/// A running generation. Dropping it cancels the generation.
#[derive(Debug)]
pub struct EngineAnswer {
    /// Its updates, in order. If the channel ends before [`Update::Finished`] or
    /// [`Update::Failed`], the engine is gone.
    pub updates: mpsc::Receiver<Update>,
    /// The gateway's controls of it.
    pub control: mpsc::Sender<Control>,
}

/// Why an engine refuses a generation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refused {
    /// Too many wait already.
    Overloaded {
        /// How many.
        waiting: u32,
    },
    /// No pipeline is ready; says what it waits for.
    NotReady(String),
    /// More tokens than a sequence may have.
    TooLong {
        /// Tokens of the prompt.
        prompt: u32,
        /// Positions of a sequence.
        positions: u32,
    },
    /// An adapter that is not loaded.
    UnknownAdapter,
    /// Anything else, as a sentence for the client.
    Other(String),
}

/// A pool that answers.
pub trait InferenceEngine: Send + Sync + 'static {
    /// Accepts a generation, or says why not. Does not wait.
    ///
    /// # Errors
    /// [`Refused`].
    fn submit(&self, generation: Generation) -> Result<EngineAnswer, Refused>;

    /// The state of the pool.
    fn view(&self) -> PoolView;

    /// The receipts named `id`, or `id` and the index of a choice, in the order of the
    /// choices. Empty where there is none.
    ///
    /// # Errors
    /// A sentence, where they cannot be read.
    fn receipts(&self, id: String) -> BoxFuture<'static, Result<Vec<BatchedReceipt>, String>>;

    /// Loads a LoRA adapter from a folder, on all stages.
    ///
    /// # Errors
    /// A sentence that says what is wrong with it.
    fn add_adapter(&self, folder: PathBuf) -> BoxFuture<'static, Result<Digest, String>>;

    /// Unloads an adapter.
    ///
    /// # Errors
    /// A sentence.
    fn remove_adapter(&self, adapter: Digest) -> BoxFuture<'static, Result<(), String>>;
}
