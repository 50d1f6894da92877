//! One step, in two phases: all gradients, then all updates; then it is final.

use std::collections::BTreeMap;

use concord_proto::client::JobState;
use concord_proto::draw::nonce_commitment;
use concord_proto::ledger::LedgerEvent;
use concord_proto::session::{Scalars, ToWorker};
use concord_proto::{Claim, Digest, Leaf, MicrobatchLoss, Signed, TensorNorm, WorkerId};
use concord_verify::training::{self as rules, Breach, Claimed, StepRules};

use super::contest::Contest;
use super::desk::Desk;
use super::event::Time;
use super::job::Job;

/// A step being done.
pub(super) struct Attempt {
    pub(super) step: u32,
    pub(super) nonce: [u8; 32],
    pub(super) started: Time,
    /// Since when the present phase waits.
    pub(super) since: Time,
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
    /// Whether a worker has not reported in the present phase.
    pub(super) fn awaits(&self, worker: &WorkerId) -> bool {
        match self.scalars {
            None => !self.computed.contains_key(worker),
            Some(_) => !self.claims.contains_key(worker),
        }
    }

    /// Who has not updated, where that is all that is waited for.
    pub(super) fn silent<'a>(&self, workers: &'a [WorkerId]) -> Option<&'a WorkerId> {
        self.scalars.as_ref()?;
        workers.iter().find(|id| !self.claims.contains_key(id))
    }
}

impl Job {
    /// Commits to a nonce and has all workers start the next step.
    pub(super) fn start_step(&mut self, desk: &mut Desk) {
        let Some(active) = &self.active else {
            return;
        };
        let (step, epoch, workers) = (self.committed, active.plan.epoch, active.workers());
        self.state = JobState::Running;
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
    pub(super) fn with_rules<R>(&self, then: impl FnOnce(&StepRules, &Attempt) -> R) -> Option<R> {
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
            scalars,
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
            let seat = rules.plan.slot(&worker)?;
            let Computed { losses, norms } = &computed;
            Some(rules::check_computed(rules, worker, seat, losses, norms))
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
        let checked =
            self.with_rules(|rules, _| rules::check_claim(rules, worker, &signed, &leaves));
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
