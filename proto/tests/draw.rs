//! The draw: leaves are drawn at the stated rate, and depend on nonce, claims and worker alone.

use concord_proto::draw::{AuditRate, drawn, nonce_commitment, seed};
use concord_proto::{Digest, Domain, PublicKey};
use proptest::prelude::*;

const LEAVES: u32 = 20_000;
const ALWAYS: u64 = 1 << 32;

fn rate(worker: u8, rate: u64) -> AuditRate {
    AuditRate {
        worker: PublicKey([worker; 32]),
        rate,
    }
}

fn claims(count: u8) -> Vec<Digest> {
    (0..count)
        .map(|i| Digest::of(Domain::Claim, &[i]))
        .collect()
}

#[test]
fn leaves_are_drawn_as_often_as_the_rate_says() {
    for (number, probability) in [0.01, 0.05, 0.25, 0.5, 0.9].into_iter().enumerate() {
        let rate = rate(1, (probability * ALWAYS as f64) as u64);
        let seed = seed(&[number as u8; 32], &claims(3));
        let count = drawn(&seed, &rate, LEAVES, false).len() as f64;
        let mean = f64::from(LEAVES) * probability;
        let deviation = (mean * (1.0 - probability)).sqrt();
        assert!(
            (count - mean).abs() < 5.0 * deviation,
            "{count} of {mean} at {probability}"
        );
    }
}

#[test]
fn each_leaf_is_as_likely_as_any_other() {
    let mut hits = [0_u32; 32];
    for number in 0..4_000_u32 {
        let mut nonce = [0; 32];
        nonce[..4].copy_from_slice(&number.to_le_bytes());
        let seed = seed(&nonce, &claims(2));
        for index in drawn(&seed, &rate(1, ALWAYS / 4), 32, false) {
            hits[index as usize] += 1;
        }
    }
    // 1,000 expected, a standard deviation of 27.4.
    assert!(hits.iter().all(|hit| hit.abs_diff(1_000) < 140), "{hits:?}");
}

#[test]
fn two_workers_are_drawn_on_independently() {
    let seed = seed(&[5; 32], &claims(2));
    let of = |worker| drawn(&seed, &rate(worker, ALWAYS / 2), LEAVES, false);
    let (first, second) = (of(1), of(2));
    let both = first
        .iter()
        .filter(|index| second.binary_search(index).is_ok())
        .count();
    assert!(
        (both as f64 - f64::from(LEAVES) / 4.0).abs() < 5.0 * 62.0,
        "{both}"
    );
}

#[test]
fn never_and_always_are_what_they_say() {
    let seed = seed(&[1; 32], &claims(1));
    assert!(drawn(&seed, &rate(1, 0), LEAVES, false).is_empty());
    assert_eq!(
        drawn(&seed, &rate(1, ALWAYS), 100, false),
        (0..100).collect::<Vec<_>>()
    );
    assert!(drawn(&seed, &rate(1, ALWAYS), 0, false).is_empty());
}

/// Where the loss decides about the result, no leaf is left to chance.
#[test]
fn where_the_loss_decides_all_are_drawn() {
    let seed = seed(&[1; 32], &claims(1));
    assert_eq!(drawn(&seed, &rate(1, 1), 100, true).len(), 100);
    assert!(drawn(&seed, &rate(1, 1), 100, false).is_empty());
    let none = drawn(&seed, &rate(1, 0), 100, true);
    assert!(none.is_empty(), "the job asked for no audits");
}

#[test]
fn a_draw_is_known_by_its_inputs() {
    let seed = seed(&[3; 32], &claims(4));
    assert_eq!(seed.short(), GOLDEN_SEED);
    assert_eq!(drawn(&seed, &rate(7, ALWAYS / 8), 64, false), GOLDEN_DRAWN);
    assert_eq!(nonce_commitment(&[3; 32]).short(), GOLDEN_COMMITMENT);
}

const GOLDEN_SEED: &str = "20db270f";
const GOLDEN_DRAWN: [u32; 13] = [1, 2, 8, 14, 16, 33, 36, 41, 42, 44, 55, 57, 62];
const GOLDEN_COMMITMENT: &str = "c3afd5cf";

proptest! {
    #[test]
    fn a_higher_rate_draws_all_that_a_lower_one_does(
        nonce in any::<[u8; 32]>(), low in 0..ALWAYS, more in 0..ALWAYS,
    ) {
        let seed = seed(&nonce, &claims(2));
        let few = drawn(&seed, &rate(1, low), 200, false);
        let many = drawn(&seed, &rate(1, low + more), 200, false);
        prop_assert!(few.iter().all(|index| many.contains(index)));
    }

    #[test]
    fn everything_that_a_draw_rests_on_changes_it(nonce in any::<[u8; 32]>(), byte in 0..32_usize) {
        let digests = claims(3);
        let mut other_nonce = nonce;
        other_nonce[byte] ^= 1;
        let mut other_claim = digests.clone();
        other_claim[1].0[byte] ^= 1;
        let swapped = vec![digests[1], digests[0], digests[2]];
        let seeds = [
            seed(&nonce, &digests),
            seed(&other_nonce, &digests),
            seed(&nonce, &other_claim),
            seed(&nonce, &swapped),
            seed(&nonce, &digests[..2]),
        ];
        for (index, one) in seeds.iter().enumerate() {
            prop_assert!(!seeds[..index].contains(one));
        }
        prop_assert_ne!(nonce_commitment(&nonce), nonce_commitment(&other_nonce));
        // The commitment tells nothing of the seed: it has another domain.
        prop_assert_ne!(nonce_commitment(&nonce), seed(&nonce, &[]));
    }
}
