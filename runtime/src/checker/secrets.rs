//! The secrets of an auditor: committed to before a job's work, and opened one attempt after the
//! other. They live as long as the process. What was said last is on disk before it is sent, so
//! that no restart makes an auditor forget which history it was shown.

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use concord_proto::auditor::{
    CHAIN_MAX, Enrolment, RATE_MAX, Reveal, SecretChain, enrolment_digest, reveal_digest,
};
use concord_proto::ledger::{LedgerEntry, LedgerEvent, entry_digest};
use concord_proto::session::{EnrolOrder, ToCoordinator, ToWorker};
use concord_proto::{Digest, JobId, Keypair, PublicKey, Signed, canonical};

use crate::RuntimeError;
use crate::durable::replace_file;

/// Jobs that a process audits at once, so that a coordinator cannot fill its memory.
const JOBS_MAX: usize = 256;

/// Reveals that are sent again where a coordinator does not have them.
const KEPT_MAX: usize = 64;

/// The secrets of one process, by coordinator and job.
pub(crate) struct AuditorSecrets {
    dir: PathBuf,
    held: Mutex<BTreeMap<(PublicKey, JobId), Committed>>,
}

struct Committed {
    enrolment: Enrolment,
    signed: Signed,
    chain: SecretChain,
    /// The last secrets that were opened, under earlier enrolments, too.
    opened: VecDeque<Opened>,
}

/// A secret that was opened.
struct Opened {
    attempt: u32,
    entry: Digest,
    signed: Signed,
}

/// What an auditor said last about a job to a coordinator.
#[derive(Clone, Debug, Default)]
struct Said {
    /// The last attempt whose secret is open.
    attempt: Option<u32>,
    /// The last reveal.
    reveal: Option<Signed>,
}

impl Said {
    /// What the next reveal names.
    fn last(&self) -> Option<Digest> {
        self.reveal.as_ref().map(reveal_digest)
    }
}

fn refuse(why: &str) -> RuntimeError {
    RuntimeError::OtherHistory(why.to_string())
}

impl AuditorSecrets {
    /// AuditorSecrets of the auditor whose folder is `dir`.
    pub(crate) fn new(dir: &Path) -> Self {
        Self {
            dir: dir.join("said"),
            held: Mutex::default(),
        }
    }

    /// What an auditor says to a coordinator that asks for secrets, in order.
    ///
    /// # Errors
    /// As [`Self::enrol`] and [`Self::reveal`].
    pub(crate) fn answer(
        &self,
        key: &Keypair,
        coordinator: PublicKey,
        message: ToWorker,
    ) -> Result<Vec<ToCoordinator>, RuntimeError> {
        match message {
            ToWorker::Enrol(asked) => self.enrol(key, coordinator, asked),
            ToWorker::Reveal { job, committed } => {
                let reveal = self.reveal(key, coordinator, job, &committed)?;
                Ok(vec![reveal])
            }
            ToWorker::Forget { job } => {
                self.forget(coordinator, job);
                Ok(Vec::new())
            }
            _ => Ok(Vec::new()),
        }
    }

