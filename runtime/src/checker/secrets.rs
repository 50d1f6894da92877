//! The secrets of an auditor: committed to before a job's work, and opened one attempt after the
//! other. They live as long as the process; one that is started again commits to new ones.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use concord_proto::auditor::{
    CHAIN_MAX, Enrolment, RATE_MAX, Reveal, SecretChain, enrolment_digest, reveal_digest,
};
use concord_proto::ledger::{LedgerEntry, LedgerEvent, entry_digest};
use concord_proto::{Digest, JobId, Keypair, PublicKey, Signed};

use crate::RuntimeError;

/// Jobs that a process audits at most, so that a coordinator cannot fill its memory.
const JOBS_MAX: usize = 256;

/// What a coordinator asks an auditor to commit to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked {
    pub(crate) job: JobId,
    pub(crate) from: u32,
    pub(crate) length: u32,
    pub(crate) rate: u64,
    /// The enrolment that its ledger has.
    pub(crate) known: Option<Digest>,
}

/// The secrets of one process, by coordinator and job.
#[derive(Default)]
pub(crate) struct Secrets(Mutex<BTreeMap<(PublicKey, JobId), Committed>>);

struct Committed {
    enrolment: Enrolment,
    signed: Signed,
    chain: SecretChain,
    last: Option<Opened>,
}

/// The secret that was opened last.
struct Opened {
    attempt: u32,
    entry: Digest,
    signed: Signed,
}

impl Secrets {
    /// Commits to secrets, or gives the enrolment that the coordinator knows, if its secrets are
    /// still here.
    ///
    /// # Errors
    /// [`RuntimeError::OtherHistory`] where what is asked for is out of bounds, or too many jobs
    /// are audited; [`RuntimeError::Io`] where the system has no random numbers.
    pub(crate) fn enrol(
        &self,
        key: &Keypair,
        coordinator: PublicKey,
        asked: Asked,
    ) -> Result<Signed, RuntimeError> {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let place = (coordinator, asked.job);
        if let Some(held) = held.get(&place)
            && asked.known == Some(enrolment_digest(&held.signed))
        {
            return Ok(held.signed.clone());
        }
        let is_new = !held.contains_key(&place);
        let is_bounded = (1..=CHAIN_MAX).contains(&asked.length) && asked.rate <= RATE_MAX;
        if !is_bounded || (is_new && held.len() >= JOBS_MAX) {
            let why = format!(
                "it asks for {} secrets at a rate of {} / 2^32, with {} jobs audited here",
                asked.length,
                asked.rate,
                held.len()
            );
            return Err(RuntimeError::OtherHistory(why));
        }
        let mut seed = [0; 32];
        getrandom::fill(&mut seed).map_err(|why| RuntimeError::Io {
            action: "make",
            path: "secrets".to_string(),
            why: std::io::Error::other(why),
        })?;
        let chain = SecretChain::new(Digest(seed), asked.length);
        let enrolment = Enrolment {
            job: asked.job,
            coordinator,
            top: chain.top(),
            from: asked.from,
            length: asked.length,
            rate: asked.rate,
        };
        let signed = Signed::new(key, &enrolment);
        let committed = Committed {
            enrolment,
            signed: signed.clone(),
            chain,
            last: None,
        };
        held.insert(place, committed);
        Ok(signed)
    }

