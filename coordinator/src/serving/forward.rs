//! From whoever asks to a pipeline.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use concord_proto::serving::{Control, Generation};
use concord_scheduler::Refusal;
use tokio::sync::mpsc;

use super::hub::Hub;
use super::pipeline::{Answer, Input, Submitted};
use super::{Answering, SubmitError, notary};

/// Updates that may wait beside the tokens of an answer.
pub(super) const CHATTER_MAX: usize = 64;

/// Words of whoever asked that may wait for the pipeline.
const CONTROLS_MAX: usize = 16;

impl Hub {
    pub(super) fn submit(
        self: &Arc<Self>,
        generation: Generation,
    ) -> Result<Answering, SubmitError> {
        self.check(&generation)?;
        let chosen = self.state().routes.choose(&generation, None);
        let Some((index, route)) = chosen else {
            return Err(SubmitError::NotReady(self.words()));
        };
        let refused = route.shared.lock().scheduler.refusal(&generation);
        if let Some(refusal) = refused {
            route.shared.lock().coming -= 1;
            return Err(refusal.into());
        }
        let tokens = self.tokens_max(&generation);
        let (updates, waiting) = mpsc::channel(tokens + CHATTER_MAX);
        let (control, controls) = mpsc::channel(CONTROLS_MAX);
        let (sequence, home) = (self.number(), Arc::new(AtomicU32::new(index)));
        let answer = Answer::new(generation, updates, home.clone(), tokens);
        let submitted = Submitted {
            sequence,
            answer,
            answered: Vec::new(),
            allowed: None,
        };
        if route.hand_over(submitted).is_err() {
            let waiting = route.inputs.max_capacity() as u32;
            return Err(SubmitError::Overloaded { waiting });
        }
        tokio::spawn(forward(self.clone(), sequence, home, controls));
        Ok(Answering {
            updates: waiting,
            control,
        })
    }

    /// What a scheduler does not look at.
    fn check(&self, generation: &Generation) -> Result<(), SubmitError> {
        let (spec, deployment) = (&generation.spec, &self.served.deployment);
        let other = |why: String| Err(SubmitError::Other(why));
        if spec.deployment != self.id {
            return other("it is for another deployment".to_string());
        }
        if spec.prompt.is_empty() {
            return other("the prompt has no token".to_string());
        }
        let (prompt, positions) = (spec.prompt.len(), deployment.positions);
        if prompt >= positions as usize {
            let prompt = u32::try_from(prompt).unwrap_or(u32::MAX);
            return Err(SubmitError::TooLong { prompt, positions });
        }
        if let Some(token) = spec.prompt.iter().find(|token| **token >= deployment.vocab) {
            let vocab = deployment.vocab;
            return other(format!(
                "token {token} of the prompt, in a vocabulary of {vocab}"
            ));
        }
        let loaded = |adapter| self.state().adapters.contains(adapter);
        if spec
            .adapter
            .as_ref()
            .is_some_and(|adapter| !loaded(adapter))
        {
            return Err(SubmitError::UnknownAdapter);
        }
        Ok(())
    }

    /// The most tokens that an answer can have.
    fn tokens_max(&self, generation: &Generation) -> usize {
        let spec = &generation.spec;
        let left = (self.served.deployment.positions as usize).saturating_sub(spec.prompt.len());
        (spec.max_tokens as usize).min(left + 1)
    }
}

/// Forwards what whoever asked says, until its end is dropped.
async fn forward(
    hub: Arc<Hub>,
    sequence: u64,
    home: Arc<AtomicU32>,
    mut controls: mpsc::Receiver<Control>,
) {
    let mut text = None;
    while let Some(control) = controls.recv().await {
        if let Control::Close { text: found } = control {
            text = Some(found);
            break;
        }
        let input = Input::Control {
            sequence,
            control,
            home: home.clone(),
        };
        hub.send_to(home.load(Ordering::Relaxed), input).await;
    }
    // The notary may have ended; then there is no receipt to put the text on.
    let _ = hub
        .notary
        .send(notary::Input::Closed { sequence, text })
        .await;
    let home_now = home.load(Ordering::Relaxed);
    hub.send_to(home_now, Input::Cancel { sequence, home })
        .await;
}

impl From<Refusal> for SubmitError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Full { waiting } => Self::Overloaded { waiting },
            Refusal::TooLong { prompt, positions } => Self::TooLong { prompt, positions },
            other => Self::Other(other.to_string()),
        }
    }
}
