//! Auditors: checkers that choose in secret what they re-run. Each commits to a chain of secrets
//! before the work, and opens the secret of an attempt after its claims are in the ledger. So
//! nobody else can foresee what is drawn, and the auditor itself can choose nothing.
//!
//! The chain is that of Lamport's one-time passwords: `s[d] = H(s[d + 1])`, and its top is
//! `H(s[0])`. A secret opens all before it.

use borsh::{BorshDeserialize, BorshSerialize};

use crate::crypto::{Digest, Domain, Hasher, PublicKey, Signed, WorkerId};
use crate::training::JobId;

/// The highest rate of an auditor: every leaf.
pub const RATE_MAX: u64 = 1 << 32;

/// The most attempts that one chain is for.
pub const CHAIN_MAX: u32 = 1 << 20;

/// What an auditor commits to before it audits a job.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Enrolment {
    pub job: JobId,
    /// Who asks for it: nothing of it counts in the ledger of another one.
    pub coordinator: PublicKey,
    /// `H(s[0])`.
    pub top: Digest,
    /// The first attempt that it is for. The entry that enrols it comes before that attempt starts.
    pub from: u32,
    /// For how many attempts.
    pub length: u32,
    /// The probability that a leaf is drawn, `p * 2^32`; at most [`RATE_MAX`].
    pub rate: u64,
}

impl Enrolment {
    /// Which secret of the chain an attempt has, if it is one of those that this is for.
    pub fn index(&self, attempt: u32) -> Option<u32> {
        let index = attempt.checked_sub(self.from)?;
        (index < self.length).then_some(index)
    }
}

/// An auditor opens its secret of an attempt, and with it those of all attempts before.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Reveal {
    pub job: JobId,
    /// [`enrolment_digest`] of the signed enrolment.
    pub enrolment: Digest,
    /// [`reveal_digest`] of the auditor's reveal before, about this job to this coordinator, also
    /// under an earlier enrolment. So a reveal that is left out of a ledger leaves a gap: whoever
    /// has seen a secret cannot have it committed to anew, and an auditor that was shown two
    /// histories has opened a secret to one of them that the other one lacks.
    pub previous: Option<Digest>,
    pub attempt: u32,
    /// Digest of the entry that committed the attempt: the secret draws from no other claims.
    pub entry: Digest,
    pub secret: Digest,
}

/// The digest of a signed enrolment, which reveals name.
pub fn enrolment_digest(signed: &Signed) -> Digest {
    Digest::of_value(Domain::Enrolment, signed)
}

/// The digest of a signed reveal, which the next one names.
pub fn reveal_digest(signed: &Signed) -> Digest {
    Digest::of_value(Domain::Reveal, signed)
}

/// The secret before `secret` in its chain.
pub fn before(secret: &Digest) -> Digest {
    Digest::of(Domain::SecretChain, &secret.0)
}

/// Whether `secret`, at `index` of a chain, leads to an earlier one that is known: that of the
/// index, or the top of the chain where that is `None`. It costs a hash for each step between.
pub fn leads_to(secret: &Digest, index: u32, known: Option<u32>, digest: &Digest) -> bool {
    let steps = match known {
        None => index + 1,
        Some(earlier) if earlier < index => index - earlier,
        Some(_) => return false,
    };
    (0..steps).fold(*secret, |secret, _| before(&secret)) == *digest
}

/// A chain of secrets, from the last one. Every 1,024th is held, so that none costs more hashes.
pub struct SecretChain {
    held: Vec<Digest>,
    length: u32,
    top: Digest,
}

/// Secrets between two that are held.
const STRIDE: u32 = 1 << 10;

impl SecretChain {
    /// A chain of `length` secrets, of which this is the last one.
    pub fn new(last: Digest, length: u32) -> Self {
        let mut held = Vec::new();
        let mut secret = last;
        for index in (0..length).rev() {
            if index % STRIDE == 0 || index + 1 == length {
                held.push(secret);
            }
            secret = before(&secret);
        }
        held.reverse();
        Self {
            held,
            length,
            top: secret,
        }
    }

    /// What an enrolment commits to.
    pub fn top(&self) -> Digest {
        self.top
    }

    /// The secret at an index.
    pub fn secret(&self, index: u32) -> Option<Digest> {
        if index >= self.length {
            return None;
        }
        // The next one that is held at or after it.
        let slot = index.div_ceil(STRIDE) as usize;
        let (slot, from) = match slot < self.held.len() && slot as u32 * STRIDE < self.length {
            true => (slot, slot as u32 * STRIDE),
            false => (self.held.len() - 1, self.length - 1),
        };
        let steps = from - index;
        Some((0..steps).fold(self.held[slot], |secret, _| before(&secret)))
    }
}

