//! A make-believe auditor: it commits to secrets and opens them.

use concord_proto::auditor::{Enrolment, Reveal, SecretChain, enrolment_digest, reveal_digest};
use concord_proto::ledger::{LedgerEntry, LedgerEvent, entry_digest};
use concord_proto::session::{ToCoordinator, ToWorker};
use concord_proto::{Digest, Domain, Keypair, PublicKey, Signed};

/// How an auditor works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    Honest,
    /// Commits to secrets and opens none.
    Silent,
    /// Opens other secrets than it has committed to.
    OtherSecrets,
    /// Opens its secrets, and answers nothing about what they draw.
    Mute,
}

/// The chain that an auditor has committed to.
struct Held {
    signed: Signed,
    enrolment: Enrolment,
    chain: SecretChain,
    /// What it has opened, by rising attempt: the attempt, the entry, and what was said.
    opened: Vec<(u32, Digest, Signed)>,
}

pub struct Auditor {
    pub key: Keypair,
    pub manner: Manner,
    coordinator: PublicKey,
    /// Counts the chains, so that each is another one.
    chains: u64,
    held: Option<Held>,
    /// The last statement.
    last: Option<Digest>,
}

impl Auditor {
    pub fn new(key: Keypair, coordinator: PublicKey, manner: Manner) -> Self {
        Self {
            key,
            manner,
            coordinator,
            chains: 0,
            held: None,
            last: None,
        }
    }

    pub fn told(&mut self, message: &ToWorker) -> Vec<ToCoordinator> {
        match message {
            ToWorker::Enrol { known, .. } => {
                let again = known.and_then(|known| self.after(known));
                again.unwrap_or_else(|| vec![self.enrol(message)])
            }
            ToWorker::Reveal { committed, .. } if self.manner != Manner::Silent => {
                vec![self.reveal(committed)]
            }
            _ => Vec::new(),
        }
    }

    /// What was said after a statement of the chain that is held.
    fn after(&self, known: Digest) -> Option<Vec<ToCoordinator>> {
        let held = self.held.as_ref()?;
        let mut said = held.opened.iter().map(|(.., said)| reveal_digest(said));
        let since = match known == enrolment_digest(&held.signed) {
            true => 0,
            false => 1 + said.position(|said| said == known)?,
        };
        let reveals = held.opened[since..].iter().map(|(.., said)| {
            let reveal = said.clone();
            ToCoordinator::Revealed { reveal }
        });
        let enrolment = held.signed.clone();
        let enrolled = ToCoordinator::Enrolled { enrolment };
        Some(reveals.chain([enrolled]).collect())
    }

    fn enrol(&mut self, asked: &ToWorker) -> ToCoordinator {
        let ToWorker::Enrol {
            job,
            from,
            length,
            rate,
            ..
        } = asked
        else {
            panic!("{asked:?}");
        };
        self.chains += 1;
        let seed = (self.key.public(), self.chains);
        let chain = SecretChain::new(Digest::of_value(Domain::SecretChain, &seed), *length);
        let enrolment = Enrolment {
            job: *job,
            coordinator: self.coordinator,
            previous: self.last,
            top: chain.top(),
            from: *from,
            length: *length,
            rate: *rate,
        };
        let signed = Signed::new(&self.key, &enrolment);
        self.last = Some(enrolment_digest(&signed));
        self.held = Some(Held {
            signed: signed.clone(),
            enrolment,
            chain,
            opened: Vec::new(),
        });
        ToCoordinator::Enrolled { enrolment: signed }
    }

    fn reveal(&mut self, committed: &Signed) -> ToCoordinator {
        let held = self.held.as_mut().expect("secrets");
        let opened: LedgerEntry = committed.open().expect("a signed entry");
        let LedgerEvent::Committed { attempt, .. } = opened.event else {
            panic!("{opened:?}");
        };
        let entry = entry_digest(committed);
        let mut before = held.opened.iter().filter(|opened| opened.0 >= attempt);
        if let Some(later) = before.next() {
            assert_eq!((later.0, later.1), (attempt, entry), "two histories");
            let reveal = later.2.clone();
            return ToCoordinator::Revealed { reveal };
        }
        let index = held.enrolment.index(attempt);
        let index = index.expect("a secret of the attempt");
        let secret = match self.manner {
            Manner::OtherSecrets => Digest::default(),
            _ => held.chain.secret(index).expect("a secret"),
        };
        let reveal = Reveal {
            job: held.enrolment.job,
            enrolment: enrolment_digest(&held.signed),
            previous: self.last.expect("an enrolment"),
            attempt,
            entry,
            secret,
        };
        let reveal = Signed::new(&self.key, &reveal);
        self.last = Some(reveal_digest(&reveal));
        held.opened.push((attempt, entry, reveal.clone()));
        ToCoordinator::Revealed { reveal }
    }
}
