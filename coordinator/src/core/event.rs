//! What goes into the core and what comes out of it.

use concord_proto::client::{ClientResponse, JobEvent, Submission};
use concord_proto::ledger::Offence;
use concord_proto::manifest::{DataManifest, StateManifest};
use concord_proto::session::{Hello, ToCoordinator, ToWorker};
use concord_proto::{Digest, JobId, WorkerId};

use super::kept::Change;
use super::serving::{ServingEffect, ServingEvent};

/// Microseconds since the driver started. Only differences matter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Time(pub u64);

impl Time {
    /// The time `micros` later.
    pub fn plus(self, micros: u64) -> Self {
        Self(self.0.saturating_add(micros))
    }

    /// Microseconds since `earlier`, or 0.
    pub fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// Number of a session, given by the driver; never used twice in one run of the coordinator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SessionId(pub u64);

/// Number of a client's question, given by the driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct CallId(pub u64);

/// What happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// Time passes. The driver sends one a few times a second.
    Tick,
    /// A session began with a Hello whose signature holds.
    Opened {
        /// The session.
        session: SessionId,
        /// Who signed the Hello; all messages of the session are this key's.
        worker: WorkerId,
        /// The Hello.
        hello: Hello,
    },
    /// A message of a session, signed by its key.
    Message {
        /// The session.
        session: SessionId,
        /// The message.
        message: ToCoordinator,
    },
    /// An envelope that cannot be read or is not signed by the session's key.
    Broken {
        /// The session.
        session: SessionId,
        /// [`Offence::Forgery`] or [`Offence::Malformed`].
        offence: Offence,
        /// What is wrong with it.
        evidence: String,
    },
    /// A session ended.
    Closed {
        /// The session.
        session: SessionId,
        /// How it was noticed.
        reason: String,
    },
    /// The answer to [`Effect::Probe`].
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
        /// The question.
        question: Question,
    },
    /// Something happened where a model is served.
    Serving(ServingEvent),
    /// The answer to [`Effect::CheckBlobs`].
    BlobsChecked {
        /// Number of the check.
        check: u64,
        /// Which blobs the store lacks.
        missing: Vec<Digest>,
    },
}

/// A question that needs the core. The driver has put the blobs in that it names.
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
}

/// A job, with the manifests that its spec names.
#[derive(Clone, Debug)]
pub struct NewJob {
    /// What the client sent.
    pub submission: Submission,
    /// The manifest behind [`concord_proto::JobSpec::data`].
    pub data: DataManifest,
    /// The manifest behind [`concord_proto::JobSpec::initial_state`].
    pub initial: StateManifest,
}

/// What is to be done. The driver carries effects out in order and waits for each
/// [`Effect::StoreBlob`] and [`Effect::Persist`]: so nothing is told to anyone before it is kept.
#[derive(Clone, Debug)]
pub enum Effect {
    /// Put a small blob into the store.
    StoreBlob(Vec<u8>),
    /// Keep these changes, all or none.
    Persist(Vec<Change>),
    /// Send a message.
    Send {
        /// To which session.
        session: SessionId,
        /// The message.
        message: ToWorker,
    },
    /// End a session once its messages are out.
    Close {
        /// Which.
        session: SessionId,
    },
    /// Try whether a worker is reached at the address that it gave, by having it sign what nobody
    /// else can. Where that cannot be tried now no answer comes: it is asked for again.
    Probe {
        /// Its session, for the answer.
        session: SessionId,
        /// Whose key has to be there.
        worker: WorkerId,
        /// The address.
        endpoint: String,
    },
    /// Tell the watchers of a job.
    Publish {
        /// The job.
        job: JobId,
        /// Number of the event, from 0.
        number: u64,
        /// The event.
        event: JobEvent,
    },
    /// Tell the tasks that serve.
    Serving(ServingEffect),
    /// Answer a client.
    Reply {
        /// Which question.
        call: CallId,
        /// The answer.
        response: ClientResponse,
    },
    /// Look which of these blobs the store lacks.
    CheckBlobs {
        /// For the answer.
        check: u64,
        /// The blobs.
        blobs: Vec<Digest>,
    },
}
