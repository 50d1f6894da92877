//! The secrets of an auditor: committed to before a job's work, and opened one attempt after the
//! other. They live as long as the process. What was said last is on disk before it is sent, so that
//! no restart makes an auditor forget which history it was shown.

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use concord_proto::auditor::{
    CHAIN_MAX, Enrolment, RATE_MAX, Reveal, SecretChain, enrolment_digest, reveal_digest,
};
use concord_proto::ledger::{LedgerEntry, LedgerEvent, entry_digest};
use concord_proto::session::ToCoordinator;
use concord_proto::{Digest, JobId, Keypair, PublicKey, Signed, canonical};

use crate::RuntimeError;
use crate::durable::replace_file;

/// Jobs that a process audits at once, so that a coordinator cannot fill its memory.
const JOBS_MAX: usize = 256;

/// Reveals that are sent again where a coordinator does not have them.
const KEPT_MAX: usize = 64;

/// What a coordinator asks an auditor to commit to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked {
    pub(crate) job: JobId,
    pub(crate) from: u32,
    pub(crate) length: u32,
    pub(crate) rate: u64,
    /// The last statement that its ledger has.
    pub(crate) known: Option<Digest>,
}

/// The secrets of one process, by coordinator and job.
pub(crate) struct Secrets {
    dir: PathBuf,
    held: Mutex<BTreeMap<(PublicKey, JobId), Committed>>,
}

struct Committed {
    enrolment: Enrolment,
    signed: Signed,
    chain: SecretChain,
    /// The last secrets that were opened.
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
    /// Digest of the last statement.
    last: Option<Digest>,
    /// The last reveal.
    reveal: Option<Signed>,
}

fn refuse(why: &str) -> RuntimeError {
    RuntimeError::OtherHistory(why.to_string())
}

impl Secrets {
    /// Secrets of the auditor whose folder is `dir`.
    pub(crate) fn new(dir: &Path) -> Self {
        Self {
            dir: dir.join("said"),
            held: Mutex::default(),
        }
    }

    /// Commits to secrets, or goes on with those that the coordinator knows, if they are still
    /// here. Gives what it is to be told, in order.
    ///
    /// # Errors
    /// [`RuntimeError::OtherHistory`] where what is asked for is out of bounds, too many jobs are
    /// audited, or a secret was opened for an attempt that it is to be for;
    /// [`RuntimeError::Io`] where the system has no random numbers or the disk fails.
    pub(crate) fn enrol(
        &self,
        key: &Keypair,
        coordinator: PublicKey,
        asked: Asked,
    ) -> Result<Vec<ToCoordinator>, RuntimeError> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let place = (coordinator, asked.job);
        if let Some(again) = held.get(&place).and_then(|held| held.after(asked.known?)) {
            return Ok(again);
        }
        let is_new = !held.contains_key(&place);
        let is_bounded = (1..=CHAIN_MAX).contains(&asked.length) && asked.rate <= RATE_MAX;
        if !is_bounded || (is_new && held.len() >= JOBS_MAX) {
            return Err(refuse(&format!(
                "it asks for {} secrets at a rate of {} / 2^32, with {} jobs audited here",
                asked.length,
                asked.rate,
                held.len()
            )));
        }
        let said = self.said(&place)?;
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
            previous: said.last,
            top: chain.top(),
            from: asked.from,
            length: asked.length,
            rate: asked.rate,
        };
        let signed = Signed::new(key, &enrolment);
        let last = Some(enrolment_digest(&signed));
        // It may have been lost on the way, together with the process that said it.
        let lost = said.reveal.clone().filter(|_| asked.known != said.last);
        self.say(&place, &Said { last, ..said })?;
        let committed = Committed {
            enrolment,
            signed: signed.clone(),
            chain,
            opened: VecDeque::new(),
        };
        held.insert(place, committed);
        let lost = lost.map(|reveal| ToCoordinator::Revealed { reveal });
        let enrolled = ToCoordinator::Enrolled { enrolment: signed };
        Ok(lost.into_iter().chain([enrolled]).collect())
    }

    /// Opens the secret of the attempt that an entry of `coordinator` commits. Once a secret is
    /// open, it is so for that entry alone, and those before it are not asked for any more.
    ///
    /// # Errors
    /// [`RuntimeError::OtherHistory`] where the entry commits no attempt that there is a secret
    /// for, or where a secret was opened for another entry; [`RuntimeError::Io`] where the disk
    /// fails.
    pub(crate) fn reveal(
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
            previous: said.last.unwrap_or(enrolment),
            attempt,
            entry,
            secret,
        };
        let signed = Signed::new(key, &reveal);
        let said = Said {
            attempt: Some(attempt),
            last: Some(reveal_digest(&signed)),
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
    pub(crate) fn forget(&self, coordinator: PublicKey, job: JobId) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.remove(&(coordinator, job));
    }

    fn path(&self, (coordinator, job): &(PublicKey, JobId)) -> PathBuf {
        self.dir.join(format!("{}-{}", job.0, coordinator.short()))
    }

    fn io(&self, action: &'static str, why: std::io::Error) -> RuntimeError {
        let path = self.dir.display().to_string();
        RuntimeError::Io { action, path, why }
    }

    /// What was said last.
    fn said(&self, place: &(PublicKey, JobId)) -> Result<Said, RuntimeError> {
        match std::fs::read(self.path(place)) {
            Ok(bytes) => {
                let (attempt, last, reveal) = canonical::decode(&bytes)
                    .map_err(|why| self.io("read", std::io::Error::other(why.to_string())))?;
                Ok(Said {
                    attempt,
                    last,
                    reveal,
                })
            }
            Err(why) if why.kind() == std::io::ErrorKind::NotFound => Ok(Said::default()),
            Err(why) => Err(self.io("read", why)),
        }
    }

    /// Notes what is about to be said.
    fn say(&self, place: &(PublicKey, JobId), said: &Said) -> Result<(), RuntimeError> {
        let bytes = canonical::encode(&(said.attempt, said.last, said.reveal.clone()));
        let written = std::fs::create_dir_all(&self.dir)
            .and_then(|()| replace_file(&self.path(place), &bytes));
        written.map_err(|why| self.io("write", why))
    }
}

