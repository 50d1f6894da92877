//! The audits: derives again which leaves were drawn, and checks that each was re-run.

use std::collections::{BTreeMap, BTreeSet};

use concord_proto::ledger::Finding;
use concord_proto::{Digest, JobSpec, Leaf, WorkerId, draw};

use super::VerifyError;
use super::chain::StepLeaves;
use super::convictions::ShownConvictions;
use super::files::LEDGER;
use super::history::{GivenVerdict, History};
use crate::training::leaf_words;

/// What became of the drawn leaves.
#[derive(Debug, Default)]
pub(super) struct AuditCounts {
    pub(super) drawn: u64,
    pub(super) agreed: u64,
    /// Those that a checker agreed to whose word counts for the reader.
    pub(super) counted: u64,
    pub(super) inconclusive: u64,
    /// The same of leaves that were drawn by chance alone.
    pub(super) by_chance: ChanceCounts,
    /// Evaluations that decide about the result.
    pub(super) deciding: u32,
    /// Those of them of which a leaf was not re-run.
    pub(super) deciding_unseen: u32,
}

/// What became of the leaves that were drawn by chance.
#[derive(Debug, Default)]
pub(super) struct ChanceCounts {
    pub(super) drawn: u64,
    pub(super) counted: u64,
    /// Steps that show nothing of a lie in each step: a leaf was drawn that nobody re-ran whose
    /// word counts, or a worker had no leaf, as an evaluation has no microbatch for every replica.
    pub(super) blind_steps: u32,
}

/// Verdicts by step, epoch, worker and leaf.
type VerdictsByLeaf<'a> = BTreeMap<(u32, u32, WorkerId, Digest), Vec<&'a GivenVerdict>>;

/// Checks that all drawn leaves were re-run or are inconclusive, that no dispute is open, and that
/// no claim of a convicted worker counts. Where checkers are `pinned`, the word of no other counts.
pub(super) fn check(
    spec: &JobSpec,
    history: &History,
    shown: &ShownConvictions,
    steps: &[StepLeaves],
    pinned: &BTreeSet<WorkerId>,
) -> Result<AuditCounts, VerifyError> {
    // What a convicted checker found right does not count, whenever it said so. What it found wrong
    // counts until a conviction decides about that very leaf: else one line would take back a
    // dissent. That of a checker whom the reader believes counts in any case, because a conviction
    // rests on a re-run that nobody does here.
    let sound = |given: &&GivenVerdict| match given.verdict.finding {
        Finding::Agrees => !history.convicted.contains(&given.checker),
        Finding::Differs { .. } | Finding::Inconclusive { .. } => {
            pinned.contains(&given.checker) || !shown.refutes(given)
        }
    };
    let mut by_leaf = VerdictsByLeaf::new();
    for given in history.verdicts.iter().filter(sound) {
        let verdict = &given.verdict;
        let key = (verdict.step, verdict.epoch, verdict.worker, verdict.leaf);
        by_leaf.entry(key).or_default().push(given);
    }
    let mut audits = AuditCounts::default();
    for (step, leaves) in (0_u32..).zip(steps) {
        let decides = spec.decides(step);
        let found = check_step(history, (&by_leaf, pinned), (step, decides), leaves)?;
        audits.add(&found, decides);
    }
    check_convicts(history, shown, steps)?;
    Ok(audits)
}

/// What became of the drawn leaves of one step.
#[derive(Debug, Default)]
struct StepAudits {
    leaves: u64,
    drawn: u64,
    agreed: u64,
    counted: u64,
    inconclusive: u64,
    /// Whether a worker has no leaf.
    has_idle: bool,
}

