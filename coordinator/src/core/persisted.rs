//! What outlives a restart, and how it changes.

// Types and variants have a sentence; a field whose name and type say all has none.
#![allow(missing_docs)]

use std::collections::BTreeMap;

use borsh::{BorshDeserialize, BorshSerialize};
use concord_proto::auditor::{Reveal, reveal_digest};
use concord_proto::client::{JobEvent, JobState, Submission};
use concord_proto::ledger::{Finding, LedgerEntry, LedgerEvent, Offence, Verdict, entry_digest};
use concord_proto::manifest::StateManifest;
use concord_proto::session::{DeviceInfo, Role};
use concord_proto::{Digest, JobId, Leaf, Plan, PublicKey, Signed, StepRecord, WorkerId};
use concord_verify::training::bundle::StepClaims;

use super::new_job::NewJob;

/// Where a job stands.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct JobProgress {
    /// For clients.
    pub state: JobState,
    /// Last epoch used.
    pub epoch: u32,
    /// Steps committed and not void.
    pub committed: u32,
    /// Audits that agreed.
    pub agreed: u64,
    /// Leaves that auditors have drawn and not answered for.
    pub inconclusive: u64,
    /// Workers that this job no longer uses.
    pub set_aside: Vec<WorkerId>,
}

/// A leaf that an auditor has drawn and not answered for yet, or that is contested.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct PersistedAudit {
    /// Number within the job.
    pub number: u64,
    pub attempt: u32,
    pub step: u32,
    pub epoch: u32,
    pub worker: WorkerId,
    /// The leaf's place among those of the worker.
    pub index: u32,
    pub leaf: Leaf,
    /// Whose secret has drawn it; `None` once a verdict contradicts the claim.
    pub auditor: Option<WorkerId>,
    /// Verdicts that do not fit the claim, which are yet to be decided about.
    pub contradictions: Vec<Signed>,
}

/// One change of what is persisted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A job, by its number in the queue; replaces number and submission of one that is there.
    Job {
        job: JobId,
        /// Its place in the queue.
        number: u32,
        /// What was asked for.
        submission: Box<Submission>,
        /// Who has asked for it; the first one rules it.
        submitters: Vec<PublicKey>,
    },
    /// Where it stands.
    Progress {
        job: JobId,
        /// Replaces what was persisted before.
        progress: JobProgress,
    },
    /// A committed step; replaces one of the same number.
    Step {
        /// The attempt that was committed.
        attempt: u32,
        record: StepRecord,
        claims: StepClaims,
    },
    /// Steps from this one on are void: their claims stay for the proof, apart from those of the
    /// chain, until the same step is committed again.
    Void {
        job: JobId,
        /// The first void step.
        from_step: u32,
    },
    /// Records and claims from a step on are void.
    Truncate {
        job: JobId,
        /// The first void step.
        from_step: u32,
    },
    /// An entry of the ledger.
    Ledger {
        job: JobId,
        number: u64,
        /// The signed [`concord_proto::ledger::LedgerEntry`].
        entry: Signed,
    },
    /// A plan.
    Plan { plan: Plan },
    /// A state in the store.
    Checkpoint { job: JobId, state: StateManifest },
    /// The states of these steps are no longer needed, or void.
    DropCheckpoints { job: JobId, steps: Vec<u32> },
    /// An auditor has drawn a leaf.
    AuditOpened { job: JobId, audit: PersistedAudit },
    /// Checkers contradict what the worker of a leaf claims, or do so no more; replaces what was
    /// persisted of the audit.
    AuditContradicted { job: JobId, audit: PersistedAudit },
    /// It is audited, or void.
    AuditClosed {
        job: JobId,
        /// Number within the job.
        number: u64,
    },
    /// An event for watchers.
    Event {
        job: JobId,
        number: u64,
        event: JobEvent,
    },
    /// A member and its reputation.
    Member(PersistedMember),
    /// A key is convicted.
    Convicted { culprit: WorkerId, offence: Offence },
}

/// A member and its reputation.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct PersistedMember {
    pub id: WorkerId,
    pub role: Role,
    pub device: DeviceInfo,
    pub passed: u64,
}

/// What matters of a ledger after a restart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PersistedLedger {
    /// Number of entries.
    pub entries: u64,
    /// Entries of the attempts at steps, by number.
    pub attempts: Vec<Digest>,
    /// Entries that committed attempts, by number of the attempt.
    pub committed: BTreeMap<u32, Digest>,
    /// The last committed attempts of which an auditor has not opened its secret, by number.
    pub unopened: BTreeMap<u32, UnopenedAttempt>,
    /// Digest of the last one, if there is one.
    pub last: Option<Digest>,
    /// Who is enrolled, and whether as a checker.
    pub enrolled: Vec<(WorkerId, bool)>,
    /// How many leaves each checker has found right.
    pub agreed: BTreeMap<WorkerId, u64>,
    /// The first final step that each worker had a part in.
    pub first_part: BTreeMap<WorkerId, u32>,
    /// The last plan.
    pub plan: Option<Plan>,
    /// Auditors, as they committed to secrets last.
    pub auditors: BTreeMap<WorkerId, PersistedAuditor>,
}

