//! Whether a conviction shows what its party is convicted of.

use concord_proto::AttemptId;
use concord_proto::ledger::{Finding, Offence, Verdict};
use concord_proto::limits::CONVICTION_BYTES_MAX;
use concord_proto::manifest::{DataManifest, StateEntry};
use concord_proto::{
    BatchPlan, Claim, ClaimedLeaf, Conviction, Digest, FirstHalf, JobId, JobSpec, Leaf, LeafPhase,
    Origin, Plan, Port, PortKind, Signed, SignedError, SignedHalf, WorkerId, canonical, leaf_root,
    merkle,
};

use super::claim::{check_signed_claim, check_signed_first};
use super::{SignedFirst, StepRules};

/// What a conviction is checked against.
#[derive(Clone, Copy, Debug)]
pub struct ConvictionRules<'a> {
    /// The job spec.
    pub spec: &'a JobSpec,
    /// Its digest.
    pub job: JobId,
    /// The data that the spec names.
    pub data: &'a DataManifest,
    /// The plans that the job was done under.
    pub plans: &'a [Plan],
    /// The attempts of the ledger that a broken rule may be of.
    pub attempts: &'a [AttemptId],
}

/// A verdict that a conviction decides to be false.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DecidedVerdict {
    pub checker: WorkerId,
    pub step: u32,
    pub epoch: u32,
    /// Whose leaf.
    pub worker: WorkerId,
    /// Digest of the leaf.
    pub leaf: Digest,
}

/// What a conviction shows that holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shown {
    /// That a leaf of the worker is wrong, if the re-run was done right: from this step on it is
    /// not trusted.
    WrongFrom(u32),
    /// That a verdict is false, if the re-run was done right.
    FalseVerdict(DecidedVerdict),
    /// All of it, if the state before the step was the one that the coordinator names.
    BrokenRule,
    /// All of it.
    Equivocation,
}

impl Shown {
    /// Whether it rests on a re-run.
    pub fn rests_on_rerun(&self) -> bool {
        match self {
            Self::WrongFrom(_) | Self::FalseVerdict(_) => true,
            Self::BrokenRule | Self::Equivocation => false,
        }
    }
}

/// Checks that the parts of a conviction fit each other and the job, that the culprit has signed
/// what it is blamed for, and, where no re-run is needed to see it, that this is an offence.
///
/// # Errors
/// A sentence that says what does not hold.
pub fn check_conviction(
    rules: &ConvictionRules,
    culprit: WorkerId,
    offence: Offence,
    conviction: &Conviction,
) -> Result<Shown, String> {
    let bytes = canonical::encode(conviction).len();
    if bytes > CONVICTION_BYTES_MAX {
        return refuse(&format!(
            "it has {bytes} bytes, over the bound of {CONVICTION_BYTES_MAX}"
        ));
    }
    match (conviction, offence) {
        (
            Conviction::WrongResult {
                claimed,
                inputs,
                computed,
            },
            Offence::WrongResult,
        ) => {
            let at = open_leaf(rules, culprit, claimed)?;
            check_rerun(&claimed.leaf, inputs, computed)?;
            if sorted_ports(computed) == sorted_ports(&claimed.leaf.outputs) {
                return refuse("its re-run gives what the worker claims");
            }
            Ok(Shown::WrongFrom(at.step))
        }
        (Conviction::FalseVerdict { .. }, Offence::FalseVerdict) => {
            check_false_verdict(rules, culprit, conviction)
        }
        (
            Conviction::BrokenRule {
                first,
                second,
                before,
            },
            Offence::WrongClaim | Offence::Forgery,
        ) => check_broken_rule(rules, (culprit, offence), (first, second.as_ref()), before),
        (
            Conviction::Equivocation {
                claimed,
                sent,
                signature,
            },
            Offence::Equivocation,
        ) => check_equivocation(rules, culprit, claimed, sent, signature),
        _ => refuse(&format!("it does not show a {}", offence.as_str())),
    }
}

fn refuse<T>(why: &str) -> Result<T, String> {
    Err(why.to_string())
}

/// Opens a statement of a party.
fn signed_by<T: canonical::Canonical>(signed: &Signed, by: WorkerId) -> Result<T, String> {
    if signed.signer != by {
        return Err(format!("{} has not signed it", by.short()));
    }
    signed
        .open()
        .map_err(|error: SignedError| error.to_string())
}

/// Which step a half of a claim is of.
struct HalfPlace {
    step: u32,
    epoch: u32,
    /// Of a first half.
    attempt: Option<AttemptId>,
}

