//! One step, in two phases: all gradients, then all updates; then it is final.

use std::collections::BTreeMap;

use concord_proto::bundle::StepClaims;
use concord_proto::client::JobEvent;
use concord_proto::draw::{AuditRate, nonce_commitment};
use concord_proto::ledger::{LedgerEvent, Offence, claim_digest};
use concord_proto::rules::{self, Breach, Claimed, StepRules};
use concord_proto::session::{Scalars, ToWorker};
use concord_proto::{
    Claim, Digest, Leaf, MicrobatchLoss, Signed, StepRecord, TensorNorm, WorkerId,
};

use super::contest::Contest;
use super::desk::Desk;
use super::event::{Change, Time};
use super::job::Job;

/// A step being done.
pub(super) struct Attempt {
    pub(super) step: u32,
    nonce: [u8; 32],
    started: Time,
    /// Since when the present phase waits.
    since: Time,
    /// Digests of the microbatches, and how many tokens the loss counts.
    microbatches: Vec<Digest>,
    targets: u64,
    computed: BTreeMap<WorkerId, Computed>,
    /// Present in the second phase.
    pub(super) scalars: Option<Scalars>,
    pub(super) claims: BTreeMap<WorkerId, Given>,
    /// Audits that must be through before the step can be final.
    pub(super) contest: Option<Contest>,
}

/// What a worker reports after the first phase.
pub(super) struct Computed {
    pub(super) losses: Vec<MicrobatchLoss>,
    pub(super) norms: Vec<TensorNorm>,
}

/// What a worker reports after the second phase.
pub(super) struct Given {
    pub(super) signed: Signed,
    pub(super) claim: Claim,
    pub(super) leaves: Vec<Leaf>,
}

impl Attempt {
    /// Who holds the others up for too long. While gradients are computed a worker may wait for
    /// its neighbours, so nobody is named before one is through.
    pub(super) fn stalled(&self, desk: &Desk, workers: &[WorkerId]) -> Vec<WorkerId> {
        let is_late = desk.now.since(self.since) > desk.config.stall_us;
        let is_through = |id: &WorkerId| match self.scalars {
            Some(_) => self.claims.contains_key(id),
            None => self.computed.is_empty() || self.computed.contains_key(id),
        };
        let late = workers.iter().filter(|id| is_late && !is_through(id));
        late.copied().collect()
    }
}

impl Job {
    /// Commits to a nonce and has all workers start the next step.
    pub(super) fn start_step(&mut self, desk: &mut Desk) {
        let Some(active) = &self.active else {
            return;
        };
        let (step, epoch, workers) = (self.committed, active.plan.epoch, active.workers());
        // An epoch is used for one plan only, and a plan does a step once.
        let nonce = desk.secret(&self.id, "nonce", [epoch.into(), step.into()]);
        let commitment = nonce_commitment(&nonce);
        let spec = &self.submission.spec;
        let (microbatches, targets) = self.batches.step_digests(spec, &self.data, step);
        self.attempt = Some(Attempt {
            step,
            nonce,
            started: desk.now,
            since: desk.now,
            microbatches,
            targets,
            computed: BTreeMap::new(),
            scalars: None,
            claims: BTreeMap::new(),
            contest: None,
        });
        let started = LedgerEvent::Started {
            step,
            epoch,
            nonce_commitment: commitment,
        };
        self.write(desk, started);
        for worker in &workers {
            let message = ToWorker::Step {
                job: self.id,
                epoch,
                step,
                nonce_commitment: commitment,
            };
            desk.send(worker, message);
        }
    }

    /// What the claims of the step being done are held against.
    fn with_rules<R>(&self, then: impl FnOnce(&StepRules, &Attempt) -> R) -> Option<R> {
        let (active, attempt) = (self.active.as_ref()?, self.attempt.as_ref()?);
        let before = self.states.get(&attempt.step)?;
        let scalars = attempt.scalars.as_ref();
        let rules = StepRules {
            spec: self.spec(),
            job: self.id,
            plan: &active.plan,
            plan_digest: active.digest,
            step: attempt.step,
            before,
            microbatches: &attempt.microbatches,
            scalars: scalars.map(Scalars::digest),
            losses: scalars.map_or(&[], |scalars| &scalars.losses),
        };
        Some(then(&rules, attempt))
    }

