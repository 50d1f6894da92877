//! A running gateway, and its end.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::phase::{DrainPhase, UnderWay};

/// The patience of [`RunningGateway::shutdown`].
const SHUTDOWN_MAX: Duration = Duration::from_secs(5);

/// How long the last event of requests that are cut may take.
const CUT_MAX: Duration = Duration::from_secs(2);

/// A gateway that is running in this process.
pub struct RunningGateway {
    /// Where it listens.
    pub addr: SocketAddr,
    pub(crate) phase: watch::Sender<DrainPhase>,
    pub(crate) under_way: UnderWay,
    pub(crate) server: JoinHandle<()>,
    pub(crate) tending: JoinHandle<()>,
}

impl RunningGateway {
    /// As [`Self::drain`], with a patience of a few seconds.
    pub async fn shutdown(self) -> usize {
        self.drain(SHUTDOWN_MAX).await
    }

    /// The running requests; can be read also while [`Self::drain`] is running.
    pub fn under_way(&self) -> UnderWay {
        self.under_way.clone()
    }

    /// Ends the gateway. New requests are refused with a 503 from now on. Running ones may end
    /// within `patience`; then they are cut, streams with an error as their last event. The usage
    /// of keys is written to disk. Takes at most `patience` and a few seconds. Returns how many
    /// answers were cut.
    pub async fn drain(self, patience: Duration) -> usize {
        self.phase.send_replace(DrainPhase::Draining);
        self.under_way.none(patience).await;
        let cut = self.under_way.answers();
        self.phase.send_replace(DrainPhase::Cut);
        self.under_way.none(CUT_MAX).await;
        self.phase.send_replace(DrainPhase::Stopped);
        // A task that panicked has reported that itself.
        let _ = self.server.await;
        let _ = self.tending.await;
        cut
    }
}