impl AuditCounts {
    fn add(&mut self, step: &StepAudits, decides: bool) {
        self.drawn += step.drawn;
        self.agreed += step.agreed;
        self.counted += step.counted;
        self.inconclusive += step.inconclusive;
        if decides {
            self.deciding += 1;
            self.deciding_unseen += u32::from(step.counted < step.leaves);
        } else {
            self.by_chance.drawn += step.drawn;
            self.by_chance.counted += step.counted;
            let is_blind = step.counted < step.drawn || step.has_idle;
            self.by_chance.blind_steps += u32::from(is_blind);
        }
    }
}

fn check_step(
    history: &History,
    (by_leaf, pinned): (&VerdictsByLeaf, &BTreeSet<WorkerId>),
    (step, decides): (u32, bool),
    leaves: &StepLeaves,
) -> Result<StepAudits, VerifyError> {
    let commit = &history.commits[step as usize];
    let epoch = history.plan(commit).epoch;
    let seed = draw::seed(&commit.nonce, &commit.claims);
    let mut audits = StepAudits::default();
    for ((worker, leaves), rate) in leaves.iter().zip(&commit.rates) {
        let digests: Vec<Digest> = leaves.iter().map(Leaf::digest).collect();
        let drawn = draw::drawn(&seed, rate, leaves.len() as u32, decides);
        let drawn: BTreeSet<u32> = drawn.into_iter().collect();
        audits.leaves += leaves.len() as u64;
        audits.has_idle |= leaves.is_empty();
        for (index, (leaf, digest)) in (0_u32..).zip(leaves.iter().zip(digests)) {
            let verdicts = by_leaf.get(&(step, epoch, *worker, digest));
            let verdicts = verdicts.map_or(&[][..], Vec::as_slice);
            if let Some(open) = verdicts.iter().find(|v| differs(v)) {
                return Err(dispute(open, leaf));
            }
            if !drawn.contains(&index) {
                continue;
            }
            audits.drawn += 1;
            let agrees = |v: &&&GivenVerdict| v.verdict.finding == Finding::Agrees;
            let counts = |v: &&GivenVerdict| pinned.is_empty() || pinned.contains(&v.checker);
            let mut agreeing = verdicts.iter().filter(agrees).peekable();
            if agreeing.peek().is_some() {
                audits.agreed += 1;
                audits.counted += u64::from(agreeing.any(counts));
            } else if history.inconclusive.contains(&digest) {
                audits.inconclusive += 1;
            } else {
                let words = leaf_words(leaf);
                let statement =
                    format!("audit of the {words} of {} in step {step}", worker.short());
                let reason = "it was drawn, and no checker that counts has agreed";
                return Err(VerifyError::new(LEDGER, statement, reason).of(*worker));
            }
        }
    }
    Ok(audits)
}

fn differs(given: &GivenVerdict) -> bool {
    matches!(given.verdict.finding, Finding::Differs { .. })
}

fn dispute(given: &GivenVerdict, leaf: &Leaf) -> VerifyError {
    let entry = given.entry;
    let statement = format!("entry {entry} (verdict of {})", given.checker.short());
    let (words, step) = (leaf_words(leaf), given.verdict.step);
    let worker = given.verdict.worker;
    let reason = format!(
        "it found another result than {} in the {words} of step {step}, and the step was not \
         voided",
        worker.short()
    );
    VerifyError::new(LEDGER, statement, reason).of(worker)
}

/// A worker of which a leaf of some step is wrong has no claim from that step on.
fn check_convicts(
    history: &History,
    shown: &ShownConvictions,
    steps: &[StepLeaves],
) -> Result<(), VerifyError> {
    for (&culprit, &offence) in &shown.wrong_from {
        let later = (0_u32..).zip(steps).skip(offence as usize);
        for (step, leaves) in later {
            if leaves.iter().any(|(worker, _)| *worker == culprit) {
                let entry = history.commits[step as usize].entry;
                let statement = format!("entry {entry} (step {step} committed)");
                let reason = format!("it rests on a worker found wrong in step {offence}");
                return Err(VerifyError::new(LEDGER, statement, reason).of(culprit));
            }
        }
    }
    Ok(())
}
