//! A make-believe auditor: it commits to secrets and opens them.

use concord_proto::auditor::{Enrolment, Reveal, SecretChain, enrolment_digest, reveal_digest};
use concord_proto::ledger::{LedgerEntry, LedgerEvent, entry_digest};
use concord_proto::session::{EnrolOrder, ToCoordinator, ToWorker};
use concord_proto::{Digest, Domain, Keypair, PublicKey, Signed};

/// How an auditor works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    Honest,
    /// Commits to nothing.
    Absent,
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
    /// The last reveal.
    last: Option<Digest>,
}

/// The chain that an auditor makes when it commits for the `number`-th time, from 1. One who looks
/// on knows it, too.
pub fn chain_of(auditor: &PublicKey, number: u64, length: u32) -> SecretChain {
    let last = Digest::of_value(Domain::SecretChain, &(*auditor, number));
    SecretChain::new(last, length)
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

    /// Counts its chains from there, so that they are others than those of other runs.
    pub fn begin_chains_at(&mut self, number: u64) {
        self.chains = number;
    }

    /// Whether it has committed to a secret for an attempt.
    pub fn has_secret(&self, attempt: u32) -> bool {
        let held = self.held.as_ref();
        held.is_some_and(|held| held.enrolment.index(attempt).is_some())
    }

    /// Its process is started again: the secrets are gone. Its disk has the last reveal.
    pub fn lose_secrets(&mut self) {
        if let Some(held) = self.held.take() {
            self.last = held
                .opened
                .last()
                .map(|opened| reveal_digest(&opened.2))
                .or(self.last);
        }
    }

    pub fn told(&mut self, message: &ToWorker) -> Vec<ToCoordinator> {
        match message {
            ToWorker::Enrol(asked) if self.manner != Manner::Absent => {
                let lost = self.lost(asked.last);
                let held = self.held.as_ref().map(|held| held.signed.clone());
                let held = held.filter(|held| asked.known == Some(enrolment_digest(held)));
                let enrolled = match held {
                    Some(enrolment) => ToCoordinator::Enrolled { enrolment },
                    None => self.enrol(asked),
                };
                lost.into_iter().chain([enrolled]).collect()
            }
            ToWorker::Reveal { committed, .. } if self.manner != Manner::Silent => {
                vec![self.reveal(committed)]
            }
            _ => Vec::new(),
        }
    }

    /// What was opened after a reveal.
    fn lost(&self, last: Option<Digest>) -> Vec<ToCoordinator> {
        let held = self.held.iter();
        let opened: Vec<&Signed> = held.flat_map(|h| &h.opened).map(|o| &o.2).collect();
        let mut digests = opened.iter().map(|said| reveal_digest(said));
        let since = digests.position(|said| Some(said) == last);
        let lost = opened[since.map_or(0, |at| at + 1)..].iter();
        lost.map(|said| ToCoordinator::Revealed {
            reveal: (*said).clone(),
        })
        .collect()
    }

    fn enrol(&mut self, asked: &EnrolOrder) -> ToCoordinator {
        self.chains += 1;
        let chain = chain_of(&self.key.public(), self.chains, asked.length);
        let enrolment = Enrolment {
            job: asked.job,
            coordinator: self.coordinator,
            top: chain.top(),
            from: asked.from,
            length: asked.length,
            rate: asked.rate,
        };
        let signed = Signed::new(&self.key, &enrolment);
        let opened = self.held.take().map(|held| held.opened);
        self.held = Some(Held {
            signed: signed.clone(),
            enrolment,
            chain,
            opened: opened.unwrap_or_default(),
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
        // A liar's enrolment may have been altered: then it is for other attempts.
        let secret = match (self.manner, index) {
            (Manner::OtherSecrets, _) | (_, None) => Digest::default(),
            (_, Some(index)) => held.chain.secret(index).unwrap_or_default(),
        };
        let reveal = Reveal {
            job: held.enrolment.job,
            enrolment: enrolment_digest(&held.signed),
            previous: self.last,
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
