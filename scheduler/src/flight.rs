//! Passes in flight: sent, and not back.

use crate::pace::Chunk;

/// A run of a pass in flight.
#[derive(Clone, Debug)]
pub(crate) struct FlightRun {
    pub(crate) sequence: u64,
    pub(crate) first: u32,
    pub(crate) count: u32,
    /// Whether a token is drawn from it.
    pub(crate) samples: bool,
    /// Prompt tokens that it scores.
    pub(crate) targets: u32,
    /// How many alternatives are reported with the token that is drawn.
    pub(crate) logprobs: Option<u8>,
    /// The same with each prompt token.
    pub(crate) target_logprobs: Option<u8>,
    /// Whether its hidden states are not finite.
    pub(crate) is_broken: bool,
}

/// A pass in flight.
#[derive(Clone, Debug)]
pub(crate) struct Flight {
    pub(crate) runs: Vec<FlightRun>,
    /// Whether it has sequences that decode.
    pub(crate) decodes: bool,
    /// Rows of prompts.
    pub(crate) chunks: Vec<Chunk>,
    /// When it was sent.
    pub(crate) sent_us: u64,
}
