//! What this process has seen of ledgers. It signs nothing for an attempt that is not newer than
//! the last one that it was shown, so that a coordinator cannot tell it two histories of one job.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use concord_proto::AttemptId;
use concord_proto::ledger::{LedgerEntry, LedgerEvent, entry_digest};
use concord_proto::{JobId, PublicKey, Signed};

use crate::RuntimeError;

/// It lives as long as the process: a coordinator that has lost its ledger, or hides a part of it,
/// meets it again in the next session.
#[derive(Default)]
pub(crate) struct Witness {
    seen: Mutex<BTreeMap<(PublicKey, JobId), Seen>>,
}

/// The newest start of a step in one coordinator's ledger of a job.
#[derive(Clone, Copy)]
struct Seen {
    /// Number of the entry.
    entry: u64,
    attempt: AttemptId,
}

/// What a claim names: the attempt, and the one before it that this process has taken part in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct AttemptPlace {
    pub(crate) attempt: AttemptId,
    pub(crate) previous: Option<AttemptId>,
}

impl Witness {
    /// The attempt that an entry of `coordinator` starts, for claims to name.
    ///
    /// # Errors
    /// [`RuntimeError::OtherHistory`] where the entry is not its start of this step of this plan,
    /// or is not newer than what it has shown before.
    pub(crate) fn started(
        &self,
        coordinator: PublicKey,
        job: JobId,
        (epoch, step): (u32, u32),
        signed: &Signed,
    ) -> Result<AttemptPlace, RuntimeError> {
        let refuse = |why: String| RuntimeError::OtherHistory(why);
        let entry: LedgerEntry = signed.open().map_err(|error| refuse(error.to_string()))?;
        if signed.signer != coordinator {
            let signer = signed.signer.short();
            return Err(refuse(format!("its entry is signed by {signer}")));
        }
        let LedgerEvent::Started {
            attempt,
            step: started,
            epoch: of,
            ..
        } = entry.event
        else {
            return Err(refuse("its entry does not start a step".to_string()));
        };
        if (of, started) != (epoch, step) {
            let why = format!("its entry starts step {started} of epoch {of}");
            return Err(refuse(why));
        }
        let id = AttemptId {
            number: attempt,
            entry: entry_digest(signed),
        };
        let now = Seen {
            entry: entry.number,
            attempt: id,
        };
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let before = seen.get(&(coordinator, job)).copied();
        let is_newer =
            before.is_none_or(|before| before.entry < now.entry && before.attempt.number < attempt);
        if !is_newer {
            let why = format!(
                "attempt {attempt} is not newer than the last one that this process was asked for"
            );
            return Err(refuse(why));
        }
        seen.insert((coordinator, job), now);
        Ok(AttemptPlace {
            attempt: id,
            previous: before.map(|before| before.attempt),
        })
    }
}

#[cfg(test)]
mod tests {
    use concord_proto::{Digest, Keypair};

    use super::*;

    fn started(key: &Keypair, number: u64, attempt: u32, step: u32) -> Signed {
        let event = LedgerEvent::Started {
            attempt,
            step,
            epoch: 2,
        };
        entry(key, number, event)
    }

    fn entry(key: &Keypair, number: u64, event: LedgerEvent) -> Signed {
        let previous = Digest::default();
        let entry = LedgerEntry {
            number,
            previous,
            event,
        };
        Signed::new(key, &entry)
    }

    #[test]
    fn a_history_goes_forward_or_gets_no_signature() {
        let [one, other] = [[1; 32], [2; 32]].map(Keypair::from_secret);
        let (witness, job) = (Witness::default(), JobId(Digest::default()));
        let ask = |by: &Keypair, step, signed: &Signed| {
            witness.started(by.public(), job, (2, step), signed)
        };
        let first = started(&one, 7, 3, 5);
        let place = ask(&one, 5, &first).unwrap();
        let id = place.attempt;
        assert_eq!((id.number, id.entry), (3, entry_digest(&first)));
        assert_eq!(place.previous, None);
        // The same again; the same number with another digest; an older entry; an older attempt.
        for again in [
            first.clone(),
            started(&one, 8, 3, 5),
            started(&one, 7, 4, 5),
            started(&one, 9, 2, 5),
        ] {
            let error = ask(&one, 5, &again).unwrap_err().to_string();
            assert!(error.contains("not newer"), "{error}");
        }
        // What does not belong to the order.
        let of_step = started(&one, 10, 9, 6);
        let error = ask(&one, 5, &of_step).unwrap_err().to_string();
        assert!(error.contains("starts step 6 of epoch 2"), "{error}");
        let error = ask(&one, 5, &started(&other, 10, 9, 5)).unwrap_err();
        assert!(error.to_string().contains("signed by"), "{error}");
        let opened = entry(&one, 10, LedgerEvent::Opened { job });
        let error = ask(&one, 5, &opened).unwrap_err().to_string();
        assert!(error.contains("does not start"), "{error}");
        let mut forged = started(&one, 10, 9, 5);
        forged.signature[0] ^= 1;
        assert!(ask(&one, 5, &forged).is_err());
        // None of these has changed what was seen. Another coordinator has its own ledger.
        let next = ask(&one, 5, &started(&one, 8, 4, 5)).unwrap();
        assert_eq!(
            next.previous,
            Some(id),
            "a history without it is another one"
        );
        assert!(ask(&other, 5, &started(&other, 0, 0, 5)).is_ok());
    }
}
