//! A draw from one row of logits, with the bits of [`crate::reference::sample`] and without its
//! sort by comparisons.

use super::reduce;
use crate::isa::Isa;
use crate::math::{LOG2_E, ceil_to_int, exp2};
use crate::reference::sample::{Sampling, greedy};
use crate::rng::Philox;

/// Bits of a digit of the sort.
const DIGIT: u32 = 11;

/// The index of the logit that is drawn at `position`; `None` if there are no logits.
pub fn choose(isa: Isa, logits: &[f32], sampling: &Sampling, position: u64) -> Option<usize> {
    if logits.is_empty() {
        return None;
    }
    if sampling.temperature == 0.0 {
        return Some(greedy(logits) as usize);
    }
    let mut weights = logits.to_vec();
    weigh(isa, &mut weights, sampling.temperature);
    let sorted = sorted(&weights, sampling.top_k);
    let by_rank: Vec<f32> = sorted.iter().map(|&key| weights[index(key)]).collect();
    let limit = sampling.top_p * reduce::sum_all(isa, &by_rank);
    let kept = first(&by_rank, |sum| sum >= limit).map_or(by_rank.len(), |rank| rank + 1);
    let by_rank = &by_rank[..kept];
    let ticket = Philox::new(sampling.seed, 0).unit(position) * reduce::sum_all(isa, by_rank);
    let rank = first(by_rank, |sum| sum > ticket).unwrap_or(kept - 1);
    Some(index(sorted[rank]))
}

/// The first index at which the running sum of the weights satisfies the condition.
fn first(weights: &[f32], mut satisfies: impl FnMut(f32) -> bool) -> Option<usize> {
    let mut sum = 0.0;
    weights.iter().position(|weight| {
        sum += weight;
        satisfies(sum)
    })
}

per_isa! {
    /// Turns logits into probabilities that are not yet normalised.
    fn weigh(logits: &mut [f32], temperature: f32) = weigh_body
}

#[inline(always)]
fn weigh_body(logits: &mut [f32], temperature: f32) {
    // The order of a maximum does not matter: lanes let it be a vector.
    let mut lanes = [f32::NEG_INFINITY; 16];
    for chunk in logits.chunks_mut(16) {
        for (lane, v) in lanes.iter_mut().zip(chunk) {
            *v = (*v / temperature) * LOG2_E;
            *lane = if *v > *lane { *v } else { *lane };
        }
    }
    let larger = |m: f32, &v: &f32| if v > m { v } else { m };
    let max = ceil_to_int(lanes.iter().fold(f32::NEG_INFINITY, larger)) as f32;
    logits.iter_mut().for_each(|v| *v = exp2(*v - max));
}

/// A key that sorts the larger weight first (by [`f32::total_cmp`]), then the lower index.
fn key(weight: f32, index: usize) -> u64 {
    let bits = weight.to_bits();
    let sign = ((bits as i32) >> 31) as u32;
    let rising = bits ^ (sign | 1 << 31);
    u64::from(!rising) << 32 | index as u64
}

/// The index in a key.
fn index(key: u64) -> usize {
    key as u32 as usize
}

/// The keys of the first `top_k` in order; of all for 0.
fn sorted(weights: &[f32], top_k: usize) -> Vec<u64> {
    let keys = weights.iter().enumerate();
    let mut keys: Vec<u64> = keys.map(|(index, &weight)| key(weight, index)).collect();
    if (1..keys.len()).contains(&top_k) {
        keys.select_nth_unstable(top_k - 1);
        keys.truncate(top_k);
    }
    if keys.len() < 1 << DIGIT || top_k > 0 {
        keys.sort_unstable();
        return keys;
    }
    // Digit by digit, each pass stable: indices rise already.
    let mut other = vec![0; keys.len()];
    for shift in (32..64).step_by(DIGIT as usize) {
        let digit = |key: u64| (key >> shift) as usize & ((1 << DIGIT) - 1);
        let mut places = [0u32; 1 << DIGIT];
        keys.iter().for_each(|&key| places[digit(key)] += 1);
        let mut before = 0;
        for place in &mut places {
            before += std::mem::replace(place, before);
        }
        for &key in &keys {
            let place = &mut places[digit(key)];
            other[*place as usize] = key;
            *place += 1;
        }
        std::mem::swap(&mut keys, &mut other);
    }
    keys
}
