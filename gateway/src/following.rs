//! What follows an answer while it goes out: its visit, and what may end it early.

use std::sync::Arc;

use tokio::sync::watch;

use crate::answer::{Answer, Event};
use crate::api_error::ApiError;
use crate::gateway::Gateway;
use crate::keys::Account;
use crate::phase::{Phase, reached};
use crate::visit::Visit;

/// What follows an answer while it goes out.
pub(crate) struct Following {
    visit: Arc<Visit>,
    phase: watch::Receiver<Phase>,
    revoked: watch::Receiver<bool>,
}

impl Following {
    pub fn new(gateway: &Gateway, account: &Account, visit: Arc<Visit>) -> Self {
        Self {
            visit,
            phase: gateway.phase.clone(),
            revoked: account.state.revoked.subscribe(),
        }
    }

    /// The next event of the answer, as [`Answer::next`], or why it ends before its end: the gateway
    /// cuts what is under way, or the key is no longer known.
    pub async fn next(&mut self, answer: &mut Answer) -> Option<Event> {
        let event = tokio::select! {
            biased;
            () = reached(&mut self.phase, Phase::Cut) => Some(Event::Failed(ApiError::ending())),
            () = revoked(&mut self.revoked) => Some(Event::Failed(ApiError::revoked())),
            event = answer.next() => event,
        };
        if let Some(Event::Piece(..) | Event::Ended(..)) = event {
            self.visit.answers();
        }
        event
    }
}

async fn revoked(revoked: &mut watch::Receiver<bool>) {
    if revoked.wait_for(|revoked| *revoked).await.is_err() {
        // A key that nobody can take out any more.
        std::future::pending::<()>().await;
    }
}
