//! What follows an answer while it goes out: its visit, and what may end it early.

use std::sync::Arc;

use tokio::sync::watch;

use crate::answer::{Answer, AnswerEvent};
use crate::api_error::ApiError;
use crate::gateway::Gateway;
use crate::keys::KeyAccount;
use crate::phase::{DrainPhase, reached};
use crate::visit::Visit;

/// What follows an answer while it goes out.
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

    /// The next event of the answer, as [`Answer::next`], or why it ends before its end: the gateway
    /// cuts what is under way, or the key is no longer known.
    pub async fn next(&mut self, answer: &mut Answer) -> Option<AnswerEvent> {
        let event = tokio::select! {
            biased;
            () = reached(&mut self.phase, DrainPhase::Cut) => Some(AnswerEvent::Failed(ApiError::ending())),
            () = revoked(&mut self.revoked) => Some(AnswerEvent::Failed(ApiError::revoked())),
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
        // A key that nobody can take out any more.
        std::future::pending::<()>().await;
    }
}
