//! Values of what stands in ledgers.

use concord_proto::auditor::{Enrolment, Reveal};
use concord_proto::ledger::*;
use concord_proto::{ClaimedLeaf, Conviction, Digest, SignedHalf};

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
            },
            7 => LedgerEvent::Judged {
                verdict: self.signed(),
            },
            8 => LedgerEvent::Convicted {
                culprit: self.key(),
                offence: self.offence(),
                evidence: self.text(),
                conviction: {
                    let variant = self.below(4);
                    Box::new(self.conviction(variant))
                },
            },
            9 => LedgerEvent::Voided { from_step: step },
            10 => LedgerEvent::Completed {
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
            previous: self.flag().then(|| self.digest()),
            attempt: self.u32(),
            entry: self.digest(),
            secret: self.digest(),
        }
    }

    fn claimed_leaf(&mut self) -> ClaimedLeaf {
        ClaimedLeaf {
            half: self.signed(),
            leaf: self.leaf(),
            path: self.path(),
        }
    }

    fn signed_half(&mut self) -> SignedHalf {
        SignedHalf {
            signed: self.signed(),
            leaves: self.list(Self::leaf),
        }
    }

    fn addresses(&mut self) -> Vec<Vec<Digest>> {
        self.list(|s| s.list(Self::digest))
    }

    pub fn conviction(&mut self, variant: u64) -> Conviction {
        match variant {
            0 => Conviction::WrongResult {
                claimed: self.claimed_leaf(),
                inputs: self.addresses(),
                computed: self.list(Self::port),
            },
            1 => Conviction::FalseVerdict {
                verdict: self.signed(),
                claimed: self.claimed_leaf(),
                inputs: self.addresses(),
                computed: self.list(Self::port),
                trace: self.digest(),
            },
            2 => Conviction::BrokenRule {
                first: self.signed_half(),
                second: self.flag().then(|| self.signed_half()),
                before: self.list(Self::state_entry),
            },
            3 => Conviction::Equivocation {
                claimed: self.claimed_leaf(),
                sent: self.port(),
                signature: self.signature(),
            },
            _ => panic!("Conviction has no variant {variant} to make"),
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
            attempt: self.u32(),
            step: self.u32(),
            epoch: self.u32(),
            worker: self.key(),
            index: self.u32(),
            leaf: self.digest(),
            finding,
            trace: self.digest(),
        }
    }
}
