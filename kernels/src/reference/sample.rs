//! The next token from logits: greedy, or drawn from a counter-based stream.

use super::reduce;
use crate::math::{LOG2_E, ceil_to_int, exp2};
use crate::rng::Philox;

/// How a token is chosen.
///
/// ```
/// use concord_kernels::ops::sample::{Sampling, sample};
///
/// let greedy = Sampling {
///     temperature: 0.0,
///     top_k: 0,
///     top_p: 1.0,
///     seed: 0,
/// };
/// assert_eq!(sample(&[0.5, 2.0, 2.0], &greedy, 0), 1);
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// Divides the logits; 0 takes the most probable token.
    pub temperature: f32,
    /// Keeps this many of the most probable tokens; 0 keeps all.
    pub top_k: usize,
    /// Keeps the most probable tokens up to this mass.
    pub top_p: f32,
    /// Key of the random stream.
    pub seed: u64,
}

/// What is changed about the logits of a row before a draw.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Candidates<'a> {
    /// Added to logits first, each by one f32 addition: (token, bias).
    pub bias: &'a [(u32, f32)],
    /// Tokens that may be drawn: token t is bit `t % 8` of byte `t / 8`, and tokens beyond the last
    /// byte may not. `None` allows all tokens.
    pub allowed: Option<&'a [u8]>,
}

impl Candidates<'_> {
    /// Whether all tokens may be drawn by their logits as they are.
    pub fn is_all(&self) -> bool {
        self.bias.is_empty() && self.allowed.is_none()
    }

    /// The logits of the tokens that may be drawn, and these tokens, rising; `None` where all may.
    fn of(&self, logits: &[f32]) -> (Vec<f32>, Option<Vec<u32>>) {
        let mut logits = logits.to_vec();
        for (token, bias) in self.bias {
            logits[*token as usize] += bias;
        }
        let Some(allowed) = self.allowed else {
            return (logits, None);
        };
        let mut tokens = Vec::new();
        for (token, byte) in (0..).step_by(8).zip(allowed) {
            let bits = (0..8).filter(|bit| byte >> bit & 1 == 1);
            tokens.extend(bits.map(|bit| token + bit));
        }
        tokens.retain(|token| (*token as usize) < logits.len());
        let few = tokens.iter().map(|&token| logits[token as usize]);
        (few.collect(), Some(tokens))
    }
}

/// A draw from one row of logits.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RowSample<'a> {
    /// Row of the logits.
    pub row: usize,
    /// How the token is chosen.
    pub sampling: Sampling,
    /// Which tokens may be drawn, and with which biases.
    pub candidates: Candidates<'a>,
    /// Position in the random stream.
    pub position: u64,
}

/// The token of the largest logit, the lowest id among equals.
pub fn greedy(logits: &[f32]) -> u32 {
    let mut best = 0;
    for (id, &logit) in logits.iter().enumerate() {
        if logit > logits[best] {
            best = id;
        }
    }
    best as u32
}

/// The token at `position` of a stream. Candidates are taken in the order (probability, token id).
pub fn sample(logits: &[f32], sampling: &Sampling, position: u64) -> u32 {
    choose(logits, sampling, position).unwrap_or(0) as u32
}

/// The index of the logit that is drawn at `position`; `None` if there are no logits.
pub fn choose(logits: &[f32], sampling: &Sampling, position: u64) -> Option<usize> {
    if sampling.temperature == 0.0 {
        return (!logits.is_empty()).then(|| greedy(logits) as usize);
    }
    let scores: Vec<f32> = logits
        .iter()
        .map(|v| (v / sampling.temperature) * LOG2_E)
        .collect();
    let max = scores
        .iter()
        .fold(f32::NEG_INFINITY, |m, &v| if v > m { v } else { m });
    let max = ceil_to_int(max) as f32;
    let weights = scores.iter().map(|score| exp2(score - max));
    let mut candidates: Vec<(usize, f32)> = weights.enumerate().collect();
    candidates.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    if sampling.top_k > 0 {
        candidates.truncate(sampling.top_k);
    }
    let total = mass(&candidates);
    let kept = nucleus(&candidates, sampling.top_p * total);
    let candidates = &candidates[..kept];
    let ticket = Philox::new(sampling.seed, 0).unit(position) * mass(candidates);
    let mut cumulative = 0.0;
    for (index, probability) in candidates {
        cumulative += probability;
        if cumulative > ticket {
            return Some(*index);
        }
    }
    candidates.last().map(|c| c.0)
}

/// The token that a draw gives from its row of logits; `None` where no token may be drawn. `choose`
/// is [`choose`], or its twin in a back-end.
pub fn draw_by(
    choose: impl Fn(&[f32], &Sampling, u64) -> Option<usize>,
    logits: &[f32],
    draw: &RowSample<'_>,
) -> Option<u32> {
    if draw.candidates.is_all() {
        return choose(logits, &draw.sampling, draw.position).map(|index| index as u32);
    }
    let (logits, tokens) = draw.candidates.of(logits);
    let token = |index: usize| tokens.map_or(index as u32, |tokens| tokens[index]);
    choose(&logits, &draw.sampling, draw.position).map(token)
}

fn mass(candidates: &[(usize, f32)]) -> f32 {
    reduce::sum(&candidates.iter().map(|c| c.1).collect::<Vec<_>>())
}

/// How many candidates it takes to reach `mass`: at least one.
fn nucleus(candidates: &[(usize, f32)], mass: f32) -> usize {
    let mut cumulative = 0.0;
    for (count, (_, probability)) in candidates.iter().enumerate() {
        cumulative += probability;
        if cumulative >= mass {
            return count + 1;
        }
    }
    candidates.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ties_go_to_the_lowest_id() {
        assert_eq!(greedy(&[1.0, 3.0, 3.0, 2.0]), 1);
    }

    #[test]
    fn draws_follow_the_probabilities_and_the_cuts() {
        let logits = [0.0, 1.0, 2.0, 3.0];
        let sampling = Sampling {
            temperature: 1.0,
            top_k: 0,
            top_p: 1.0,
            seed: 7,
        };
        let mut counts = [0u32; 4];
        (0..20_000).for_each(|i| counts[sample(&logits, &sampling, i) as usize] += 1);
        let share = f64::from(counts[3]) / 20_000.0;
        assert!((share - 0.644).abs() < 0.02, "{counts:?}");
        let only = Sampling {
            top_k: 1,
            ..sampling
        };
        assert!((0..100).all(|i| sample(&logits, &only, i) == 3));
        let half = Sampling {
            top_p: 0.5,
            ..sampling
        };
        assert!((0..100).all(|i| sample(&logits, &half, i) == 3));
    }
}
