//! The ledger: signed, numbered entries, each bound to the one before by its digest.

use borsh::{BorshDeserialize, BorshSerialize};

use crate::crypto::{Digest, Domain, Signed, WorkerId};
use crate::training::{Conviction, JobId, Plan};

/// One entry, as the coordinator signs it.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct LedgerEntry {
    /// Counted from 0.
    pub number: u64,
    /// Digest of the signed entry before, or the job id for the first.
    pub previous: Digest,
    /// What happened.
    pub event: LedgerEvent,
}

/// What happened in the life of a job.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum LedgerEvent {
    /// The job was taken on.
    Opened { job: JobId },
    /// A worker or checker is known by this key and device.
    Enrolled {
        /// Its key.
        worker: WorkerId,
        /// What it says its device is.
        device: String,
        /// Whether it audits.
        checker: bool,
    },
    /// A plan takes effect from a step on.
    Planned {
        plan: Plan,
        /// The first step under it.
        step: u32,
    },
    /// A step starts.
    Started {
        /// Counted from 0 over the whole job; a step that is done again is a new attempt.
        attempt: u32,
        step: u32,
        /// The plan's epoch.
        epoch: u32,
    },
    /// An auditor commits to its secrets.
    Auditing {
        /// Its signed [`Enrolment`](crate::training::auditor::Enrolment).
        enrolment: Signed,
    },
    /// An auditor opens a secret.
    Revealed {
        /// Its signed [`Reveal`](crate::training::auditor::Reveal).
        reveal: Signed,
    },
    /// All claims of a step are in and agree.
    Committed {
        /// That of its [`LedgerEvent::Started`].
        attempt: u32,
        step: u32,
        /// The plan's epoch.
        epoch: u32,
        /// Digest of the step record.
        record: Digest,
        /// Claim digests in the plan's order.
        claims: Vec<Digest>,
    },
    /// A checker's signed [`Verdict`].
    Judged { verdict: Signed },
    /// A party was found to have lied and is out.
    Convicted {
        /// Who.
        culprit: WorkerId,
        /// What of.
        offence: Offence,
        /// The evidence, as a sentence.
        evidence: String,
        /// The same, for whoever checks it.
        conviction: Box<Conviction>,
    },
    /// Steps from here on are void and done again.
    Voided {
        /// First void step.
        from_step: u32,
    },
    /// The job is done and no audit is open.
    Completed {
        /// Digest of the last step record.
        record: Digest,
    },
}

/// What a party is convicted of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum Offence {
    /// A leaf's outputs are not what its inputs give.
    WrongResult,
    /// The claim does not fit the step, the plan, the data or the state before.
    WrongClaim,
    /// The claim is of another step or job.
    Replay,
    /// A signature in a claim or a verdict is not the signer's.
    Forgery,
    /// A claim or a verdict that is no message.
    Malformed,
    /// A tensor sent and a tensor claimed differ.
    Equivocation,
    /// A checker passed a wrong leaf, failed a right one, or shows no trace of its work.
    FalseVerdict,
}

impl Offence {
    /// Its name for people.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::WrongResult => "wrong result",
            Self::WrongClaim => "wrong claim",
            Self::Replay => "replayed claim",
            Self::Forgery => "forged signature",
            Self::Malformed => "malformed bytes",
            Self::Equivocation => "equivocation",
            Self::FalseVerdict => "false verdict",
        }
    }
}

/// What a checker found.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Verdict {
    pub job: JobId,
    /// The attempt whose leaf it is.
    pub attempt: u32,
    pub step: u32,
    /// The plan's epoch.
    pub epoch: u32,
    /// Whose leaf.
    pub worker: WorkerId,
    /// The leaf's place among those of the worker.
    pub index: u32,
    /// Digest of the leaf as it was ordered.
    pub leaf: Digest,
    /// What was found.
    pub finding: Finding,
    /// What only who has computed the leaf knows, under the checker's own key
    /// ([`Domain::Trace`]); zeros where nothing was computed.
    pub trace: Digest,
}

/// The outcome of a re-run.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum Finding {
    /// The same outputs, bit for bit.
    Agrees,
    /// Another output.
    Differs {
        /// The outputs that the checker computed.
        computed: Vec<crate::training::Port>,
    },
    /// It could not be re-run.
    Inconclusive {
        /// Why.
        reason: String,
    },
}

/// The digest of a signed entry, which the next entry names.
pub fn entry_digest(entry: &Signed) -> Digest {
    Digest::of_value(Domain::Ledger, entry)
}

/// The digest of a signed claim, which the entry that commits it names.
pub fn claim_digest(claim: &Signed) -> Digest {
    Digest::of_value(Domain::Claim, claim)
}