    /// A worker is through with the first phase.
    pub(super) fn on_computed(
        &mut self,
        desk: &mut Desk,
        worker: WorkerId,
        (epoch, step): (u32, u32),
        computed: Computed,
    ) {
        // Of an epoch before, or of a step that was given up: sent before the worker knew.
        if epoch != self.epoch || self.attempt.as_ref().is_none_or(|a| a.step != step) {
            return;
        }
        let held = self.with_rules(|rules, _| {
            let seat = rules.plan.seat(&worker)?;
            Some(check_computed(rules, worker, seat, &computed))
        });
        match held.flatten() {
            None => return,
            Some(Err(breach)) => return self.convict_breach(desk, breach),
            Some(Ok(())) => {}
        }
        let Some(attempt) = self.attempt.as_mut() else {
            return;
        };
        attempt.computed.entry(worker).or_insert(computed);
        self.send_scalars(desk);
    }

    /// Once all have reported: the scalars of the step to all, which starts the second phase.
    fn send_scalars(&mut self, desk: &mut Desk) {
        let (Some(active), Some(attempt)) = (&self.active, &mut self.attempt) else {
            return;
        };
        let (workers, epoch) = (active.workers(), active.plan.epoch);
        let all_in = workers.iter().all(|id| attempt.computed.contains_key(id));
        if !all_in || attempt.scalars.is_some() {
            return;
        }
        let mut losses: Vec<MicrobatchLoss> = Vec::new();
        let mut norms: BTreeMap<u32, (TensorNorm, WorkerId)> = BTreeMap::new();
        let mut differing = None;
        for worker in &workers {
            let computed = &attempt.computed[worker];
            losses.extend(&computed.losses);
            for norm in &computed.norms {
                let (first, by) = *norms.entry(norm.tensor).or_insert((*norm, *worker));
                if first != *norm {
                    differing.get_or_insert((by, *worker, norm.tensor));
                }
            }
        }
        if let Some((first, second, tensor)) = differing {
            let what = format!("the gradient norm of trained tensor {tensor}");
            return self.set_one_aside(desk, [first, second], &what);
        }
        losses.sort_by_key(|loss| loss.microbatch);
        let scalars = Scalars {
            step: attempt.step,
            losses,
            norms: norms.into_values().map(|(norm, _)| norm).collect(),
            targets: attempt.targets,
        };
        attempt.since = desk.now;
        attempt.scalars = Some(scalars.clone());
        for worker in &workers {
            let (job, scalars) = (self.id, scalars.clone());
            let message = ToWorker::Scalars {
                job,
                epoch,
                scalars,
            };
            desk.send(worker, message);
        }
    }

    /// A worker is through with the second phase.
    pub(super) fn on_updated(
        &mut self,
        desk: &mut Desk,
        worker: WorkerId,
        signed: Signed,
        leaves: Vec<Leaf>,
    ) {
        // Whoever is not asked for an update now sends one of before: it is late, not dishonest.
        // Whoever is asked has since reported for this very step, and what it sent before that has
        // long arrived: a claim of another step is then a replay.
        let is_asked = |attempt: &Attempt| {
            let asked = attempt.scalars.is_some() && attempt.computed.contains_key(&worker);
            asked && !attempt.claims.contains_key(&worker)
        };
        if !self.attempt.as_ref().is_some_and(is_asked) {
            return;
        }
        let checked = self.with_rules(|rules, attempt| {
            let claim = rules::check_claim(rules, worker, &signed, &leaves)?;
            check_means(worker, &claim, attempt.scalars.as_ref())?;
            Ok(claim)
        });
        let claim = match checked {
            None => return,
            Some(Err(breach)) => return self.convict_breach(desk, breach),
            Some(Ok(claim)) => claim,
        };
        let Some(attempt) = self.attempt.as_mut() else {
            return;
        };
        let given = Given {
            signed,
            claim,
            leaves,
        };
        attempt.claims.insert(worker, given);
        self.judge_claims(desk);
    }

