//! What the core and the tasks that serve tell each other.

// Types and variants have a sentence; a field whose name and type say all has none.
#![allow(missing_docs)]

use concord_proto::ledger::Offence;
use concord_proto::serving::WorkerView;
use concord_proto::{Digest, Layers, WorkerId};

/// The worker that holds a stage of a pipeline, as its stage stream has to prove it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StageHolder {
    pub worker: WorkerId,
    /// What it says its device is.
    pub device: String,
    /// The layers of the stage.
    pub layers: Layers,
    /// What its stage stream shows.
    pub ticket: [u8; 32],
}

/// From the core to the tasks that serve.
#[derive(Clone, Debug)]
pub enum ServingEffect {
    /// A pipeline has a new plan: its stage streams are awaited. An older plan of it is over.
    Planned {
        /// Which pipeline, from 0.
        pipeline: u32,
        epoch: u32,
        /// Who holds its stages, in order.
        holders: Vec<StageHolder>,
        /// Pages of keys and values.
        pages: u32,
        /// Why there is a new plan.
        reason: String,
    },
    /// Nobody is there to hold a pipeline.
    Down {
        pipeline: u32,
        /// Why, and what would help.
        reason: String,
    },
    /// The pool has changed, in words.
    Pool {
        /// What it waits for, or does.
        state: String,
        workers: Vec<WorkerView>,
        /// Audits that agreed, and those that did not.
        audits: (u64, u64),
    },
}

/// From the tasks that serve to the core.
#[derive(Clone, Debug)]
pub enum ServingEvent {
    /// All stage streams of a plan are there.
    Running {
        /// Which pipeline.
        pipeline: u32,
        epoch: u32,
    },
    /// A worker of a plan does not answer any more.
    Lost {
        /// Which pipeline.
        pipeline: u32,
        epoch: u32,
        worker: WorkerId,
        /// How it was noticed.
        reason: String,
        /// Whether it may go on: it said so itself, and may only have noticed another's end.
        is_here: bool,
    },
    /// A worker does not take what the one before it sends. One of the two is wrong.
    Refused {
        /// Which pipeline.
        pipeline: u32,
        epoch: u32,
        /// The stage that refuses: not the first.
        stage: u32,
        /// What is wrong with it.
        reason: String,
    },
    /// A worker has said something impossible, and nothing proves it to others.
    Distrusted {
        worker: WorkerId,
        /// What it said.
        reason: String,
    },
    /// A worker has signed what proves it wrong.
    Guilty {
        worker: WorkerId,
        offence: Offence,
        /// The proof, in words.
        evidence: String,
    },
    /// Adapters that stages have to load from now on.
    Adapters(Vec<Digest>),
    /// An answer is drawn for an audit.
    Audit {
        /// Blob address of the signed receipt.
        receipt: Digest,
        /// Its name, for the log.
        name: String,
        /// Who signed its claims: they do not judge it.
        signers: Vec<WorkerId>,
    },
}
