//! What is kept over a restart, and how it changes.

use std::collections::BTreeMap;

use borsh::{BorshDeserialize, BorshSerialize};
use concord_proto::client::{JobEvent, JobState, Submission};
use concord_proto::ledger::{Finding, LedgerEntry, LedgerEvent, Offence, Verdict, entry_digest};
use concord_proto::manifest::StateManifest;
use concord_proto::session::{DeviceInfo, Role};
use concord_proto::{Digest, JobId, Leaf, Plan, Signed, StepRecord, WorkerId};
use concord_verify::training::bundle::StepClaims;

use super::event::NewJob;

/// Where a job stands, as it is kept.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Progress {
    /// For clients.
    pub state: JobState,
    /// Last epoch used.
    pub epoch: u32,
    /// Steps committed and not void.
    pub committed: u32,
    /// Audits that agreed.
    pub agreed: u64,
    /// Drawn leaves that could not be judged.
    pub inconclusive: u64,
    /// Workers that this job does without.
    pub set_aside: Vec<WorkerId>,
}

/// A drawn leaf that is not judged yet, as it is kept.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct KeptAudit {
    /// Number within the job.
    pub number: u64,
    /// The step.
    pub step: u32,
    /// The plan's epoch.
    pub epoch: u32,
    /// Whose leaf.
    pub worker: WorkerId,
    /// The leaf.
    pub leaf: Leaf,
}

/// One change of what is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A job, by its number in the queue; replaces number and submission of one that is there.
    Job {
        /// The job.
        job: JobId,
        /// Its place in the queue.
        number: u32,
        /// What was asked for.
        submission: Box<Submission>,
    },
    /// Where it stands.
    Progress {
        /// The job.
        job: JobId,
        /// Where it stands.
        progress: Progress,
    },
    /// A committed step; replaces one of the same number.
    Step {
        /// The record.
        record: StepRecord,
        /// Its claims.
        claims: StepClaims,
    },
    /// Records and claims from a step on are void.
    Truncate {
        /// The job.
        job: JobId,
        /// The first void step.
        from_step: u32,
    },
    /// An entry of the ledger.
    Ledger {
        /// The job.
        job: JobId,
        /// Its number.
        number: u64,
        /// The signed [`concord_proto::ledger::LedgerEntry`].
        entry: Signed,
    },
    /// A plan.
    Plan {
        /// The plan.
        plan: Plan,
    },
    /// A state in the store.
    Checkpoint {
        /// The job.
        job: JobId,
        /// The state.
        state: StateManifest,
    },
    /// The states of these steps are no longer needed, or void.
    DropCheckpoints {
        /// The job.
        job: JobId,
        /// Their steps.
        steps: Vec<u32>,
    },
    /// A drawn leaf is to be judged.
    AuditOpened {
        /// The job.
        job: JobId,
        /// The leaf.
        audit: KeptAudit,
    },
    /// It is judged, or void.
    AuditClosed {
        /// The job.
        job: JobId,
        /// Number within the job.
        number: u64,
    },
    /// An event for watchers.
    Event {
        /// The job.
        job: JobId,
        /// Its number.
        number: u64,
        /// The event.
        event: JobEvent,
    },
    /// A member and its reputation.
    Member(KeptMember),
    /// A party is out for good.
    Convicted {
        /// Who.
        culprit: WorkerId,
        /// What of.
        offence: Offence,
    },
}

/// A member, as it is kept.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct KeptMember {
    /// Its key.
    pub id: WorkerId,
    /// Worker or checker.
    pub role: Role,
    /// Its device.
    pub device: DeviceInfo,
    /// Audits passed.
    pub passed: u64,
}

/// A drawn leaf that a checker found right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptJudgement {
    /// Who.
    pub checker: WorkerId,
    /// The step.
    pub step: u32,
    /// Digest of the leaf.
    pub leaf: Digest,
}

/// What matters of a ledger after a restart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeptLedger {
    /// Number of entries.
    pub entries: u64,
    /// Digest of the last one, if there is one.
    pub last: Option<Digest>,
    /// Who is enrolled, and whether as a checker.
    pub enrolled: Vec<(WorkerId, bool)>,
    /// Leaves that were judged.
    pub judged: Vec<KeptJudgement>,
    /// The first final step that each worker had a part in.
    pub first_part: BTreeMap<WorkerId, u32>,
    /// The last plan.
    pub plan: Option<Plan>,
}

impl KeptLedger {
    /// Reads on, one signed entry after another.
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
                if found.finding == Finding::Agrees {
                    self.judged.push(KeptJudgement {
                        checker: verdict.signer,
                        step: found.step,
                        leaf: found.leaf,
                    });
                }
            }
            LedgerEvent::Planned { plan, .. } => self.plan = Some(plan),
            LedgerEvent::Committed { step, .. } => {
                for (_, worker) in self.plan.iter().flat_map(Plan::workers) {
                    self.first_part.entry(worker).or_insert(step);
                }
            }
            LedgerEvent::Voided { from_step } => {
                self.judged.retain(|judged| judged.step < from_step);
                self.first_part.retain(|_, first| *first < from_step);
            }
            _ => {}
        }
        self.entries = opened.number + 1;
        self.last = Some(entry_digest(entry));
        Ok(())
    }
}

/// A job, as it is found after a restart.
#[derive(Clone, Debug)]
pub struct KeptJob {
    /// Its place in the queue.
    pub number: u32,
    /// The job and its manifests.
    pub new: NewJob,
    /// Where it stands.
    pub progress: Progress,
    /// Records from one step before the first checkpoint after the start.
    pub records: Vec<StepRecord>,
    /// Claims of the last two committed steps.
    pub claims: Vec<StepClaims>,
    /// States in the store.
    pub checkpoints: Vec<StateManifest>,
    /// What the ledger says so far.
    pub ledger: KeptLedger,
    /// Events so far.
    pub events: u64,
    /// Drawn leaves that are not judged yet.
    pub audits: Vec<KeptAudit>,
}

/// All that is kept.
#[derive(Clone, Debug, Default)]
pub struct Kept {
    /// Members and their reputation.
    pub members: Vec<KeptMember>,
    /// Who is out for good.
    pub convicted: Vec<(WorkerId, Offence)>,
    /// The jobs.
    pub jobs: Vec<KeptJob>,
}