/// Opens the half of the claim of `worker` that a leaf of this phase is in: its job, its place, and
/// the root over its leaves.
fn open_half(
    signed: &Signed,
    worker: WorkerId,
    phase: LeafPhase,
) -> Result<(JobId, HalfPlace, Digest), String> {
    let (job, step, epoch, root, attempt) = match phase {
        LeafPhase::Update => {
            let claim: Claim = signed_by(signed, worker)?;
            (claim.job, claim.step, claim.epoch, claim.leaf_root, None)
        }
        LeafPhase::Forward | LeafPhase::Backward | LeafPhase::Reduce | LeafPhase::Norm => {
            let half: FirstHalf = signed_by(signed, worker)?;
            let attempt = Some(half.attempt);
            (half.job, half.step, half.epoch, half.leaf_root, attempt)
        }
    };
    let place = HalfPlace {
        step,
        epoch,
        attempt,
    };
    Ok((job, place, root))
}

/// Where a leaf of `worker` in this job is.
fn open_leaf(
    rules: &ConvictionRules,
    worker: WorkerId,
    claimed: &ClaimedLeaf,
) -> Result<HalfPlace, String> {
    let leaf = &claimed.leaf;
    let (job, at, root) = open_half(&claimed.half, worker, leaf.phase)?;
    if job != rules.job {
        return refuse("its claim is of another job");
    }
    if at.step >= rules.spec.chain_steps() {
        return refuse("its claim is of a step that the job does not have");
    }
    if !merkle::proves(&root, &leaf.digest(), &claimed.path) {
        return refuse("its leaf is not in the claim");
    }
    Ok(at)
}

/// Checks that a re-run is one of this leaf: from its inputs, with its kinds of outputs.
fn check_rerun(leaf: &Leaf, inputs: &[Vec<Digest>], computed: &[Port]) -> Result<(), String> {
    if kinds(computed) != kinds(&leaf.outputs) {
        return refuse("its re-run has other outputs than the leaf");
    }
    let opens = leaf.inputs.len() == inputs.len()
        && leaf
            .inputs
            .iter()
            .zip(inputs)
            .all(|(input, blobs)| opens(input.port, blobs));
    if opens || leads_to_sum(leaf, inputs) {
        Ok(())
    } else {
        refuse("its inputs are not those of the leaf")
    }
}

/// Whether these can be what the microbatches of a sum are computed from again: that they lead to
/// its inputs, only computing shows.
fn leads_to_sum(leaf: &Leaf, inputs: &[Vec<Digest>]) -> bool {
    let nodes = leaf.outputs.iter().filter_map(|port| match port.kind {
        // Of a forged claim it may end before it starts.
        PortKind::Partial { node, .. } => Some(node.end.saturating_sub(node.start)),
        _ => None,
    });
    let count = nodes.max().map(|len| len as usize);
    let received = inputs.get(1..).unwrap_or_default();
    leaf.phase == LeafPhase::Reduce
        && count == Some(received.len())
        && received.iter().all(|blobs| blobs.len() <= 2)
}

/// Whether a port's digest is over the blobs at these addresses.
pub fn opens(port: Port, blobs: &[Digest]) -> bool {
    match port.kind {
        PortKind::State | PortKind::Moments | PortKind::Partial { .. } => {
            merkle::root(blobs) == port.digest
        }
        PortKind::Tokens | PortKind::Loss | PortKind::Norms => blobs.is_empty(),
        PortKind::Activation(_) | PortKind::Gradient(_) | PortKind::Scalars => {
            blobs == [port.digest]
        }
    }
}

/// Ports in one order: that of a leaf is free.
pub fn sorted_ports(ports: &[Port]) -> Vec<Port> {
    let mut ports = ports.to_vec();
    ports.sort_by_key(|port| (port.kind, port.digest));
    ports
}

fn kinds(ports: &[Port]) -> Vec<PortKind> {
    sorted_ports(ports).iter().map(|port| port.kind).collect()
}

