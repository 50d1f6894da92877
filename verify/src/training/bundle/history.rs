//! The ledger read from its first entry to its last: what was planned, committed, audited, voided.

use std::collections::{BTreeMap, BTreeSet};

use concord_proto::AttemptId;
use concord_proto::auditor::Enrolment;
use concord_proto::ledger::{LedgerEntry, LedgerEvent, Offence, Verdict, entry_digest};
use concord_proto::{
    Conviction, Digest, JobId, JobSpec, Plan, PublicKey, Signed, SignedError, WorkerId,
};

use super::VerifyError;
use super::auditors::KnownAuditors;
use super::files::{LEDGER, SPEC};

/// A step as it was committed last.
pub(super) struct Commit {
    /// Number of the entry.
    pub(super) entry: u64,
    /// The attempt that was committed.
    pub(super) attempt: AttemptId,
    /// Index into [`History::plans`].
    pub(super) plan: usize,
    pub(super) record: Digest,
    pub(super) claims: Vec<Digest>,
}

/// A verdict, and who gave it.
pub(super) struct GivenVerdict {
    /// Number of the entry.
    pub(super) entry: u64,
    pub(super) checker: WorkerId,
    pub(super) verdict: Verdict,
}

/// A conviction as it is written: what it shows is not checked yet.
pub(super) struct WrittenConviction {
    /// Number of the entry.
    pub(super) entry: u64,
    pub(super) culprit: WorkerId,
    pub(super) offence: Offence,
    pub(super) conviction: Box<Conviction>,
}

/// What the ledger says once all entries have been read.
pub(super) struct History {
    pub(super) coordinator: PublicKey,
    pub(super) job: JobId,
    pub(super) plans: Vec<Plan>,
    /// All of them, by number.
    pub(super) attempts: Vec<AttemptId>,
    /// The step and the epoch that each of them is of.
    places: Vec<(u32, u32)>,
    /// One for each step.
    pub(super) commits: Vec<Commit>,
    pub(super) verdicts: Vec<GivenVerdict>,
    /// Who is enrolled, and whether as a checker.
    pub(super) enrolled: BTreeSet<(WorkerId, bool)>,
    pub(super) convicted: BTreeSet<WorkerId>,
    /// Who commits to secrets, and opens them.
    pub(super) auditors: KnownAuditors,
    pub(super) convictions: Vec<WrittenConviction>,
}

/// A step that was started and is not committed yet.
struct Open {
    attempt: AttemptId,
    step: u32,
    epoch: u32,
}

impl History {
    /// Reads a ledger, checking that every entry may follow those before it.
    pub(super) fn of(spec: &JobSpec, ledger: &[Signed]) -> Result<Self, VerifyError> {
        let entries = opened(ledger)?;
        let coordinator = ledger[0].signer;
        let LedgerEvent::Opened { job } = entries[0].event else {
            return Err(refusal(&entries[0], coordinator, "it does not open a job"));
        };
        if entries[0].previous != job.0 {
            return Err(refusal(
                &entries[0],
                coordinator,
                "it does not start from its job",
            ));
        }
        if spec.id() != job {
            let reason = format!("it is {:?}, and the ledger is of {job:?}", spec.id());
            return Err(VerifyError::new(SPEC, "the job spec", reason));
        }
        spec.validate()
            .map_err(|error| VerifyError::new(SPEC, "the job spec", error))?;
        let mut reader = Reader {
            spec,
            open: None,
            epochs: BTreeMap::new(),
            completed: false,
            history: Self {
                coordinator,
                job,
                plans: Vec::new(),
                attempts: Vec::new(),
                places: Vec::new(),
                commits: Vec::new(),
                verdicts: Vec::new(),
                enrolled: BTreeSet::new(),
                convicted: BTreeSet::new(),
                auditors: KnownAuditors::default(),
                convictions: Vec::new(),
            },
        };
        for (entry, signed) in entries.iter().zip(ledger).skip(1) {
            reader
                .read(entry, entry_digest(signed))
                .map_err(|reason| refusal(entry, coordinator, reason))?;
        }
        if reader.completed {
            Ok(reader.history)
        } else {
            let reason = "it is the last one, and the job is not completed by it";
            Err(refusal(&entries[entries.len() - 1], coordinator, reason))
        }
    }

    pub(super) fn is_checker(&self, id: &WorkerId) -> bool {
        self.enrolled.contains(&(*id, true))
    }

    pub(super) fn plan(&self, commit: &Commit) -> &Plan {
        &self.plans[commit.plan]
    }
}

