//! What a proof shows and what it does not, in words and as JSON.

use std::collections::{BTreeMap, BTreeSet};

use concord_proto::{BatchPlan, Claim, Leaf, LeafPhase, WorkerId};
use concord_verify::training::bundle::{AuditorReport, Bundle, Report};
use serde_json::{Value, json};

use super::heads::HeadsReport;
use super::percent::percent_below;
use super::replay::ReplayReport;
use crate::support::output::{Output, counted};
use crate::support::result_weights::Base;

/// Whether an auditor shows enough for a proof to be called proven. Where all is settled, its
/// figure is the chance that lies in all steps were seen, and has to be as high as that of a
/// replay. Where attempts are unsettled, a liar may have chosen which, once it had seen what was
/// drawn: with lies in all steps, a figure of P or more then comes out in a share of 1 - P of all
/// such jobs.
fn shows_enough(own: &AuditorReport) -> bool {
    let least = match own.unsettled {
        0 => 0.1,
        _ => 0.95,
    };
    own.detection(own.steps) >= least
}

/// All that was checked of a proof.
pub struct Proof<'a> {
    pub report: &'a Report,
    /// Checkers that were named.
    pub pinned: &'a BTreeSet<WorkerId>,
    /// Whether the key of the ledger was named.
    pub is_coordinator_pinned: bool,
    pub weights: Option<&'a Weights>,
    pub replay: Option<&'a ReplayReport>,
    pub heads: Option<&'a HeadsReport>,
}

/// The result of comparing the weights.
pub struct Weights {
    /// How many tensors are as the last step left them.
    pub tensors: usize,
    /// The base model of an adapter.
    pub base: Option<Base>,
}

/// The work of one worker, by its claims.
#[derive(Default)]
struct WorkerShare {
    device: String,
    steps: u32,
    leaves: u64,
    tokens: u64,
}

/// Prints it.
///
/// # Errors
/// Where a claim cannot be opened, which a valid bundle has none of.
pub fn tell(proof: &Proof, bundle: &Bundle, output: &Output) -> anyhow::Result<()> {
    let shares = shares(bundle)?;
    output.result(&text(proof, &shares), &object(proof, &shares));
    Ok(())
}

impl Proof<'_> {
    /// Whether the reader has computed some of it again, or has named who did: checkers of nobody
    /// may be the workers.
    pub fn is_proven(&self) -> bool {
        match self.replay {
            Some(replay) => replay.missing.is_empty() && replay.weakness().is_none(),
            None => self.own_auditors().any(shows_enough),
        }
    }

    /// The checkers that the reader has named: what they draw nobody else knows, the coordinator
    /// included.
    pub fn own_auditors(&self) -> impl Iterator<Item = &AuditorReport> {
        let auditors = self.report.auditors.iter();
        auditors.filter(|own| self.pinned.contains(&own.auditor))
    }

    /// Evaluations that decide of which no checker that counts has found every leaf right.
    fn deciding_unseen(&self) -> u32 {
        let counts =
            |own: &&AuditorReport| self.pinned.is_empty() || self.pinned.contains(&own.auditor);
        let auditors = self.report.auditors.iter().filter(counts);
        let unseen = auditors.map(|own| own.deciding_unseen).min();
        unseen.unwrap_or(self.report.deciding)
    }

    /// What is shown, a sentence for each.
    fn shown(&self) -> Vec<String> {
        let report = self.report;
        let whose = match self.is_coordinator_pinned {
            true => "the coordinator that you named",
            false => "one coordinator, whoever that is",
        };
        let mut shown = vec![format!(
            "the claims of {} fit together from the first step to the last, each is signed by its \
             worker, and the ledger by {whose}",
            counted(
                u64::from(report.steps) + u64::from(report.evaluations),
                "step of the chain"
            )
            .replace("step of the chains", "steps of the chain")
        )];
        if let Some(weights) = self.weights {
            shown.push(format!(
                "{} of the result are those that were signed",
                counted(weights.tensors as u64, "tensor")
            ));
        }
        shown.extend(self.heads.map(HeadsReport::shown));
        shown.extend(self.own_auditors().map(of_auditor));
        shown.extend(self.replay.iter().flat_map(|replay| replay.shown()));
        shown
    }

    /// What is not shown, a sentence for each.
    fn not_shown(&self) -> Vec<String> {
        let mut not_shown = Vec::new();
        if self.weights.is_none() {
            let words = "that any weights are those of the result (--model RESULT compares them)";
            not_shown.push(words.to_string());
        }
        let replayed = self.replay.filter(|replay| replay.agreed() > 0);
        let is_whole = replayed.is_some_and(ReplayReport::is_all);
        if !is_whole {
            let of_what = match replayed {
                None => "that any of it was computed as it should be",
                Some(_) => "what lies in the other segments, beyond that figure",
            };
            not_shown.push(match self.pinned.is_empty() {
                true => format!(
                    "{of_what}: coordinator, workers and checkers may be one hand, and then audits \
                     show nothing"
                ),
                false => format!(
                    "{of_what}, if the checkers that you named looked away or gave their secrets \
                     to others; and pieces that they did not draw, beyond their figures"
                ),
            });
        }
        if !self.is_coordinator_pinned {
            not_shown.push("whose ledger it is (--coordinator KEY compares)".to_string());
        }
        not_shown
    }
}

