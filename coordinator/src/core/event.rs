//! What goes into the core and what comes out of it.

// Types and variants have a sentence; a field whose name and type say all has none.
#![allow(missing_docs)]

use concord_proto::client::{ClientResponse, JobEvent};
use concord_proto::ledger::Finding;
use concord_proto::session::{AuditOrder, Hello, ToCoordinator, ToWorker};
use concord_proto::{Digest, JobId, WorkerId};

use super::asker::Asker;
use super::new_job::NewJob;
use super::persisted::Change;
use super::serving_event::{ServingEffect, ServingEvent};

/// Number of a session, given by the driver; never used twice in one run of the coordinator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SessionId(pub u64);

/// Number of a client's question, given by the driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct CallId(pub u64);

/// What happened.
#[derive(Clone, Debug)]
pub enum CoreEvent {
    /// Time passes. The driver sends one a few times a second.
    Tick,
    /// A session began with a Hello whose signature holds.
    Opened {
        session: SessionId,
        /// Who signed the Hello; all messages of the session are this key's.
        worker: WorkerId,
        hello: Hello,
    },
    /// A message of a session, signed by its key.
    Message {
        session: SessionId,
        message: ToCoordinator,
    },
    /// An envelope that cannot be read or is not signed by the session's key. Nobody has signed
    /// it: it may come from anyone on the way.
    Broken {
        session: SessionId,
        /// What is wrong with it.
        reason: String,
    },
    /// A session ended.
    Closed {
        session: SessionId,
        /// How it was noticed.
        reason: String,
    },
    /// The answer to [`CoreEffect::Probe`].
    Probed {
        /// The session of the worker that was tried.
        session: SessionId,
        /// Why it is not reached at its address, if it is not.
        failure: Option<String>,
    },
    /// A question of a client.
    Asked {
        /// For the answer.
        call: CallId,
        by: Asker,
        question: Question,
    },
    /// Something happened where a model is served.
    Serving(ServingEvent),
    /// The answer to [`CoreEffect::Referee`].
    Refereed {
        job: JobId,
        /// Number of the order.
        order: u64,
        finding: Finding,
        /// The addresses of what the leaf was computed from; see
        /// [`concord_proto::Conviction::FalseVerdict`].
        inputs: Vec<Vec<Digest>>,
        /// What it knows of the leaf, under the key that it was asked for.
        trace: Digest,
        /// Whether the referee can compute the leaf at all.
        is_able: bool,
    },
    /// The answer to [`CoreEffect::CheckBlobs`].
    BlobsChecked {
        /// Number of the check.
        check: u64,
        /// Which blobs the store lacks.
        missing: Vec<Digest>,
    },
}

/// A client's question that needs the core. The blobs that it names are in the store already.
#[derive(Clone, Debug)]
pub enum Question {
    /// Take on a job.
    Submit(Box<NewJob>),
    /// The jobs.
    Jobs,
    /// The pool.
    Status,
    /// Stop a job.
    Cancel(JobId),
    /// A client has a state of a job.
    Fetched {
        job: JobId,
        /// Steps done in it.
        steps: u32,
    },
}

/// What is to be done. The driver carries effects out in order and waits for each
/// [`CoreEffect::StoreBlob`] and [`CoreEffect::Persist`]: so nothing is told to anyone before what
/// it rests on is persisted.
#[derive(Clone, Debug)]
pub enum CoreEffect {
    /// Put a small blob into the store.
    StoreBlob(Vec<u8>),
    /// Persist these changes, all or none.
    Persist(Vec<Change>),
    /// Send a message.
    Send {
        /// To which session.
        session: SessionId,
        message: ToWorker,
    },
    /// End a session once its messages are out.
    Close { session: SessionId },
    /// Find out whether a worker is reached at the address that it gave, by having it sign a
    /// challenge there. If that cannot be tried now, no answer comes, and the core asks again
    /// later.
    Probe {
        /// Its session, for the answer.
        session: SessionId,
        /// The key that has to sign.
        worker: WorkerId,
        endpoint: String,
    },
    /// Tell the watchers of a job.
    Publish {
        job: JobId,
        /// Number of the event, from 0.
        number: u64,
        event: JobEvent,
    },
    /// Tell the tasks that serve.
    Serving(ServingEffect),
    /// Answer a client.
    Reply {
        /// Which question.
        call: CallId,
        response: ClientResponse,
    },
    /// Re-run a leaf in this process. There is one at a time of each job, and only where
    /// [`super::Config::referee`] says that somebody can.
    Referee {
        order: Box<AuditOrder>,
        /// Under whose key it is to say what it knows of the leaf.
        traced: WorkerId,
    },
    /// Find out which of these blobs the store lacks.
    CheckBlobs {
        /// For the answer.
        check: u64,
        blobs: Vec<Digest>,
    },
}