    /// Once all claims are in: hold them against each other, then make the step final.
    fn judge_claims(&mut self, desk: &mut Desk) {
        let outcome = self.with_rules(|rules, attempt| {
            let workers: Vec<WorkerId> = rules.plan.workers().map(|(_, id)| id).collect();
            let claimed: Option<Vec<Claimed>> = workers
                .iter()
                .map(|id| {
                    let given = attempt.claims.get(id)?;
                    Some(Claimed {
                        worker: *id,
                        claim: &given.claim,
                        leaves: &given.leaves,
                    })
                })
                .collect();
            claimed.map(|claimed| judge(rules, &claimed))
        });
        match outcome.flatten() {
            None => {}
            Some(Outcome::Breach(breach)) => self.convict_breach(desk, breach),
            Some(Outcome::Differ(disagreement)) => self.contest_claims(desk, disagreement),
            Some(Outcome::Agree) => match self.next_record() {
                Some(record) => self.commit_or_contest(desk, record),
                None => self.fail(
                    desk,
                    "a trained tensor is in no stage of the plan".to_string(),
                ),
            },
        }
    }

    /// The record that the claims give.
    fn next_record(&self) -> Option<StepRecord> {
        let after = self.state_after()?;
        let record = self.with_rules(|rules, attempt| {
            let claim = &attempt.claims.values().next()?.claim;
            Some(rules::step_record(rules, self.head(), claim, &after))
        });
        record.flatten()
    }

    fn state_after(&self) -> Option<Vec<concord_proto::manifest::StateEntry>> {
        let attempt = self.attempt.as_ref()?;
        let claims: Vec<&Claim> = attempt.claims.values().map(|given| &given.claim).collect();
        rules::merged_state(self.spec(), &claims)
    }

    fn commit_or_contest(&mut self, desk: &mut Desk, record: StepRecord) {
        match self.records.get(&record.step) {
            Some(before) if *before != record => self.contest_record(desk),
            _ => self.commit(desk, record),
        }
    }

    /// Makes the step final although it came out differently before: all of it was re-run.
    pub(super) fn commit_contested(&mut self, desk: &mut Desk) {
        self.forget_records(desk);
        if let Some(record) = self.next_record() {
            self.commit(desk, record);
        }
    }

    fn commit(&mut self, desk: &mut Desk, record: StepRecord) {
        let Some(after) = self.state_after() else {
            return;
        };
        let (Some(active), Some(mut attempt)) = (&self.active, self.attempt.take()) else {
            return;
        };
        let (plan, workers) = (active.plan.clone(), active.workers());
        let Some(scalars) = attempt.scalars.take() else {
            return;
        };
        let mut kept = StepClaims {
            step: attempt.step,
            scalars,
            claims: Vec::new(),
        };
        for worker in &workers {
            let given = attempt.claims.remove(worker);
            let claim = given.map(|given| (given.signed, given.leaves));
            kept.claims.extend(claim);
        }
        let rates = self.audit_rates(desk, &workers);
        let digests: Vec<Digest> = kept.claims.iter().map(|c| claim_digest(&c.0)).collect();
        let committed = LedgerEvent::Committed {
            step: attempt.step,
            epoch: plan.epoch,
            record: record.digest(),
            claims: digests.clone(),
            nonce: attempt.nonce,
            rates: rates.clone(),
        };
        self.write(desk, committed);
        self.make_final(desk, &plan, &record, after);
        let seed = concord_proto::draw::seed(&attempt.nonce, &digests);
        self.draw_audits(desk, &seed, &rates, &kept);
        self.tell_commit(desk, &attempt, &workers, &record);
        let claims = kept;
        desk.out.keep(Change::Step { record, claims });
        if self.checkpoint_is_due() {
            self.flush_committed(desk);
        }
    }