/// A committed attempt whose secrets are not all open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnopenedAttempt {
    pub step: u32,
    /// The plan's epoch.
    pub epoch: u32,
    /// The signed entry.
    pub committed: Signed,
}

/// So many of them are kept.
const UNOPENED_MAX: usize = 64;

/// What a ledger has of an auditor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PersistedAuditor {
    /// The signed enrolment.
    pub enrolment: Signed,
    /// The last attempt whose secret it has opened, and the secret.
    pub opened: Option<(u32, Digest)>,
    /// Digest of its last reveal, also under an earlier enrolment.
    pub last: Option<Digest>,
}

impl PersistedLedger {
    /// The first step with a committed attempt that an auditor has yet to open.
    pub fn first_unopened(&self) -> Option<u32> {
        self.unopened.values().map(|attempt| attempt.step).min()
    }

    /// Takes in the next entry.
    ///
    /// # Errors
    /// A sentence, where an entry is not what this coordinator wrote.
    pub fn read(&mut self, entry: &Signed) -> Result<(), String> {
        let opened: LedgerEntry = entry.open().map_err(|error| error.to_string())?;
        match opened.event {
            LedgerEvent::Enrolled {
                worker, checker, ..
            } => self.enrolled.push((worker, checker)),
            LedgerEvent::Judged { verdict } => {
                let found: Verdict = verdict.open().map_err(|error| error.to_string())?;
                let agrees = found.finding == Finding::Agrees;
                *self.agreed.entry(verdict.signer).or_default() += u64::from(agrees);
            }
            LedgerEvent::Planned { plan, .. } => self.plan = Some(plan),
            LedgerEvent::Committed {
                attempt,
                step,
                epoch,
                ..
            } => {
                self.committed.insert(attempt, entry_digest(entry));
                let unopened = UnopenedAttempt {
                    step,
                    epoch,
                    committed: entry.clone(),
                };
                self.unopened.insert(attempt, unopened);
                if self.unopened.len() > UNOPENED_MAX {
                    self.unopened.pop_first();
                }
                for (_, worker) in self.plan.iter().flat_map(Plan::workers) {
                    self.first_part.entry(worker).or_insert(step);
                }
            }
            LedgerEvent::Auditing { enrolment } => {
                let auditor = PersistedAuditor {
                    enrolment: enrolment.clone(),
                    opened: None,
                    last: self.auditors.get(&enrolment.signer).and_then(|a| a.last),
                };
                self.auditors.insert(enrolment.signer, auditor);
            }
            LedgerEvent::Revealed { reveal } => {
                let opened: Reveal = reveal.open().map_err(|error| error.to_string())?;
                if let Some(auditor) = self.auditors.get_mut(&reveal.signer) {
                    auditor.opened = Some((opened.attempt, opened.secret));
                    auditor.last = Some(reveal_digest(&reveal));
                }
                let has_opened = |attempt: u32| {
                    let mut auditors = self.auditors.values();
                    auditors.all(|one| one.opened.is_some_and(|(last, _)| last >= attempt))
                };
                let open = self.unopened.keys().copied().find(|&one| !has_opened(one));
                self.unopened = match open {
                    Some(first) => self.unopened.split_off(&first),
                    None => BTreeMap::new(),
                };
            }
            LedgerEvent::Voided { from_step } => {
                self.unopened.retain(|_, attempt| attempt.step < from_step);
                self.first_part.retain(|_, first| *first < from_step);
            }
            LedgerEvent::Started { .. } => self.attempts.push(entry_digest(entry)),
            LedgerEvent::Opened { .. }
            | LedgerEvent::Convicted { .. }
            | LedgerEvent::Completed { .. } => {}
        }
        self.entries = opened.number + 1;
        self.last = Some(entry_digest(entry));
        Ok(())
    }
}

/// A job, as it is found after a restart.
#[derive(Clone, Debug)]
pub struct PersistedJob {
    /// Its place in the queue.
    pub number: u32,
    /// The job and its manifests.
    pub new: NewJob,
    /// Where it stands.
    pub progress: JobProgress,
    /// All records.
    pub records: Vec<StepRecord>,
    /// Claims of the last two committed steps, and from the first one on with an open audit or a
    /// secret that is not open.
    pub claims: Vec<StepClaims>,
    /// States in the store.
    pub checkpoints: Vec<StateManifest>,
    /// What the ledger says so far.
    pub ledger: PersistedLedger,
    /// Events so far.
    pub events: u64,
    /// Leaves that auditors have drawn and not answered for yet.
    pub audits: Vec<PersistedAudit>,
}

/// All that is persisted.
#[derive(Clone, Debug, Default)]
pub struct Persisted {
    /// Members and their reputation.
    pub members: Vec<PersistedMember>,
    /// Who is out for good.
    pub convicted: Vec<(WorkerId, Offence)>,
    pub jobs: Vec<PersistedJob>,
}