fn shares(bundle: &Bundle) -> anyhow::Result<BTreeMap<WorkerId, WorkerShare>> {
    let mut shares: BTreeMap<WorkerId, WorkerShare> = BTreeMap::new();
    let claims = bundle.claims.iter();
    let claims = claims.flat_map(|step| step.claims.iter().map(move |claim| (step.step, claim)));
    let data = &bundle.data.sequences;
    let mut batches = BatchPlan::new(&bundle.spec, data.len() as u64);
    let mut tokens = |step, leaf: &Leaf| -> u64 {
        let is_of_microbatch = matches!(leaf.phase, LeafPhase::Forward | LeafPhase::Backward);
        let sequences = match is_of_microbatch {
            true => batches.sequences(step, leaf.microbatch),
            false => Vec::new(),
        };
        let of = |index: &u64| u64::from(data[*index as usize].tokens);
        sequences.iter().map(of).sum()
    };
    for (step, signed) in claims {
        let claim: Claim = signed.claim.open()?;
        let share = shares.entry(signed.claim.signer).or_default();
        share.device = claim.device;
        share.steps += u32::from(!bundle.spec.is_evaluation(step));
        share.leaves += signed.leaves.len() as u64;
        share.tokens += signed
            .leaves
            .iter()
            .map(|leaf| tokens(step, leaf))
            .sum::<u64>();
    }
    Ok(shares)
}

fn text(proof: &Proof, shares: &BTreeMap<WorkerId, WorkerShare>) -> String {
    let report = proof.report;
    let mut lines = vec![
        match proof.is_proven() {
            true => format!("proven      job {}", report.job),
            false => format!("not proven  job {}, which is complete", report.job),
        },
        format!("hash        {}", report.record),
        format!("coordinator {}", report.coordinator),
        format!("steps       {}", steps(report)),
    ];
    if let Some((step, loss)) = report.best {
        lines.push(format!(
            "evaluations {}, the lowest loss {loss:.4} after step {step}",
            report.evaluations
        ));
    }
    lines.extend(decisions(proof));
    for (worker, share) in shares {
        lines.push(format!(
            "worker      {}  {} steps, {} pieces of work  {}",
            worker.short(),
            share.steps,
            share.leaves,
            share.device
        ));
    }
    lines.extend(report.auditors.iter().map(|own| auditor_line(proof, own)));
    lines.push(format!(
        "audits      {} drawn of {} pieces, {} agreed",
        report.audits_drawn, report.leaves, report.audits_agreed
    ));
    match report.convicted.as_slice() {
        [] => lines.push("convicted   nobody".to_string()),
        all => lines.extend(all.iter().map(|id| format!("convicted   {id}"))),
    }
    lines.extend(not_computed(report));
    let weights = proof.weights.into_iter();
    lines.extend(weights.flat_map(|weights| of_weights(report, weights)));
    lines.extend(proof.replay.iter().flat_map(|replay| replay.lines()));
    let of = |word: &'static str| move |sentence: String| format!("{word:12}{sentence}");
    lines.extend(proof.shown().into_iter().map(of("shown")));
    lines.extend(proof.not_shown().into_iter().map(of("not shown")));
    lines.join("\n")
}

/// What an auditor has done.
fn auditor_line(proof: &Proof, own: &AuditorReport) -> String {
    let named = match proof.pinned.contains(&own.auditor) {
        true => ", that you named",
        false => "",
    };
    format!(
        "checker     {}{named}: drew {} pieces by its own secrets, {} agreed, {} unsettled",
        own.auditor.short(),
        own.drawn,
        own.agreed,
        counted(own.unsettled.into(), "attempt")
    )
}

/// What an auditor shows, if it is honest.
fn of_auditor(own: &AuditorReport) -> String {
    let certain = match own.nearly_certain() {
        Some(lies) => format!(
            ", and with 99 % from {} on",
            counted(lies.into(), "such step")
        ),
        None => String::new(),
    };
    format!(
        "if checker {} is honest, one false piece in each of {} steps was seen with {:.2} %, in \
         one step alone with {:.2} %{certain}",
        own.auditor.short(),
        own.steps,
        percent_below(own.detection(own.steps)),
        percent_below(own.detection(1))
    )
}