/// The entries, their signatures, numbers and links checked. There is at least one.
fn opened(ledger: &[Signed]) -> Result<Vec<LedgerEntry>, VerifyError> {
    let Some(first) = ledger.first() else {
        return Err(VerifyError::new(LEDGER, "entry 0", "there is no entry"));
    };
    let mut entries: Vec<LedgerEntry> = Vec::with_capacity(ledger.len());
    for (number, signed) in (0_u64..).zip(ledger) {
        let refuse = |reason: String| {
            VerifyError::new(LEDGER, format!("entry {number}"), reason).of(signed.signer)
        };
        let entry: LedgerEntry = signed
            .open()
            .map_err(|error: SignedError| refuse(error.to_string()))?;
        if signed.signer != first.signer {
            return Err(refuse(format!(
                "{} signed the entries before",
                first.signer
            )));
        }
        if entry.number != number {
            return Err(refuse(format!("it is numbered {}", entry.number)));
        }
        if let Some(before) = (number as usize).checked_sub(1)
            && entry.previous != entry_digest(&ledger[before])
        {
            return Err(refuse("it does not follow the entry before".to_string()));
        }
        entries.push(entry);
    }
    Ok(entries)
}

fn refusal(entry: &LedgerEntry, coordinator: PublicKey, reason: impl ToString) -> VerifyError {
    let statement = format!("entry {} ({})", entry.number, words(&entry.event));
    VerifyError::new(LEDGER, statement, reason).of(coordinator)
}

fn words(event: &LedgerEvent) -> String {
    match event {
        LedgerEvent::Opened { .. } => "job opened".to_string(),
        LedgerEvent::Enrolled { worker, .. } => format!("{} enrolled", worker.short()),
        LedgerEvent::Planned { plan, step } => {
            format!("plan of epoch {} from step {step}", plan.epoch)
        }
        LedgerEvent::Started { step, .. } => format!("step {step} started"),
        LedgerEvent::Auditing { enrolment } => {
            format!("{} commits to secrets", enrolment.signer.short())
        }
        LedgerEvent::Revealed { reveal } => {
            format!("{} opens a secret", reveal.signer.short())
        }
        LedgerEvent::Committed { step, .. } => format!("step {step} committed"),
        LedgerEvent::Judged { verdict } => format!("verdict of {}", verdict.signer.short()),
        LedgerEvent::Convicted { culprit, .. } => format!("{} convicted", culprit.short()),
        LedgerEvent::Voided { from_step } => format!("steps from {from_step} void"),
        LedgerEvent::Completed { .. } => "job completed".to_string(),
    }
}

/// The state between two entries.
struct Reader<'a> {
    spec: &'a JobSpec,
    history: History,
    open: Option<Open>,
    /// Index of the plan of each epoch.
    epochs: BTreeMap<u32, usize>,
    completed: bool,
}

fn require(holds: bool, reason: &str) -> Result<(), String> {
    if holds {
        Ok(())
    } else {
        Err(reason.to_string())
    }
}