fn check_false_verdict(
    rules: &ConvictionRules,
    culprit: WorkerId,
    conviction: &Conviction,
) -> Result<Shown, String> {
    let Conviction::FalseVerdict {
        verdict,
        claimed,
        inputs,
        computed,
        trace,
    } = conviction
    else {
        return refuse("it does not show a false verdict");
    };
    let verdict: Verdict = signed_by(verdict, culprit)?;
    let worker = claimed.half.signer;
    let at = open_leaf(rules, worker, claimed)?;
    let about = (verdict.job, verdict.step, verdict.epoch, verdict.worker);
    if about != (rules.job, at.step, at.epoch, worker) {
        return refuse("its verdict is on another step or worker than its leaf");
    }
    if verdict.leaf != claimed.leaf.digest() {
        return refuse("its verdict is on another leaf");
    }
    check_rerun(&claimed.leaf, inputs, computed)?;
    let is_false = match &verdict.finding {
        Finding::Agrees => {
            let is_wrong = sorted_ports(&claimed.leaf.outputs) != sorted_ports(computed);
            is_wrong || verdict.trace != *trace
        }
        Finding::Differs { computed: found } => sorted_ports(found) != sorted_ports(computed),
        Finding::Inconclusive { .. } => return refuse("its verdict says nothing"),
    };
    if !is_false {
        return refuse("its re-run gives what the verdict says");
    }
    Ok(Shown::FalseVerdict(DecidedVerdict {
        checker: culprit,
        step: at.step,
        epoch: at.epoch,
        worker,
        leaf: verdict.leaf,
    }))
}

fn check_broken_rule(
    rules: &ConvictionRules,
    (culprit, offence): (WorkerId, Offence),
    (first, second): (&SignedHalf, Option<&SignedHalf>),
    before: &[StateEntry],
) -> Result<Shown, String> {
    let half: FirstHalf = signed_by(&first.signed, culprit)?;
    if half.job != rules.job || half.step >= rules.spec.chain_steps() {
        return refuse("its claim is of another job");
    }
    // A claim breaks rules in the history that its worker was shown, and in no other.
    if !rules.attempts.contains(&half.attempt) {
        return refuse("its claim names another history than this ledger");
    }
    if half.leaf_root != leaf_root(&first.leaves) {
        return refuse("its leaves are not those of the claim");
    }
    let mut plans = rules.plans.iter().filter(|plan| plan.epoch == half.epoch);
    let plan = plans.find(|plan| plan.digest() == half.plan);
    let Some(plan) = plan.filter(|plan| plan.slot(&culprit).is_some()) else {
        return refuse("its claim is of no plan in which the worker has a place");
    };
    if before.len() != rules.spec.trainable.len() {
        return refuse("the state before the step has not one entry for each trained tensor");
    }
    let mut batches = BatchPlan::new(rules.spec, rules.data.sequences.len() as u64);
    let (microbatches, _) = batches.step_digests(rules.spec, rules.data, half.step);
    let step = StepRules {
        spec: rules.spec,
        job: rules.job,
        plan,
        plan_digest: half.plan,
        attempt: half.attempt,
        step: half.step,
        before,
        microbatches: &microbatches,
    };
    let first = SignedFirst {
        signed: &first.signed,
        leaves: &first.leaves,
    };
    let broken = match second {
        None => check_signed_first(&step, culprit, first).err(),
        Some(second) => {
            let claim: Claim = signed_by(&second.signed, culprit)?;
            if claim.leaf_root != leaf_root(&second.leaves) {
                return refuse("its leaves are not those of the claim");
            }
            let (signed, leaves) = (&second.signed, &second.leaves);
            check_signed_claim(&step, culprit, first, signed, leaves).err()
        }
    };
    // A half of another step is another offence, which nothing shows.
    match broken {
        Some(breach) if breach.offence == offence => Ok(Shown::BrokenRule),
        Some(_) | None => refuse("its claim breaks no such rule"),
    }
}

fn check_equivocation(
    rules: &ConvictionRules,
    culprit: WorkerId,
    claimed: &ClaimedLeaf,
    sent: &Port,
    signature: &[u8; 64],
) -> Result<Shown, String> {
    let at = open_leaf(rules, culprit, claimed)?;
    let leaf = &claimed.leaf;
    let Some(attempt) = at.attempt else {
        return refuse("nobody sends what an update gives");
    };
    let message = Origin::message(&rules.job, &attempt, leaf.microbatch, sent);
    if !culprit.verifies(&message, signature) {
        return refuse("the worker has not signed the tensor that it is said to have sent");
    }
    let gives = match sent.kind {
        PortKind::Activation(_) => LeafPhase::Forward,
        PortKind::Gradient(_) => LeafPhase::Backward,
        PortKind::Partial { .. } => LeafPhase::Reduce,
        PortKind::State
        | PortKind::Moments
        | PortKind::Tokens
        | PortKind::Loss
        | PortKind::Norms
        | PortKind::Scalars => return refuse("nobody sends such a tensor"),
    };
    match leaf.output(sent.kind) {
        Some(claimed) if leaf.phase == gives && claimed != sent.digest => Ok(Shown::Equivocation),
        _ => refuse("what it sent and what it claims do not exclude each other"),
    }
}
