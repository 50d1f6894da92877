//! What comes of a job that is done, from its events.

use std::time::Duration;

use concord_proto::Digest;
use concord_proto::client::JobEvent;

/// The outcome of a completed job.
#[derive(Clone, Copy, Debug)]
pub struct Completed {
    /// Digest of the last step record.
    pub record: Digest,
    /// Blob address of the last state.
    pub state: Digest,
    /// Audits that agreed.
    pub audits: u64,
    /// Drawn leaves that could not be re-run.
    pub inconclusive: u64,
    /// Mean loss of the last step.
    pub loss: f32,
    /// Tokens per second, over all committed steps.
    pub tokens_per_second: f64,
}

/// Sums over the steps.
#[derive(Default)]
pub struct StepSums {
    loss: f32,
    tokens: u64,
    time: Duration,
}

impl StepSums {
    /// Takes in an event. For the last one, returns the outcome.
    pub fn add(&mut self, event: &JobEvent) -> Option<Completed> {
        match event {
            JobEvent::Step {
                loss,
                tokens,
                micros,
                ..
            } => {
                self.loss = loss.get();
                self.tokens += tokens;
                self.time += Duration::from_micros(*micros);
                None
            }
            JobEvent::Completed {
                record,
                state,
                audits,
                inconclusive,
            } => Some(Completed {
                record: *record,
                state: *state,
                audits: *audits,
                inconclusive: *inconclusive,
                loss: self.loss,
                tokens_per_second: self.tokens as f64 / self.time.as_secs_f64().max(1e-6),
            }),
            _ => None,
        }
    }
}