/// What convictions rest on that nobody has checked here.
fn not_computed(report: &Report) -> Vec<String> {
    let rests = |count: u32, what: &str| {
        (count > 0)
            .then(|| format!("convictions {count} rest on {what}, which was not checked here"))
    };
    let on_rerun = rests(report.convictions_on_rerun, "the result of a re-run");
    let on_state = rests(
        report.convictions_on_state,
        "the state before a step, as the coordinator names it",
    );
    [on_rerun, on_state].into_iter().flatten().collect()
}

/// What was compared of the result.
fn of_weights(report: &Report, weights: &Weights) -> Vec<String> {
    let mut lines = vec![format!(
        "weights     {} tensors, each as {} it",
        weights.tensors,
        match report.keeps_best {
            true => "the best evaluation found",
            false => "the last step left",
        }
    )];
    if weights.base.is_none() {
        lines.push(
            "config      not compared: a proof binds the base model as a whole; compare \
             config.json with that of the base model"
                .to_string(),
        );
    }
    lines.extend(weights.base.as_ref().map(|base| match base {
        Base::Same(name, None) => format!("base        {name}, as it was trained on"),
        Base::Same(name, Some(format)) => {
            let format = format.blocks().name();
            format!("base        {name}, quantised to {format} as it was trained on")
        }
        Base::NotHere(name) => format!("base        not compared: `{name}` is no folder here"),
    }));
    lines
}

/// Whether the evaluations that decide about the result were re-run, where there are any: by one
/// checker that the reader has named, or by any where none was.
fn decisions(proof: &Proof) -> Option<String> {
    let report = proof.report;
    let words = match proof.deciding_unseen() {
        0 => "decisions   rest on losses of which every piece was re-run".to_string(),
        unseen => format!(
            "decisions   not proven by audits: they rest on {} evaluations, and of {unseen} not \
             every piece was re-run",
            report.deciding
        ),
    };
    (report.deciding > 0).then_some(words)
}

/// How many steps a job has done, and whether its patience left some out.
fn steps(report: &Report) -> String {
    match report.steps_left {
        0 => format!("{}, all committed", report.steps),
        left => format!(
            "{}, and {left} left out by early_stopping_patience",
            report.steps
        ),
    }
}

fn auditor_object(own: &AuditorReport) -> Value {
    json!({
        "checker": own.auditor.to_string(), "rate": own.rate as f64 / 4_294_967_296.0,
        "drawn": own.drawn, "agreed": own.agreed, "steps": own.steps,
        "unsettled": own.unsettled, "deciding_unseen": own.deciding_unseen,
        "detection": own.detection(own.steps),
        "detection_of_one_step": own.detection(1), "nearly_certain_from": own.nearly_certain(),
    })
}

fn object(proof: &Proof, shares: &BTreeMap<WorkerId, WorkerShare>) -> Value {
    let (report, weights) = (proof.report, proof.weights);
    let names = |ids: &[WorkerId]| ids.iter().map(|id| id.to_string()).collect::<Vec<_>>();
    let worker = |(id, share): (&WorkerId, &WorkerShare)| {
        json!({
            "worker": id.to_string(), "device": share.device, "steps": share.steps,
            "leaves": share.leaves, "tokens": share.tokens,
        })
    };
    let pinned: Vec<WorkerId> = proof.pinned.iter().copied().collect();
    json!({
        "event": if proof.is_proven() { "verified" } else { "unproven" },
        "job": report.job.to_string(),
        "record_digest": report.record.to_string(), "steps": report.steps,
        "evaluations": report.evaluations, "best_step": report.best.map(|best| best.0),
        "best_eval_loss": report.best.map(|best| best.1),
        "deciding_evaluations": report.deciding,
        "deciding_evaluations_unseen": proof.deciding_unseen(),
        "coordinator": report.coordinator.to_string(),
        "coordinator_pinned": proof.is_coordinator_pinned,
        "workers": shares.iter().map(worker).collect::<Vec<_>>(),
        "checkers_pinned": names(&pinned),
        "leaves": report.leaves,
        "audits_drawn": report.audits_drawn, "audits_agreed": report.audits_agreed,
        "convicted": names(&report.convicted),
        "checkers": report.auditors.iter().map(auditor_object).collect::<Vec<_>>(),
        "convictions_on_rerun": report.convictions_on_rerun,
        "convictions_on_state": report.convictions_on_state,
        "tensors_checked": weights.map(|weights| weights.tensors),
        "base_checked": weights.map(|weights| matches!(weights.base, Some(Base::Same(..)))),
        "replay": proof.replay.map(ReplayReport::object),
        "heads": proof.heads.map(HeadsReport::object),
        "shown": proof.shown(), "not_shown": proof.not_shown(),
    })
}