    fn make_final(
        &mut self,
        desk: &mut Desk,
        plan: &concord_proto::Plan,
        record: &StepRecord,
        after: Vec<concord_proto::manifest::StateEntry>,
    ) {
        self.committed = record.step + 1;
        let (committed, oldest) = (self.committed, record.step);
        self.states.retain(|&step, _| step == oldest);
        self.states.insert(committed, after);
        self.records.insert(record.step, record.clone());
        for (seat, worker) in plan.workers() {
            self.holding
                .insert(worker, (committed, plan.stages[seat.stage]));
            self.first_part.entry(worker).or_insert(record.step);
            if let Some(member) = desk.pool.get_mut(&worker) {
                member.failures = 0;
            }
        }
    }

    fn tell_commit(
        &mut self,
        desk: &mut Desk,
        attempt: &Attempt,
        workers: &[WorkerId],
        record: &StepRecord,
    ) {
        let (job, epoch, step) = (self.id, self.epoch, record.step);
        let release_below = self.audits.oldest_step().unwrap_or(self.committed);
        for worker in workers {
            let message = ToWorker::Commit {
                job,
                epoch,
                step,
                record: record.digest(),
                release_below,
            };
            desk.send(worker, message);
        }
        let spec = self.spec();
        let tokens = spec.sequences_per_step() * u64::from(self.data.sequence_len);
        let event = JobEvent::Step {
            step,
            loss: record.loss,
            grad_norm: record.grad_norm,
            learning_rate: record.learning_rate,
            tokens,
            micros: desk.now.since(attempt.started),
            record: record.digest(),
        };
        self.publish(desk, event);
    }

    fn audit_rates(&self, desk: &Desk, workers: &[WorkerId]) -> Vec<AuditRate> {
        let options = &self.submission.options;
        let rate = |worker: &WorkerId| {
            let member = desk.pool.get(worker);
            member.map_or(options.audit_rate_new.min(1 << 32), |member| {
                member.audit_rate(options, desk.config.trust_after)
            })
        };
        let rates = workers.iter().map(|worker| AuditRate {
            worker: *worker,
            rate: rate(worker),
        });
        rates.collect()
    }
}

enum Outcome {
    Agree,
    Breach(Breach),
    Differ(rules::Disagreement),
}

fn judge(rules: &StepRules, claimed: &[Claimed]) -> Outcome {
    if let Err(breach) = rules::check_links(rules, claimed) {
        return Outcome::Breach(breach);
    }
    match rules::check_agreement(rules.spec, claimed) {
        Ok(()) => Outcome::Agree,
        Err(disagreement) => Outcome::Differ(disagreement),
    }
}

/// Loss and norm of the step follow from its scalars.
fn check_means(worker: WorkerId, claim: &Claim, scalars: Option<&Scalars>) -> Result<(), Breach> {
    let due = scalars.map(|scalars| (scalars.mean_loss(), scalars.grad_norm()));
    if due == Some((Some(claim.loss), Some(claim.grad_norm))) {
        return Ok(());
    }
    Err(Breach {
        culprit: worker,
        offence: Offence::WrongClaim,
        evidence: format!(
            "in step {}, its loss or gradient norm does not follow from the scalars",
            claim.step
        ),
    })
}

fn check_computed(
    rules: &StepRules,
    worker: WorkerId,
    seat: concord_proto::Seat,
    computed: &Computed,
) -> Result<(), Breach> {
    let run = &rules.plan.replicas[seat.replica];
    let is_last = seat.stage + 1 == rules.plan.stages.len();
    let (start, end) = if is_last {
        (run.start, run.end)
    } else {
        (0, 0)
    };
    if rules::losses_cover(&computed.losses, start, end) {
        return rules::check_norms(rules, worker, seat, &computed.norms);
    }
    Err(Breach {
        culprit: worker,
        offence: Offence::WrongClaim,
        evidence: format!(
            "in step {}, the losses are not those of its microbatches",
            rules.step
        ),
    })
}
