//! The steps: checks that every record follows from the one before, the data and the claims, and
//! that every claim keeps the rules.

use concord_proto::ledger::claim_digest;
use concord_proto::manifest::StateEntry;
use concord_proto::{
    BatchPlan, Claim, Course, Digest, Domain, FirstHalf, JobSpec, Leaf, PortKind, Signed,
    StepRecord, WorkerId, first_half_digest, leaf_root, microbatch_digest,
};

use super::files::{CLAIMS, DATA, INITIAL, RECORDS};
use super::history::{Commit, History};
use super::{Bundle, StepClaims, VerifyError};
use crate::training::{
    self as rules, Claimed, ClaimedLeaves, SignedFirst, StepRules, WorkerClaim, split_leaves,
};

/// The leaves of each worker of a step, in the plan's order.
pub(super) type StepLeaves<'a> = Vec<(WorkerId, &'a [Leaf])>;

/// A claim of a step, opened.
struct OpenedClaim<'a> {
    worker: WorkerId,
    claim: Claim,
    leaves: &'a [Leaf],
}

/// Checks all other files against the ledger and against each other. Gives the leaves of each step.
pub(super) fn check<'a>(
    bundle: &'a Bundle,
    history: &History,
) -> Result<Vec<StepLeaves<'a>>, VerifyError> {
    check_manifests(bundle)?;
    let steps = history.commits.len();
    if bundle.records.len() != steps {
        let reason = format!("{} records for {steps} steps", bundle.records.len());
        return Err(VerifyError::new(RECORDS, "the number of records", reason));
    }
    if bundle.claims.len() != steps {
        let reason = format!("claims of {} steps, not of {steps}", bundle.claims.len());
        return Err(VerifyError::new(CLAIMS, "the number of steps", reason));
    }
    let mut walk = Walk {
        bundle,
        history,
        batches: BatchPlan::new(&bundle.spec, bundle.data.sequences.len() as u64),
        state: bundle.initial_state.entries.clone(),
        previous: history.job.0,
        attempts: history.attempts.iter().map(|id| id.entry).collect(),
    };
    let leaves = (0_u32..)
        .zip(&history.commits)
        .map(|(step, commit)| walk.step(step, commit))
        .collect::<Result<_, _>>()?;
    check_end(bundle)?;
    Ok(leaves)
}

/// Checks that the job may end with its last record, and not before it.
fn check_end(bundle: &Bundle) -> Result<(), VerifyError> {
    let spec = &bundle.spec;
    let mut course = Course::default();
    for record in &bundle.records {
        if course.is_over(spec) {
            let reason = "the job was over before it".to_string();
            return Err(of_record(record.step, reason));
        }
        course.note(spec, record.loss);
        if course.has_diverged(spec) {
            let reason = "with its loss the job fails".to_string();
            return Err(of_record(record.step, reason));
        }
    }
    let last = bundle.records.len().saturating_sub(1) as u32;
    match course.is_over(spec) {
        true => Ok(()),
        false => Err(of_record(last, "not all steps are committed".to_string())),
    }
}

fn check_manifests(bundle: &Bundle) -> Result<(), VerifyError> {
    let (spec, data, initial) = (&bundle.spec, &bundle.data, &bundle.initial_state);
    let refuse = |file, reason: &str| Err(VerifyError::new(file, "the manifest", reason));
    if Digest::of_value(Domain::Blob, data) != spec.data {
        return refuse(DATA, "it is not the one that the job spec names");
    }
    if let Err(why) = spec.check_data(data) {
        return refuse(DATA, &why);
    }
    if Digest::of_value(Domain::Blob, initial) != spec.initial_state {
        return refuse(INITIAL, "it is not the one that the job spec names");
    }
    if initial.step != 0 {
        return refuse(INITIAL, "it is of a later step");
    }
    if initial.entries.len() != spec.trainable.len() {
        return refuse(INITIAL, "it has not one entry for each trained tensor");
    }
    Ok(())
}

/// Opens a claim whose parts are those that it names.
fn open_claim(submitted: &WorkerClaim) -> Result<Claim, String> {
    fn open<T: borsh::BorshSerialize + borsh::BorshDeserialize>(
        signed: &Signed,
    ) -> Result<T, String> {
        signed.open().map_err(|error| error.to_string())
    }
    let claim: Claim = open(&submitted.claim)?;
    if claim.first_half != first_half_digest(&submitted.first_half) {
        return Err("its first half is not the one that it names".to_string());
    }
    let half: FirstHalf = open(&submitted.first_half)?;
    let (first, second) = split_leaves(&submitted.leaves);
    match (half.leaf_root, claim.leaf_root) == (leaf_root(first), leaf_root(second)) {
        true => Ok(claim),
        false => Err("its leaves are not those that it names".to_string()),
    }
}