/// The leaves of one worker that a secret draws from the claims of the entry `committed`, by index:
/// each with the probability of the rate, and all where `decides` (the step's loss decides about
/// the result, [`JobSpec::decides`]).
///
/// [`JobSpec::decides`]: crate::training::JobSpec::decides
pub fn drawn(
    secret: &Digest,
    committed: &Digest,
    worker: &WorkerId,
    rate: u64,
    leaf_count: u32,
    decides: bool,
) -> Vec<u32> {
    let ticket = |index: u32| {
        let mut hasher = Hasher::new(Domain::SecretDraw);
        hasher.update(&secret.0);
        hasher.update(&committed.0);
        hasher.update(&worker.0);
        hasher.update(&index.to_le_bytes());
        let [a, b, c, d, ..] = hasher.finish().0;
        u64::from(u32::from_le_bytes([a, b, c, d]))
    };
    let is_drawn = |index: &u32| (decides && rate > 0) || ticket(*index) < rate;
    (0..leaf_count).filter(is_drawn).collect()
}

/// The probability that lies go unseen by an honest auditor that draws leaves with `rate`: one
/// false leaf in each of `lies` attempts, of which `unsettled` may each hide a hit, whoever is to
/// blame: `sum over j <= unsettled of C(lies, j) p^j (1 - p)^(lies - j)`.
pub fn escape(rate: u64, lies: u64, unsettled: u64) -> f64 {
    let p = rate.min(RATE_MAX) as f64 / RATE_MAX as f64;
    if unsettled >= lies {
        return 1.0;
    }
    if p >= 1.0 {
        return 0.0;
    }
    // In logarithms: (1 - p)^n is 0 in f64 for the longest jobs.
    let (n, odds) = (lies as f64, p.ln() - (-p).ln_1p());
    let mut term = n * (-p).ln_1p();
    let mut sum = term.exp();
    for j in 0..unsettled {
        let j = j as f64;
        term += (n - j).ln() - (j + 1.0).ln() + odds;
        sum += term.exp();
    }
    sum.min(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seed(words: &str) -> Digest {
        Digest::of(Domain::SecretChain, words.as_bytes())
    }

    #[test]
    fn a_secret_leads_to_all_before_it_and_to_the_top() {
        for length in [1, 2, 5, 1_023, 1_024, 1_025, 2_048, 3_000] {
            let chain = SecretChain::new(seed("a chain"), length);
            let mut expected = seed("a chain");
            for index in (0..length).rev() {
                assert_eq!(chain.secret(index), Some(expected), "{index} of {length}");
                expected = before(&expected);
            }
            assert_eq!(chain.top(), expected);
            assert_eq!(chain.secret(length), None);
            let last = chain.secret(length - 1).unwrap();
            assert!(leads_to(&last, length - 1, None, &chain.top()));
            assert!(!leads_to(&last, length, None, &chain.top()));
            if length > 1 {
                let first = chain.secret(0).unwrap();
                assert!(leads_to(&last, length - 1, Some(0), &first));
                assert!(!leads_to(&first, 0, Some(length - 1), &last));
                assert!(!leads_to(&first, 0, Some(0), &first), "not newer");
            }
        }
    }

    #[test]
    fn a_draw_depends_on_secret_claims_worker_and_index_and_keeps_its_rate() {
        let worker = |n: u8| PublicKey([n; 32]);
        let of = |secret, entry, n, rate| {
            drawn(&seed(secret), &seed(entry), &worker(n), rate, 10_000, false)
        };
        let tenth = RATE_MAX / 10;
        let first = of("a", "b", 1, tenth);
        assert!((900..1_100).contains(&first.len()), "{}", first.len());
        for other in [
            of("b", "b", 1, tenth),
            of("a", "a", 1, tenth),
            of("a", "b", 2, tenth),
        ] {
            assert_ne!(first, other);
        }
        let more = of("a", "b", 1, 2 * tenth);
        assert!(first.iter().all(|index| more.contains(index)));
        assert!(of("a", "b", 1, 0).is_empty());
        assert_eq!(of("a", "b", 1, RATE_MAX).len(), 10_000);
        let decides = |rate| drawn(&seed("a"), &seed("b"), &worker(1), rate, 7, true).len();
        assert_eq!((decides(1), decides(0)), (7, 0));
    }

    /// Against the sum in rational arithmetic, and what the design prints.
    #[test]
    fn the_probability_of_an_escape_is_that_of_the_sum() {
        let rate = |p: f64| (p * RATE_MAX as f64).round() as u64;
        let near = |a: f64, b: f64| assert!((a - b).abs() < 1e-9, "{a} {b}");
        near(escape(rate(0.5), 3, 0), 0.125);
        near(escape(rate(0.5), 3, 1), 0.5);
        near(escape(rate(0.5), 3, 2), 0.875);
        near(escape(rate(0.5), 3, 3), 1.0);
        near(escape(RATE_MAX, 3, 2), 0.0);
        near(escape(0, 3, 2), 1.0);
        let until = |unsettled| (1..).find(|&n| escape(rate(0.02), n, unsettled) <= 0.01);
        assert_eq!(until(0), Some(228));
        assert_eq!(until(4), Some(577));
        assert!(escape(rate(0.02), 10_000_000, 0) >= 0.0);
    }
}
