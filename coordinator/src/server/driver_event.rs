//! What other tasks tell the driver.

use concord_proto::WorkerId;
use concord_proto::client::ClientResponse;
use concord_proto::session::{Hello, Role, ToWorker};
use tokio::sync::{mpsc, oneshot};
use tokio::task::AbortHandle;

use crate::core::{Asker, CoreEvent, Question, SessionId};

/// What other tasks tell the driver.
pub(super) enum DriverEvent {
    /// A session began with a Hello whose signature holds.
    Opened {
        session: SessionId,
        worker: WorkerId,
        hello: Box<Hello>,
        link: SessionLink,
    },
    /// Something happened that the core has to know.
    Core(CoreEvent),
    /// A client asks.
    Ask(Asker, Question, oneshot::Sender<ClientResponse>),
    /// The process that runs the coordinator is about to end its members.
    Parting,
    /// The end.
    Stop,
}

/// The way to the other end of a session.
pub(super) struct SessionLink {
    /// Whose session it is, and in which role.
    pub(super) member: (Role, WorkerId),
    /// Dropping it ends the session once all messages are out.
    pub(super) messages: mpsc::Sender<ToWorker>,
    /// The task that reads what comes.
    pub(super) reader: AbortHandle,
}