/// What is known before a step.
struct Walk<'a, 'h> {
    bundle: &'a Bundle,
    history: &'h History,
    batches: BatchPlan,
    state: Vec<StateEntry>,
    previous: Digest,
    /// The entries of all attempts, by number.
    attempts: Vec<Digest>,
}

impl<'a> Walk<'a, '_> {
    fn step(&mut self, step: u32, commit: &Commit) -> Result<StepLeaves<'a>, VerifyError> {
        let bundle = self.bundle;
        let record = &bundle.records[step as usize];
        if record.digest() != commit.record {
            let reason = format!("its digest is not the one in ledger entry {}", commit.entry);
            return Err(of_record(step, reason));
        }
        let submitted = &bundle.claims[step as usize];
        let opened = self.open_claims(step, commit, submitted)?;
        let (microbatches, targets) = self.microbatches(step);
        self.check_scalars(step, submitted, targets)?;
        let plan = self.history.plan(commit);
        let rules = StepRules {
            spec: &bundle.spec,
            job: self.history.job,
            plan,
            plan_digest: plan.digest(),
            attempt: commit.attempt,
            step,
            before: &self.state,
            microbatches: &microbatches,
        };
        let claimed: Vec<Claimed> = opened
            .iter()
            .map(|opened| Claimed {
                worker: opened.worker,
                claim: &opened.claim,
            })
            .collect();
        check_rules(&rules, submitted, &claimed, &self.attempts)?;
        let claims: Vec<&Claim> = claimed.iter().map(|claimed| claimed.claim).collect();
        let after = rules::merged_state(&bundle.spec, &claims)
            .ok_or_else(|| of_step(step, "a trained tensor is in no claim"))?;
        let derived = rules::step_record(&rules, self.previous, &submitted.scalars, &after)
            .ok_or_else(|| of_step(step, "its scalars lack losses or norms"))?;
        check_record(step, record, &derived)?;
        self.previous = record.digest();
        self.state = after;
        Ok(opened
            .iter()
            .map(|opened| (opened.worker, opened.leaves))
            .collect())
    }

    /// The claims, checked to be those that the ledger names, with the leaves that they name.
    fn open_claims(
        &self,
        step: u32,
        commit: &Commit,
        submitted: &'a StepClaims,
    ) -> Result<Vec<OpenedClaim<'a>>, VerifyError> {
        if submitted.step != step || submitted.scalars.step != step {
            return Err(of_step(step, "it is numbered as another step"));
        }
        if submitted.claims.len() != commit.claims.len() {
            let (found, due) = (submitted.claims.len(), commit.claims.len());
            return Err(of_step(
                step,
                format!("{found} claims, and {due} were committed"),
            ));
        }
        let workers = self.history.plan(commit).workers();
        let named = submitted.claims.iter().zip(&commit.claims).zip(workers);
        named
            .map(|((submitted, digest), (_, worker))| {
                let refuse = |reason: String| of_claim(step, worker, reason);
                if claim_digest(&submitted.claim) != *digest {
                    let entry = commit.entry;
                    return Err(refuse(format!("it is not the one in ledger entry {entry}")));
                }
                let claim = open_claim(submitted).map_err(refuse)?;
                Ok(OpenedClaim {
                    worker,
                    claim,
                    leaves: &submitted.leaves,
                })
            })
            .collect()
    }

    /// The digests of the microbatches of a step, and how many tokens its loss counts.
    fn microbatches(&mut self, step: u32) -> (Vec<Digest>, u64) {
        let data = &self.bundle.data;
        let mut targets = 0_u64;
        let digests = (0..self.bundle.spec.microbatches_of(step)).map(|microbatch| {
            let sequences = self.batches.sequences(step, microbatch);
            let of = |&index: &u64| u64::from(data.sequences[index as usize].targets);
            targets += sequences.iter().map(of).sum::<u64>();
            microbatch_digest(data, &sequences)
        });
        let digests = digests.collect();
        (digests, targets)
    }

    fn check_scalars(
        &self,
        step: u32,
        submitted: &StepClaims,
        targets: u64,
    ) -> Result<(), VerifyError> {
        let spec: &JobSpec = &self.bundle.spec;
        let scalars = &submitted.scalars;
        let refuse = |reason: String| {
            let statement = format!("scalars of step {step}");
            Err(VerifyError::new(CLAIMS, statement, reason))
        };
        // The updates name the digest of the scalars. Where only some do, the rules below tell who
        // is wrong.
        let digest = scalars.digest();
        let names = |claim: &WorkerClaim| {
            let last = claim.leaves.last();
            let update = last.and_then(|leaf| leaf.input(PortKind::Scalars));
            update.is_some_and(|input| input.port.digest == digest)
        };
        // Without an update, their losses are those in the leaves, and there are no norms.
        if !spec.is_evaluation(step) && !submitted.claims.iter().any(names) {
            return refuse("they are not those that the updates name".to_string());
        }
        let claims = submitted.claims.iter();
        let first = claims.map(|claim| first_half_digest(&claim.first_half));
        let first: Vec<Digest> = first.collect();
        rules::check_scalars(spec, scalars, &first, targets).or_else(refuse)
    }
}

