//! What the last stage is to draw, and what it drew.

use std::collections::BTreeMap;

use borsh::{BorshDeserialize, BorshSerialize};

use super::generation::{SamplingSpec, TokenLogprob};
use crate::training::F32Bits;

/// What to draw from a pass, from the coordinator to the last stage.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct DrawOrder {
    /// Number of the pass.
    pub pass: u64,
    /// By rising run.
    pub draws: Vec<Draw>,
}

/// What to draw from one run of a pass.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Draw {
    /// Index of the run in its pass.
    pub run: u32,
    /// Draw a token from the last row.
    pub sample: Option<SampleOrder>,
    /// Score these tokens, the i-th by row i of the run: the tokens of a prompt.
    pub targets: Vec<u32>,
    /// How many alternatives to report beside each target.
    pub target_logprobs: u8,
    /// The same beside the token that is drawn; `None` turns its logprob off.
    pub logprobs: Option<u8>,
}

/// How to draw one token.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct SampleOrder {
    /// See [`SamplingSpec::temperature`].
    pub temperature: F32Bits,
    /// See [`SamplingSpec::top_k`].
    pub top_k: u32,
    /// See [`SamplingSpec::top_p`].
    pub top_p: F32Bits,
    /// See [`SamplingSpec::seed`].
    pub seed: u64,
    /// Added to logits before anything else, by rising token id: see [`bias`].
    pub bias: Vec<(u32, F32Bits)>,
    /// The candidates, as bits; `None` allows all tokens.
    pub allowed: Option<Vec<u8>>,
}

impl SampleOrder {
    /// How the token after `answer` is drawn.
    pub fn new(sampling: &SamplingSpec, answer: &[u32], allowed: Option<Vec<u8>>) -> Self {
        Self {
            temperature: sampling.temperature,
            top_k: sampling.top_k,
            top_p: sampling.top_p,
            seed: sampling.seed,
            bias: bias(sampling, answer),
            allowed,
        }
    }
}

/// What is added to logits after `answer`: `fma(-count, frequency, bias) - presence` for tokens
/// that the answer has, the bias for others. By rising token id; zeros are left out.
pub fn bias(sampling: &SamplingSpec, answer: &[u32]) -> Vec<(u32, F32Bits)> {
    let (frequency, presence) = (
        sampling.frequency_penalty.get(),
        sampling.presence_penalty.get(),
    );
    let given = sampling.logit_bias.iter();
    let mut all: BTreeMap<u32, f32> = given.map(|(token, bias)| (*token, bias.get())).collect();
    if frequency != 0.0 || presence != 0.0 {
        let mut counts: BTreeMap<u32, u32> = BTreeMap::new();
        for token in answer {
            *counts.entry(*token).or_default() += 1;
        }
        for (token, count) in counts {
            let bias = all.entry(token).or_default();
            *bias = (-(count as f32)).mul_add(frequency, *bias) - presence;
        }
    }
    let nonzero = all.into_iter().filter(|(_, bias)| *bias != 0.0);
    nonzero.map(|(token, bias)| (token, bias.into())).collect()
}

/// What was drawn from one run.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Drawn {
    /// Index of the run in its pass.
    pub run: u32,
    /// The token, where one was to be drawn.
    pub token: Option<TokenLogprob>,
    /// The targets, scored.
    pub scored: Vec<TokenLogprob>,
}