impl Committed {
    /// What was said since a statement of this enrolment, and the enrolment.
    fn after(&self, known: Digest) -> Option<Vec<ToCoordinator>> {
        let said = |opened: &Opened| reveal_digest(&opened.signed);
        let since = match known == enrolment_digest(&self.signed) {
            true => 0,
            false => {
                1 + self
                    .opened
                    .iter()
                    .position(|opened| said(opened) == known)?
            }
        };
        let reveals = self.opened.iter().skip(since).map(|opened| {
            let reveal = opened.signed.clone();
            ToCoordinator::Revealed { reveal }
        });
        let enrolment = self.signed.clone();
        let enrolled = ToCoordinator::Enrolled { enrolment };
        Some(reveals.chain([enrolled]).collect())
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
        let secrets = Secrets::new(dir.path());
        let by = coordinator.public();
        let ask = |signed: &Signed| secrets.reveal(&key, by, JOB, signed).map(revealed);
        assert!(ask(&committed(&coordinator, 2, 0)).is_err(), "not enrolled");
        let signed = enrolled(secrets.enrol(&key, by, asked(2, None)).unwrap());
        let enrolment: Enrolment = signed.open().unwrap();
        assert_eq!((enrolment.job, enrolment.from, enrolment.rate), (JOB, 2, 5));
        assert_eq!(enrolment.previous, None);
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
    }

    /// Whoever has seen a secret cannot have others committed to in its place, whatever happens to
    /// the process.
    #[test]
    fn nothing_that_was_opened_is_forgotten() {
        let [key, coordinator] = [[1; 32], [2; 32]].map(Keypair::from_secret);
        let (dir, by) = (tempfile::tempdir().unwrap(), coordinator.public());
        let secrets = Secrets::new(dir.path());
        let first = enrolled(secrets.enrol(&key, by, asked(2, None)).unwrap());
        let reveal = |secrets: &Secrets, attempt| {
            let entry = committed(&coordinator, attempt, 0);
            revealed(secrets.reveal(&key, by, JOB, &entry).unwrap())
        };
        let (one, two) = (reveal(&secrets, 2), reveal(&secrets, 3));
        // The same secrets go on where the ledger has a statement of theirs; what it lacks is sent
        // again.
        for (known, again) in [
            (enrolment_digest(&first), vec![one.clone(), two.clone()]),
            (reveal_digest(&one), vec![two.clone()]),
            (reveal_digest(&two), Vec::new()),
        ] {
            let mut said = secrets.enrol(&key, by, asked(9, Some(known))).unwrap();
            let enrolment = first.clone();
            assert_eq!(said.pop(), Some(ToCoordinator::Enrolled { enrolment }));
            let said: Vec<Signed> = said.into_iter().map(revealed).collect();
            assert_eq!(said, again);
        }
        // A process that is started again has no secrets, and remembers what it has said.
        let secrets = Secrets::new(dir.path());
        let known = Some(reveal_digest(&one));
        for from in [2, 3] {
            assert!(
                secrets.enrol(&key, by, asked(from, known)).is_err(),
                "{from}"
            );
        }
        let mut said = secrets.enrol(&key, by, asked(4, known)).unwrap();
        let second = enrolled(vec![said.pop().unwrap()]);
        let opened: Enrolment = second.open().unwrap();
        assert_eq!(opened.previous, Some(reveal_digest(&two)));
        assert_eq!(said.pop().map(revealed), Some(two), "it may have been lost");
        // So does one whose job was said to be over.
        secrets.forget(by, JOB);
        let third = enrolled(secrets.enrol(&key, by, asked(4, None)).unwrap());
        let third: Enrolment = third.open().unwrap();
        assert_eq!(third.previous, Some(enrolment_digest(&second)));
        assert!(secrets.enrol(&key, by, asked(3, None)).is_err());
        let endless = Asked {
            length: CHAIN_MAX + 1,
            ..asked(6, None)
        };
        assert!(secrets.enrol(&key, by, endless).is_err());
    }
}