    /// Opens the secret of the attempt that an entry of `coordinator` commits. Once a secret is
    /// open, it is so for that entry alone, and those before it are not asked for any more.
    ///
    /// # Errors
    /// [`RuntimeError::OtherHistory`] where the entry commits no attempt that there is a secret
    /// for, or where a secret was opened for another entry.
    pub(crate) fn reveal(
        &self,
        key: &Keypair,
        coordinator: PublicKey,
        job: JobId,
        committed: &Signed,
    ) -> Result<Signed, RuntimeError> {
        let refuse = |why: &str| RuntimeError::OtherHistory(why.to_string());
        let entry: LedgerEntry = committed
            .open()
            .map_err(|error| refuse(&error.to_string()))?;
        if committed.signer != coordinator {
            return Err(refuse("its entry is signed by somebody else"));
        }
        let LedgerEvent::Committed { attempt, .. } = entry.event else {
            return Err(refuse("its entry commits no attempt"));
        };
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let held = held.get_mut(&(coordinator, job));
        let held = held.ok_or_else(|| refuse("there are no secrets for its job here"))?;
        let entry = entry_digest(committed);
        if let Some(last) = held.last.as_ref().filter(|last| last.attempt >= attempt) {
            return match (last.attempt, last.entry) == (attempt, entry) {
                // The answer was lost on the way.
                true => Ok(last.signed.clone()),
                false => Err(refuse(
                    "a secret was opened for this attempt, or a later one, as another entry had it",
                )),
            };
        }
        let index = held.enrolment.index(attempt);
        let secret = index.and_then(|index| held.chain.secret(index));
        let secret = secret.ok_or_else(|| refuse("there is no secret for its attempt"))?;
        let enrolment = enrolment_digest(&held.signed);
        let previous = held.last.as_ref();
        let reveal = Reveal {
            job,
            enrolment,
            previous: previous.map_or(enrolment, |last| reveal_digest(&last.signed)),
            attempt,
            entry,
            secret,
        };
        let signed = Signed::new(key, &reveal);
        held.last = Some(Opened {
            attempt,
            entry,
            signed: signed.clone(),
        });
        Ok(signed)
    }
}

#[cfg(test)]
mod tests {
    use concord_proto::auditor::leads_to;

    use super::*;

    const JOB: JobId = JobId(Digest([7; 32]));

    fn committed(coordinator: &Keypair, attempt: u32, record: u8) -> Signed {
        let entry = LedgerEntry {
            number: u64::from(attempt) * 3,
            previous: Digest::default(),
            event: LedgerEvent::Committed {
                attempt,
                step: attempt,
                epoch: 0,
                record: Digest([record; 32]),
                claims: Vec::new(),
                nonce: [0; 32],
                rates: Vec::new(),
            },
        };
        Signed::new(coordinator, &entry)
    }

    fn asked(from: u32, known: Option<Digest>) -> Asked {
        Asked {
            job: JOB,
            from,
            length: 10,
            rate: 5,
            known,
        }
    }

    #[test]
    fn secrets_are_opened_in_order_and_for_one_history() {
        let [key, coordinator, other] = [[1; 32], [2; 32], [3; 32]].map(Keypair::from_secret);
        let secrets = Secrets::default();
        let ask = |signed: &Signed| secrets.reveal(&key, coordinator.public(), JOB, signed);
        assert!(ask(&committed(&coordinator, 2, 0)).is_err(), "not enrolled");
        let by = coordinator.public();
        let signed = secrets.enrol(&key, by, asked(2, None)).unwrap();
        let enrolment: Enrolment = signed.open().unwrap();
        assert_eq!((enrolment.job, enrolment.from, enrolment.rate), (JOB, 2, 5));
        assert!(ask(&committed(&coordinator, 1, 0)).is_err(), "before it");
        assert!(ask(&committed(&coordinator, 12, 0)).is_err(), "after it");
        assert!(ask(&committed(&other, 2, 0)).is_err(), "of somebody else");
        let first = ask(&committed(&coordinator, 2, 0)).unwrap();
        let opened: Reveal = first.open().unwrap();
        assert!(leads_to(&opened.secret, 0, None, &enrolment.top));
        assert_eq!(opened.previous, enrolment_digest(&signed));
        assert_eq!(ask(&committed(&coordinator, 2, 0)).unwrap(), first, "again");
        let error = ask(&committed(&coordinator, 2, 1)).unwrap_err().to_string();
        assert!(error.contains("as another entry had it"), "{error}");
        let later = ask(&committed(&coordinator, 5, 0)).unwrap();
        let later_one: Reveal = later.open().unwrap();
        assert!(leads_to(&later_one.secret, 3, Some(0), &opened.secret));
        assert_eq!(later_one.previous, reveal_digest(&first));
        assert!(
            ask(&committed(&coordinator, 3, 0)).is_err(),
            "an earlier one"
        );
        // The same secrets go on where the ledger knows them; else there are new ones.
        let known = Some(enrolment_digest(&signed));
        assert_eq!(secrets.enrol(&key, by, asked(6, known)).unwrap(), signed);
        assert_ne!(secrets.enrol(&key, by, asked(6, None)).unwrap(), signed);
        let endless = Asked {
            length: CHAIN_MAX + 1,
            ..asked(6, None)
        };
        assert!(secrets.enrol(&key, by, endless).is_err());
    }
}