    /// Commits to secrets, or goes on with those that the coordinator knows, if they are still
    /// here. Gives what it is to be told, in order.
    ///
    /// # Errors
    /// [`RuntimeError::OtherHistory`] where what is asked for is out of bounds, too many jobs are
    /// audited, or a secret was opened for an attempt that it is to be for;
    /// [`RuntimeError::Io`] where the system has no random numbers or the disk fails.
    fn enrol(
        &self,
        key: &Keypair,
        coordinator: PublicKey,
        asked: EnrolOrder,
    ) -> Result<Vec<ToCoordinator>, RuntimeError> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let place = (coordinator, asked.job);
        let said = self.said(&place)?;
        let old = held.get(&place);
        let lost = lost(old, &said, asked.last);
        if let Some(old) = old.filter(|old| asked.known == Some(enrolment_digest(&old.signed))) {
            let enrolment = old.signed.clone();
            return Ok(lost
                .chain([ToCoordinator::Enrolled { enrolment }])
                .collect());
        }
        let is_bounded = (1..=CHAIN_MAX).contains(&asked.length) && asked.rate <= RATE_MAX;
        if !is_bounded || (old.is_none() && held.len() >= JOBS_MAX) {
            return Err(refuse(&format!(
                "it asks for {} secrets at a rate of {} / 2^32, with {} jobs audited here",
                asked.length,
                asked.rate,
                held.len()
            )));
        }
        if said.attempt.is_some_and(|attempt| attempt >= asked.from) {
            return Err(refuse(
                "it asks for secrets of an attempt whose secret is open",
            ));
        }
        let mut seed = [0; 32];
        getrandom::fill(&mut seed).map_err(|why| self.io("make", std::io::Error::other(why)))?;
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
        let enrolled = ToCoordinator::Enrolled {
            enrolment: signed.clone(),
        };
        let said = lost.chain([enrolled]).collect();
        let opened = held.remove(&place).map(|old| old.opened);
        let committed = Committed {
            enrolment,
            signed,
            chain,
            opened: opened.unwrap_or_default(),
        };
        held.insert(place, committed);
        Ok(said)
    }

    /// Opens the secret of the attempt that an entry of `coordinator` commits. Once a secret is
    /// open, it is so for that entry alone, and those before it are not asked for any more.
    ///
    /// # Errors
    /// [`RuntimeError::OtherHistory`] where the entry commits no attempt that there is a secret
    /// for, or where a secret was opened for another entry; [`RuntimeError::Io`] where the disk
    /// fails.
    fn reveal(
        &self,
        key: &Keypair,
        coordinator: PublicKey,
        job: JobId,
        committed: &Signed,
    ) -> Result<ToCoordinator, RuntimeError> {
        let entry: LedgerEntry = committed
            .open()
            .map_err(|error| refuse(&error.to_string()))?;
        if committed.signer != coordinator {
            return Err(refuse("its entry is signed by somebody else"));
        }
        let LedgerEvent::Committed { attempt, .. } = entry.event else {
            return Err(refuse("its entry commits no attempt"));
        };
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let place = (coordinator, job);
        let held = held.get_mut(&place);
        let held = held.ok_or_else(|| refuse("there are no secrets for its job here"))?;
        let entry = entry_digest(committed);
        let mut opened = held.opened.iter();
        if let Some(same) = opened.find(|o| (o.attempt, o.entry) == (attempt, entry)) {
            // The answer was lost on the way.
            let reveal = same.signed.clone();
            return Ok(ToCoordinator::Revealed { reveal });
        }
        let said = self.said(&place)?;
        if said.attempt.is_some_and(|last| last >= attempt) {
            return Err(refuse(
                "a secret was opened for this attempt, or a later one, as another entry had it",
            ));
        }
        let index = held.enrolment.index(attempt);
        let secret = index.and_then(|index| held.chain.secret(index));
        let secret = secret.ok_or_else(|| refuse("there is no secret for its attempt"))?;
        let enrolment = enrolment_digest(&held.signed);
        let reveal = Reveal {
            job,
            enrolment,
            previous: said.last(),
            attempt,
            entry,
            secret,
        };
        let signed = Signed::new(key, &reveal);
        let said = Said {
            attempt: Some(attempt),
            reveal: Some(signed.clone()),
        };
        self.say(&place, &said)?;
        if held.opened.len() == KEPT_MAX {
            held.opened.pop_front();
        }
        held.opened.push_back(Opened {
            attempt,
            entry,
            signed: signed.clone(),
        });
        Ok(ToCoordinator::Revealed { reveal: signed })
    }

    /// A job is over: its secrets go. What was said stays on disk.
    fn forget(&self, coordinator: PublicKey, job: JobId) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.remove(&(coordinator, job));
    }

    fn path(&self, (coordinator, job): &(PublicKey, JobId)) -> PathBuf {
        self.dir.join(format!("{}-{coordinator}", job.0))
    }

    fn io(&self, action: &'static str, why: std::io::Error) -> RuntimeError {
        let path = self.dir.display().to_string();
        RuntimeError::Io { action, path, why }
    }

    /// What was said last.
    fn said(&self, place: &(PublicKey, JobId)) -> Result<Said, RuntimeError> {
        match std::fs::read(self.path(place)) {
            Ok(bytes) => {
                let (attempt, reveal) = canonical::decode(&bytes)
                    .map_err(|why| self.io("read", std::io::Error::other(why.to_string())))?;
                Ok(Said { attempt, reveal })
            }
            Err(why) if why.kind() == std::io::ErrorKind::NotFound => Ok(Said::default()),
            Err(why) => Err(self.io("read", why)),
        }
    }

    /// Notes what is about to be said.
    fn say(&self, place: &(PublicKey, JobId), said: &Said) -> Result<(), RuntimeError> {
        let bytes = canonical::encode(&(said.attempt, said.reveal.clone()));
        let written = std::fs::create_dir_all(&self.dir)
            .and_then(|()| replace_file(&self.path(place), &bytes));
        written.map_err(|why| self.io("write", why))
    }
}

