//! What accompanies an answer while it is sent: its visit, and the events that end it early.

use std::sync::Arc;

use tokio::sync::watch;

use crate::answer::{Answer, AnswerEvent};
use crate::api_error::ApiError;
use crate::gateway::Gateway;
use crate::keys::KeyAccount;
use crate::phase::{DrainPhase, reached};
use crate::visit::Visit;

/// An answer's visit, and the events that end it early.
pub(crate) struct Following {
    visit: Arc<Visit>,
    phase: watch::Receiver<DrainPhase>,
    revoked: watch::Receiver<bool>,
}

impl Following {
    pub fn new(gateway: &Gateway, account: &KeyAccount, visit: Arc<Visit>) -> Self {
        Self {
            visit,
            phase: gateway.phase.clone(),
            revoked: account.state.revoked.subscribe(),
        }
    }

    /// The next event of the answer, as [`Answer::next`], or the error that ends it early: the
    /// gateway cuts running requests, or the key was removed.
    pub async fn next(&mut self, answer: &mut Answer) -> Option<AnswerEvent> {
        let failed = |error| Some(AnswerEvent::Failed(error));
        let event = tokio::select! {
            biased;
            () = reached(&mut self.phase, DrainPhase::Cut) => failed(ApiError::ending()),
            () = revoked(&mut self.revoked) => failed(ApiError::revoked()),
            event = answer.next() => event,
        };
        if let Some(AnswerEvent::Piece(..) | AnswerEvent::Ended(..)) = event {
            self.visit.answers();
        }
        event
    }
}

async fn revoked(revoked: &mut watch::Receiver<bool>) {
    if revoked.wait_for(|revoked| *revoked).await.is_err() {
        // The account is gone, so the key can no longer be revoked.
        std::future::pending::<()>().await;
    }
}