/// Checks the claims of a step by the rules: each alone, then against each other.
fn check_rules<'s>(
    rules: &StepRules,
    submitted: &'s StepClaims,
    claimed: &[Claimed],
    known: &[Digest],
) -> Result<(), VerifyError> {
    let step = rules.step;
    let breached = |breach: rules::Breach| {
        let reason = format!("{}: {}", breach.offence.as_str(), breach.evidence);
        of_claim(step, breach.culprit, reason)
    };
    let scalars = &submitted.scalars;
    for ((slot, worker), submitted) in rules.plan.workers().zip(&submitted.claims) {
        let values = rules::values_of(rules.spec, rules.plan, slot, scalars);
        let WorkerClaim {
            first_half,
            claim,
            leaves,
        } = submitted;
        let (leaves, update) = split_leaves(leaves);
        if rules::names_other_history(rules, known, first_half) {
            let reason = format!(
                "it does not name attempt {} as this ledger has it: its worker was shown another \
                 history",
                rules.attempt.number
            );
            return Err(of_claim(step, worker, reason));
        }
        rules::check_first_half(rules, worker, first_half, leaves, &values).map_err(breached)?;
        let first = SignedFirst {
            signed: first_half,
            leaves,
        };
        rules::check_claim(rules, worker, first, scalars, claim, update).map_err(breached)?;
    }
    let leaves = |(claimed, submitted): (&Claimed, &'s WorkerClaim)| ClaimedLeaves {
        worker: claimed.worker,
        signed: &submitted.first_half,
        leaves: split_leaves(&submitted.leaves).0,
    };
    let all = claimed.iter().zip(&submitted.claims).map(leaves);
    rules::check_links(rules, &all.collect::<Vec<_>>()).map_err(breached)?;
    rules::check_agreement(rules.spec, claimed).map_err(|differ| of_step(step, differ))
}

fn check_record(step: u32, found: &StepRecord, due: &StepRecord) -> Result<(), VerifyError> {
    let fields = [
        ("job", found.job == due.job),
        ("previous record", found.previous == due.previous),
        ("step", found.step == due.step),
        ("batch root", found.batch_root == due.batch_root),
        ("loss", found.loss == due.loss),
        ("gradient norm", found.grad_norm == due.grad_norm),
        ("learning rate", found.learning_rate == due.learning_rate),
        ("state root", found.state_root == due.state_root),
        ("optimizer root", found.optimizer_root == due.optimizer_root),
    ];
    match fields.iter().find(|(_, equal)| !equal) {
        Some((name, _)) => {
            let reason = format!("its {name} is not what spec, data and claims give");
            Err(of_record(step, reason))
        }
        None => Ok(()),
    }
}

fn of_record(step: u32, reason: String) -> VerifyError {
    VerifyError::new(RECORDS, format!("record of step {step}"), reason)
}

fn of_step(step: u32, reason: impl ToString) -> VerifyError {
    VerifyError::new(CLAIMS, format!("claims of step {step}"), reason)
}

fn of_claim(step: u32, worker: WorkerId, reason: String) -> VerifyError {
    let statement = format!("claim of {} in step {step}", worker.short());
    VerifyError::new(CLAIMS, statement, reason).of(worker)
}