/// The reveals that a ledger lacks whose last one is `known`. Of those of an earlier process the
/// last one is left.
fn lost(
    held: Option<&Committed>,
    said: &Said,
    known: Option<Digest>,
) -> impl Iterator<Item = ToCoordinator> + use<> {
    let opened = held.into_iter().flat_map(|held| &held.opened);
    let mut reveals: Vec<Signed> = opened.map(|opened| opened.signed.clone()).collect();
    if reveals.is_empty() {
        reveals.extend(said.reveal.clone());
    }
    let mut digests = reveals.iter().map(reveal_digest);
    let since = digests.position(|digest| Some(digest) == known);
    let since = since.map_or(0, |at| at + 1);
    let lost = reveals.into_iter().skip(since);
    lost.map(|reveal| ToCoordinator::Revealed { reveal })
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
            },
        };
        Signed::new(coordinator, &entry)
    }

    fn asked(from: u32, known: Option<Digest>, last: Option<Digest>) -> EnrolOrder {
        EnrolOrder {
            job: JOB,
            from,
            length: 10,
            rate: 5,
            known,
            last,
        }
    }

    fn revealed(message: ToCoordinator) -> Signed {
        match message {
            ToCoordinator::Revealed { reveal } => reveal,
            other => panic!("{other:?}"),
        }
    }

    fn enrolled(mut messages: Vec<ToCoordinator>) -> Signed {
        match messages.pop() {
            Some(ToCoordinator::Enrolled { enrolment }) => enrolment,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn secrets_are_opened_in_order_and_for_one_history() {
        let [key, coordinator, other] = [[1; 32], [2; 32], [3; 32]].map(Keypair::from_secret);
        let dir = tempfile::tempdir().unwrap();
        let secrets = AuditorSecrets::new(dir.path());
        let by = coordinator.public();
        let ask = |signed: &Signed| secrets.reveal(&key, by, JOB, signed).map(revealed);
        assert!(ask(&committed(&coordinator, 2, 0)).is_err(), "not enrolled");
        let signed = enrolled(secrets.enrol(&key, by, asked(2, None, None)).unwrap());
        let enrolment: Enrolment = signed.open().unwrap();
        assert_eq!((enrolment.job, enrolment.from, enrolment.rate), (JOB, 2, 5));
        assert!(ask(&committed(&coordinator, 1, 0)).is_err(), "before it");
        assert!(ask(&committed(&coordinator, 12, 0)).is_err(), "after it");
        assert!(ask(&committed(&other, 2, 0)).is_err(), "of somebody else");
        let first = ask(&committed(&coordinator, 2, 0)).unwrap();
        let opened: Reveal = first.open().unwrap();
        assert!(leads_to(&opened.secret, 0, None, &enrolment.top));
        assert_eq!(opened.previous, None);
        assert_eq!(ask(&committed(&coordinator, 2, 0)).unwrap(), first, "again");
        let error = ask(&committed(&coordinator, 2, 1)).unwrap_err().to_string();
        assert!(error.contains("as another entry had it"), "{error}");
        let later = ask(&committed(&coordinator, 5, 0)).unwrap();
        let later_one: Reveal = later.open().unwrap();
        assert!(leads_to(&later_one.secret, 3, Some(0), &opened.secret));
        assert_eq!(later_one.previous, Some(reveal_digest(&first)));
        assert!(
            ask(&committed(&coordinator, 3, 0)).is_err(),
            "an earlier one"
        );
    }

    /// Whoever has seen a secret cannot have others committed to in its place, whatever happens to
    /// the process.
    #[test]
    fn nothing_that_was_opened_is_forgotten() {
        let [key, coordinator] = [[1; 32], [2; 32]].map(Keypair::from_secret);
        let (dir, by) = (tempfile::tempdir().unwrap(), coordinator.public());
        let secrets = AuditorSecrets::new(dir.path());
        let first = enrolled(secrets.enrol(&key, by, asked(2, None, None)).unwrap());
        let reveal = |secrets: &AuditorSecrets, attempt| {
            let entry = committed(&coordinator, attempt, 0);
            revealed(secrets.reveal(&key, by, JOB, &entry).unwrap())
        };
        let (one, two) = (reveal(&secrets, 2), reveal(&secrets, 3));
        // The same secrets go on where the ledger has their enrolment; what it lacks is sent again.
        let known = Some(enrolment_digest(&first));
        let (last_one, last_two) = (reveal_digest(&one), reveal_digest(&two));
        for (last, again) in [
            (None, vec![one.clone(), two.clone()]),
            (Some(last_one), vec![two.clone()]),
            (Some(last_two), Vec::new()),
        ] {
            let mut said = secrets.enrol(&key, by, asked(9, known, last)).unwrap();
            let enrolment = first.clone();
            assert_eq!(said.pop(), Some(ToCoordinator::Enrolled { enrolment }));
            let said: Vec<Signed> = said.into_iter().map(revealed).collect();
            assert_eq!(said, again);
        }
        // A process that is started again has no secrets, and remembers what it has opened.
        let secrets = AuditorSecrets::new(dir.path());
        for from in [2, 3] {
            let asked = asked(from, known, Some(last_one));
            assert!(secrets.enrol(&key, by, asked).is_err(), "{from}");
        }
        let again = asked(4, known, Some(last_one));
        let mut said = secrets.enrol(&key, by, again).unwrap();
        assert_ne!(enrolled(vec![said.pop().unwrap()]), first);
        assert_eq!(said.pop().map(revealed), Some(two), "it may have been lost");
        // So does one whose job was said to be over, and one whose enrolment was lost.
        secrets.forget(by, JOB);
        secrets
            .enrol(&key, by, asked(4, None, Some(last_two)))
            .unwrap();
        secrets
            .enrol(&key, by, asked(4, None, Some(last_two)))
            .unwrap();
        let third: Reveal = reveal(&secrets, 4).open().unwrap();
        assert_eq!(third.previous, Some(last_two));
        assert!(secrets.enrol(&key, by, asked(3, None, None)).is_err());
        let endless = EnrolOrder {
            length: CHAIN_MAX + 1,
            ..asked(6, None, None)
        };
        assert!(secrets.enrol(&key, by, endless).is_err());
    }
}
