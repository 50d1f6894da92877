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
}

pub struct Auditor {
    pub key: Keypair,
    manner: Manner,
    coordinator: PublicKey,
    /// Counts the chains, so that each is another one.
    chains: u64,
    held: Option<(Signed, Enrolment, SecretChain)>,
    /// The attempt and the entry that a secret was opened for last, and what was said.
    last: Option<(u32, Digest, Signed)>,
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

    pub fn told(&mut self, message: &ToWorker) -> Option<ToCoordinator> {
        match message {
            ToWorker::Enrol {
                job,
                from,
                length,
                rate,
                known,
            } => {
                if let Some((signed, ..)) = &self.held
                    && *known == Some(enrolment_digest(signed))
                {
                    let enrolment = signed.clone();
                    return Some(ToCoordinator::Enrolled { enrolment });
                }
                self.chains += 1;
                let seed = (self.key.public(), self.chains);
                let chain = SecretChain::new(Digest::of_value(Domain::SecretChain, &seed), *length);
                let enrolment = Enrolment {
                    job: *job,
                    coordinator: self.coordinator,
                    top: chain.top(),
                    from: *from,
                    length: *length,
                    rate: *rate,
                };
                let signed = Signed::new(&self.key, &enrolment);
                self.last = None;
                self.held = Some((signed.clone(), enrolment, chain));
                Some(ToCoordinator::Enrolled { enrolment: signed })
            }
            ToWorker::Reveal { job, committed } if self.manner != Manner::Silent => {
                let (signed, enrolment, chain) = self.held.as_ref()?;
                let opened: LedgerEntry = committed.open().expect("a signed entry");
                let LedgerEvent::Committed { attempt, .. } = opened.event else {
                    panic!("{opened:?}");
                };
                let entry = entry_digest(committed);
                if let Some((last, of, said)) = self.last.as_ref().filter(|l| l.0 >= attempt) {
                    assert_eq!((*last, *of), (attempt, entry), "two histories");
                    let reveal = said.clone();
                    return Some(ToCoordinator::Revealed { reveal });
                }
                let index = enrolment.index(attempt).expect("a secret of the attempt");
                let secret = match self.manner {
                    Manner::OtherSecrets => Digest::default(),
                    _ => chain.secret(index).expect("a secret"),
                };
                let enrolment = enrolment_digest(signed);
                let previous = self.last.as_ref();
                let reveal = Reveal {
                    job: *job,
                    enrolment,
                    previous: previous.map_or(enrolment, |(.., said)| reveal_digest(said)),
                    attempt,
                    entry,
                    secret,
                };
                let reveal = Signed::new(&self.key, &reveal);
                self.last = Some((attempt, entry, reveal.clone()));
                Some(ToCoordinator::Revealed { reveal })
            }
            _ => None,
        }
    }
}
