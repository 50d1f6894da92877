//! What goes into the core and what comes out of it.

use std::collections::BTreeMap;

use borsh::{BorshDeserialize, BorshSerialize};
use concord_proto::bundle::StepClaims;
use concord_proto::client::{ClientResponse, JobEvent, JobState, Submission};
use concord_proto::ledger::{Finding, LedgerEntry, LedgerEvent, Offence, Verdict, entry_digest};
use concord_proto::manifest::{DataManifest, StateManifest};
use concord_proto::session::{DeviceInfo, Hello, Role, ToCoordinator, ToWorker};
use concord_proto::{Digest, JobId, Leaf, Plan, Signed, StepRecord, WorkerId};

/// Microseconds since the driver started. Only differences matter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Time(pub u64);

impl Time {
    /// The time `micros` later.
    pub fn plus(self, micros: u64) -> Self {
        Self(self.0.saturating_add(micros))
    }

    /// Microseconds since `earlier`, or 0.
    pub fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// Number of a session, given by the driver; never used twice in one run of the coordinator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SessionId(pub u64);

/// Number of a client's question, given by the driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct CallId(pub u64);

/// What happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// Time passes. The driver sends one a few times a second.
    Tick,
    /// A session began with a Hello whose signature holds.
    Opened {
        /// The session.
        session: SessionId,
        /// Who signed the Hello; all messages of the session are this key's.
        worker: WorkerId,
        /// The Hello.
        hello: Hello,
    },
    /// A message of a session, signed by its key.
    Message {
        /// The session.
        session: SessionId,
        /// The message.
        message: ToCoordinator,
    },
    /// An envelope that cannot be read or is not signed by the session's key.
    Broken {
        /// The session.
        session: SessionId,
        /// [`Offence::Forgery`] or [`Offence::Malformed`].
        offence: Offence,
        /// What is wrong with it.
        evidence: String,
    },
    /// A session ended.
    Closed {
        /// The session.
        session: SessionId,
        /// How it was noticed.
        reason: String,
    },
    /// A question of a client.
    Asked {
        /// For the answer.
        call: CallId,
        /// The question.
        question: Question,
    },
    /// The answer to [`Effect::CheckBlobs`].
    BlobsChecked {
        /// Number of the check.
        check: u64,
        /// Which blobs the store lacks.
        missing: Vec<Digest>,
    },
}

/// A question that needs the core. The driver has put the blobs in that it names.
#[derive(Clone, Debug)]
pub enum Question {
    /// Take on a job.
    Submit(Box<NewJob>),
    /// The jobs.
    Jobs,
    /// The pool.
    Status,
    /// Stop a job.
    Cancel(JobId),
}

/// A job, with the manifests that its spec names.
#[derive(Clone, Debug)]
pub struct NewJob {
    /// What the client sent.
    pub submission: Submission,
    /// The manifest behind [`concord_proto::JobSpec::data`].
    pub data: DataManifest,
    /// The manifest behind [`concord_proto::JobSpec::initial_state`].
    pub initial: StateManifest,
}

/// What is to be done. The driver carries effects out in order and waits for each
/// [`Effect::StoreBlob`] and [`Effect::Persist`]: so nothing is told to anyone before it is kept.
#[derive(Clone, Debug)]
pub enum Effect {
    /// Put a small blob into the store.
    StoreBlob(Vec<u8>),
    /// Keep these changes, all or none.
    Persist(Vec<Change>),
    /// Send a message.
    Send {
        /// To which session.
        session: SessionId,
        /// The message.
        message: ToWorker,
    },
    /// End a session once its messages are out.
    Close {
        /// Which.
        session: SessionId,
    },
    /// Tell the watchers of a job.
    Publish {
        /// The job.
        job: JobId,
        /// Number of the event, from 0.
        number: u64,
        /// The event.
        event: JobEvent,
    },
    /// Answer a client.
    Reply {
        /// Which question.
        call: CallId,
        /// The answer.
        response: ClientResponse,
    },
    /// Look which of these blobs the store lacks.
    CheckBlobs {
        /// For the answer.
        check: u64,
        /// The blobs.
        blobs: Vec<Digest>,
    },
}

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
    /// A job, by its number in the queue.
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
