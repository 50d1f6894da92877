//! What the gateway needs of the pool behind it.

use std::path::PathBuf;

use concord_proto::serving::{Control, Generation, PoolView, Update};
use concord_proto::{Digest, Signed};
use futures_util::future::BoxFuture;
use tokio::sync::mpsc;

/// A generation under way. Dropping it cancels the generation.
#[derive(Debug)]
pub struct EngineAnswer {
    /// What becomes of it, in order. A channel that ends before [`Update::Finished`] or
    /// [`Update::Failed`] is an engine that went away.
    pub updates: mpsc::Receiver<Update>,
    /// What the gateway says about it.
    pub control: mpsc::Sender<Control>,
}

/// Why an engine takes no generation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refused {
    /// Too many wait already.
    Overloaded {
        /// How many.
        waiting: u32,
    },
    /// No pipeline computes; what it waits for.
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
    /// Takes a generation, or says why not. Does not wait.
    ///
    /// # Errors
    /// [`Refused`].
    fn submit(&self, generation: Generation) -> Result<EngineAnswer, Refused>;

    /// The state of the pool.
    fn view(&self) -> PoolView;

    /// The signed receipts whose names are `id`, or `id` and the index of a choice, in the order of
    /// the choices. Nothing where there is none.
    ///
    /// # Errors
    /// A sentence, where they cannot be read.
    fn receipts(&self, id: String) -> BoxFuture<'static, Result<Vec<Signed>, String>>;

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