impl Reader<'_> {
    fn read(&mut self, entry: &LedgerEntry, digest: Digest) -> Result<(), String> {
        require(!self.completed, "it comes after the job was completed")?;
        match &entry.event {
            LedgerEvent::Opened { .. } => Err("the job is open already".to_string()),
            LedgerEvent::Enrolled {
                worker, checker, ..
            } => {
                self.history.enrolled.insert((*worker, *checker));
                Ok(())
            }
            LedgerEvent::Planned { plan, step } => self.planned(plan, *step),
            LedgerEvent::Started {
                attempt,
                step,
                epoch,
            } => {
                let next = *attempt as usize == self.history.attempts.len();
                require(next, "attempts before it are missing")?;
                let attempt = AttemptId {
                    number: *attempt,
                    entry: digest,
                };
                self.history.attempts.push(attempt);
                self.history.places.push((*step, *epoch));
                self.started(attempt, *step, *epoch)
            }
            LedgerEvent::Auditing { enrolment } => self.auditing(enrolment),
            LedgerEvent::Revealed { reveal } => self.history.auditors.reveal(reveal),
            LedgerEvent::Committed { .. } => self.committed((entry.number, digest), &entry.event),
            LedgerEvent::Judged { verdict } => self.verdict_given(entry.number, verdict),
            LedgerEvent::Convicted {
                culprit,
                offence,
                conviction,
                ..
            } => {
                self.history.convicted.insert(*culprit);
                self.history.convictions.push(WrittenConviction {
                    entry: entry.number,
                    culprit: *culprit,
                    offence: *offence,
                    conviction: conviction.clone(),
                });
                Ok(())
            }
            LedgerEvent::Voided { from_step } => self.voided(*from_step),
            LedgerEvent::Completed { record } => self.complete(record),
        }
    }

    fn next_step(&self) -> u32 {
        self.history.commits.len() as u32
    }

    fn planned(&mut self, plan: &Plan, step: u32) -> Result<(), String> {
        require(plan.job == self.history.job, "the plan is of another job")?;
        plan.validate(self.spec.layers, self.spec.microbatches)?;
        require(step == self.next_step(), "another step comes next")?;
        let newer = self
            .history
            .plans
            .last()
            .is_none_or(|last| last.epoch < plan.epoch);
        require(newer, "its epoch is not above the one before")?;
        for (_, worker) in plan.workers() {
            let known = self.history.enrolled.contains(&(worker, false));
            require(
                known,
                &format!("{} is not enrolled as a worker", worker.short()),
            )?;
            let out = self.history.convicted.contains(&worker);
            require(!out, &format!("{} was convicted before", worker.short()))?;
        }
        self.epochs.insert(plan.epoch, self.history.plans.len());
        self.history.plans.push(plan.clone());
        Ok(())
    }

    fn started(&mut self, attempt: AttemptId, step: u32, epoch: u32) -> Result<(), String> {
        require(step == self.next_step(), "another step comes next")?;
        require(step < self.spec.chain_steps(), "the job has fewer steps")?;
        let present = self
            .history
            .plans
            .last()
            .is_some_and(|plan| plan.epoch == epoch);
        require(present, "its epoch is not that of the plan in effect")?;
        self.open = Some(Open {
            attempt,
            step,
            epoch,
        });
        Ok(())
    }

    fn committed(
        &mut self,
        (number, digest): (u64, Digest),
        event: &LedgerEvent,
    ) -> Result<(), String> {
        let LedgerEvent::Committed {
            attempt,
            step,
            epoch,
            record,
            claims,
        } = event
        else {
            return Err("it is no commit".to_string());
        };
        let open = self.open.take().ok_or("no step was started before it")?;
        let started = (open.attempt.number, open.step, open.epoch);
        let same = started == (*attempt, *step, *epoch);
        require(same, "another attempt was started before it")?;
        self.history.auditors.committed(*attempt, digest);
        let plan = *self.epochs.get(epoch).ok_or("there is no such epoch")?;
        let workers: Vec<WorkerId> = self.history.plans[plan]
            .workers()
            .map(|(_, id)| id)
            .collect();
        let one_each = claims.len() == workers.len();
        require(one_each, "it has not one claim for each worker of the plan")?;
        for worker in workers {
            let out = self.history.convicted.contains(&worker);
            require(!out, &format!("{} was convicted before", worker.short()))?;
        }
        self.history.commits.push(Commit {
            entry: number,
            attempt: open.attempt,
            plan,
            record: *record,
            claims: claims.clone(),
        });
        Ok(())
    }

    fn auditing(&mut self, enrolment: &Signed) -> Result<(), String> {
        let known = self.history.is_checker(&enrolment.signer);
        require(known, "who commits is not enrolled as a checker")?;
        let (job, coordinator) = (self.history.job, self.history.coordinator);
        let attempts = self.history.attempts.len() as u32;
        let fits = |of: &Enrolment| (of.job, of.coordinator) == (job, coordinator);
        self.history.auditors.enrol(enrolment, attempts, fits)
    }

    fn verdict_given(&mut self, entry: u64, signed: &Signed) -> Result<(), String> {
        let verdict: Verdict = signed.open().map_err(|error| error.to_string())?;
        let checker = signed.signer;
        let known = self.history.is_checker(&checker);
        require(known, "who signed the verdict is not enrolled as a checker")?;
        require(
            verdict.job == self.history.job,
            "the verdict is on another job",
        )?;
        require(
            verdict.worker != checker,
            "the verdict is on the checker's own work",
        )?;
        // An auditor computes a leaf with what the spec gives for the step that its order names.
        let place = self.history.places.get(verdict.attempt as usize);
        require(
            place == Some(&(verdict.step, verdict.epoch)),
            "the verdict names another step than its attempt is of",
        )?;
        self.history.verdicts.push(GivenVerdict {
            entry,
            checker,
            verdict,
        });
        Ok(())
    }

    fn voided(&mut self, from_step: u32) -> Result<(), String> {
        require(from_step <= self.next_step(), "there is no such step yet")?;
        let started = self.history.attempts.len() as u32;
        for commit in self.history.commits.drain(from_step as usize..) {
            let attempt = commit.attempt.number;
            self.history.auditors.void(attempt, started, commit.claims);
        }
        self.open = None;
        Ok(())
    }

    fn complete(&mut self, record: &Digest) -> Result<(), String> {
        // Whether a job with patience may end here, the losses of its records say.
        let evaluation = self.spec.evaluation;
        let is_patient = evaluation.is_some_and(|evaluation| evaluation.patience.is_some());
        let done = self.next_step() == self.spec.chain_steps() || is_patient;
        require(done, "not all steps are committed")?;
        let last = self.history.commits.last().map(|commit| commit.record);
        require(
            last == Some(*record),
            "its record is not that of the last step",
        )?;
        self.completed = true;
        Ok(())
    }
}
