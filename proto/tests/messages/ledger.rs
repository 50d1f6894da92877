//! Values of what stands in ledgers.

use concord_proto::auditor::{Enrolment, Reveal};
use concord_proto::draw::AuditRate;
use concord_proto::ledger::*;

use super::Source;

impl Source {
    pub fn offence(&mut self) -> Offence {
        [
            Offence::WrongResult,
            Offence::WrongClaim,
            Offence::Replay,
            Offence::Forgery,
            Offence::Malformed,
            Offence::Equivocation,
            Offence::FalseVerdict,
        ][self.below(7) as usize]
    }

    pub fn ledger_entry(&mut self, variant: u64) -> LedgerEntry {
        let (step, epoch) = (self.u32(), self.u32());
        let event = match variant {
            0 => LedgerEvent::Opened { job: self.job() },
            1 => LedgerEvent::Enrolled {
                worker: self.key(),
                device: self.text(),
                checker: self.flag(),
            },
            2 => LedgerEvent::Planned {
                plan: self.plan(),
                step,
            },
            3 => LedgerEvent::Started {
                attempt: self.u32(),
                step,
                epoch,
                nonce_commitment: self.digest(),
            },
            4 => LedgerEvent::Auditing {
                enrolment: self.signed(),
            },
            5 => LedgerEvent::Revealed {
                reveal: self.signed(),
            },
            6 => LedgerEvent::Committed {
                attempt: self.u32(),
                step,
                epoch,
                record: self.digest(),
                claims: self.list(Self::digest),
                nonce: self.digest().0,
                rates: self.list(|s| AuditRate {
                    worker: s.key(),
                    rate: s.u64(),
                }),
            },
            7 => LedgerEvent::Judged {
                verdict: self.signed(),
            },
            8 => LedgerEvent::Inconclusive {
                leaf: self.digest(),
                reason: self.text(),
            },
            9 => LedgerEvent::Convicted {
                culprit: self.key(),
                offence: self.offence(),
                evidence: self.text(),
            },
            10 => LedgerEvent::Voided { from_step: step },
            11 => LedgerEvent::Completed {
                record: self.digest(),
            },
            _ => panic!("LedgerEvent has no variant {variant} to make"),
        };
        LedgerEntry {
            number: self.u64(),
            previous: self.digest(),
            event,
        }
    }

    pub fn enrolment(&mut self) -> Enrolment {
        Enrolment {
            job: self.job(),
            coordinator: self.key(),
            top: self.digest(),
            from: self.u32(),
            length: self.u32(),
            rate: self.u64(),
        }
    }

    pub fn reveal(&mut self) -> Reveal {
        Reveal {
            job: self.job(),
            enrolment: self.digest(),
            attempt: self.u32(),
            entry: self.digest(),
            secret: self.digest(),
        }
    }

    pub fn verdict(&mut self) -> Verdict {
        let finding = match self.below(3) {
            0 => Finding::Agrees,
            1 => Finding::Differs {
                computed: self.list(Self::port),
            },
            _ => Finding::Inconclusive {
                reason: self.text(),
            },
        };
        Verdict {
            job: self.job(),
            step: self.u32(),
            epoch: self.u32(),
            worker: self.key(),
            leaf: self.digest(),
            finding,
        }
    }
}
