//! From a client to a pipeline: generations are checked and handed over, and what the client says
//! follows them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use concord_proto::serving::{Control, Deployment, DeploymentId, Generation, Update};
use concord_scheduler::Refusal;
use tokio::sync::mpsc;

use super::adapters::LoadedAdapters;
use super::error::SubmitError;
use super::receipts::{SentText, SignerRequest};
use super::router::{AnswerUnderWay, PipelineInput, RoutedGeneration, Router};
use super::status::ServingStatus;

/// Controls of a client that may wait for the pipeline.
const CONTROLS_MAX: usize = 16;

/// An answer under way. Dropping it, or one of its ends, cancels the answer.
#[derive(Debug)]
pub struct AnswerHandle {
    /// What becomes of it, in order. A client that does not read them holds nobody up.
    pub updates: mpsc::Receiver<Update>,
    /// How the client ends or controls it.
    pub control: mpsc::Sender<Control>,
}

/// Takes generations.
pub(super) struct Submitter {
    pub(super) id: DeploymentId,
    pub(super) deployment: Deployment,
    pub(super) adapters: Arc<LoadedAdapters>,
    pub(super) status: Arc<ServingStatus>,
    pub(super) link: ControlLink,
}

/// Carries what a client says to the pipeline that has its answer, and in the end the digest of the
/// text to the signer of its receipt.
#[derive(Clone)]
pub(super) struct ControlLink {
    pub(super) router: Arc<Router>,
    pub(super) signer: mpsc::Sender<SignerRequest>,
}

impl Submitter {
    /// Takes a generation. See [`super::ModelService::submit`].
    pub(super) fn submit(&self, generation: Generation) -> Result<AnswerHandle, SubmitError> {
        self.check(&generation)?;
        let router = &self.link.router;
        let Some(chosen) = router.choose(&generation, None) else {
            return Err(SubmitError::NotReady(self.status.words()));
        };
        let refused = chosen.state().lock().scheduler.refusal(&generation);
        if let Some(refusal) = refused {
            return Err(refusal.into());
        }
        let tokens_max = self.tokens_max(&generation);
        let home = Arc::new(AtomicU32::new(chosen.index));
        let (answer, updates) = AnswerUnderWay::new(generation, home.clone(), tokens_max);
        let (control, controls) = mpsc::channel(CONTROLS_MAX);
        let sequence = router.number();
        let submission = RoutedGeneration {
            sequence,
            answer,
            answered: Vec::new(),
            allowed: None,
        };
        let waiting = chosen.waiting_max();
        if chosen.hand_over(submission).is_err() {
            return Err(SubmitError::Overloaded { waiting });
        }
        tokio::spawn(self.link.clone().forward(sequence, home, controls));
        Ok(AnswerHandle { updates, control })
    }

    /// Checks what a scheduler does not look at.
    fn check(&self, generation: &Generation) -> Result<(), SubmitError> {
        let (spec, deployment) = (&generation.spec, &self.deployment);
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
        let is_loaded = |adapter| self.adapters.contains(adapter);
        if !spec.adapter.as_ref().is_none_or(is_loaded) {
            return Err(SubmitError::UnknownAdapter);
        }
        Ok(())
    }

    /// The most tokens that an answer can have.
    fn tokens_max(&self, generation: &Generation) -> usize {
        let spec = &generation.spec;
        let left = (self.deployment.positions as usize).saturating_sub(spec.prompt.len());
        (spec.max_tokens as usize).min(left + 1)
    }
}

impl ControlLink {
    /// Forwards what the client says, until it drops its end.
    async fn forward(
        self,
        sequence: u64,
        home: Arc<AtomicU32>,
        mut controls: mpsc::Receiver<Control>,
    ) {
        let mut sent = None;
        while let Some(control) = controls.recv().await {
            if let Control::Close { text, finish } = control {
                sent = Some(SentText { text, finish });
                break;
            }
            let input = PipelineInput::Control {
                sequence,
                control,
                home: home.clone(),
            };
            self.router.send(home.load(Ordering::Relaxed), input).await;
        }
        // The signer may have ended; then there is no receipt to put the text on.
        let closed = SignerRequest::Closed { sequence, sent };
        let _ = self.signer.send(closed).await;
        let index = home.load(Ordering::Relaxed);
        let cancel = PipelineInput::Cancel { sequence, home };
        self.router.send(index, cancel).await;
    }
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
