//! The proof of a job: all that can be checked without arithmetic, then, if asked for, the weights
//! and a replay.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context, bail};
use concord_proto::WorkerId;
use concord_verify::training::bundle::{self, Bundle, BundleError, VerifyError};
use serde_json::json;

use super::heads;
use super::percent::percent_below;
use super::replay;
use super::verdict::{Refuted, compared};
use super::words::{self, Proof, Weights};
use super::{VerifyArgs, key};
use crate::support::output::{Output, Unshown, counted};
use crate::support::result_weights;

/// Checks a proof.
///
/// # Errors
/// As [`super::run`].
pub fn run(args: &VerifyArgs, output: &Output) -> anyhow::Result<()> {
    check(args, output).inspect_err(|error| {
        if let Some(Refuted(reason)) = error.downcast_ref() {
            output.result("", &json!({ "event": "refuted", "reason": reason }));
        }
    })
}

fn check(args: &VerifyArgs, output: &Output) -> anyhow::Result<()> {
    check_path(&args.path)?;
    check_options(args)?;
    let expected = args.coordinator()?;
    let pinned: BTreeSet<WorkerId> = args
        .checker
        .iter()
        .map(|text| key(text))
        .collect::<anyhow::Result<_>>()?;
    let place = || format!("{}: not proven", args.path.display());
    let bundle = match Bundle::read_dir(&args.path) {
        Ok(bundle) => bundle,
        Err(BundleError::Content(error)) => return Err(refuted(error, output)).with_context(place),
        Err(error) => return Err(error.into()),
    };
    let report = match bundle::verify_by(&bundle, &pinned) {
        Ok(report) => report,
        Err(error) => return Err(refuted(error, output)).with_context(place),
    };
    if let Some(expected) = expected.filter(|key| *key != report.coordinator) {
        let why = format!(
            "it is signed by the coordinator {}, and --coordinator asks for {expected}",
            report.coordinator
        );
        return Err(Refuted(why)).with_context(place);
    }
    let is_known = |key: &&WorkerId| report.auditors.iter().any(|own| own.auditor == **key);
    if let Some(stranger) = pinned.iter().find(|key| !is_known(key)) {
        eprintln!("note: {stranger} has audited nothing of this job, or was convicted");
    }
    let weights = match args.checked_result(&bundle) {
        Some(folder) => Some(Weights {
            tensors: result_weights::check(&bundle, folder)
                .map_err(compared)
                .with_context(place)?,
            base: result_weights::check_base(&bundle, folder)
                .map_err(compared)
                .with_context(place)?,
        }),
        None => None,
    };
    let heads = heads::run(&args.heads, &bundle).with_context(place)?;
    let replay = replay::run(args, &bundle, output).with_context(place)?;
    let proof = Proof {
        report: &report,
        pinned: &pinned,
        is_coordinator_pinned: expected.is_some(),
        weights: weights.as_ref(),
        replay: replay.as_ref(),
        heads: heads.as_ref(),
    };
    words::tell(&proof, &bundle, output)?;
    if proof.is_proven() {
        return Ok(());
    }
    let (place, why) = (args.path.display(), why_not(&proof));
    Err(Unshown(format!("{place}: complete, not proven: {why}")).into())
}

/// Why a proof shows too little to be called proven, and what would help.
fn why_not(proof: &Proof) -> String {
    if let Some(replay) = proof.replay
        && let Some(first) = replay.missing.first()
    {
        return format!(
            "{} of {} segments that were drawn cannot be replayed, such as that of {}: {}",
            replay.missing.len(),
            replay.drawn,
            first.words,
            first.why
        );
    }
    if let Some(why) = proof.replay.and_then(replay::ReplayReport::weakness) {
        return why;
    }
    if let Some(own) = proof.own_auditors().next() {
        return format!(
            "checker {} has settled {} of {} steps, {} {} unsettled, and one false piece in each \
             step would have been seen with {:.2} %: that takes 10 %, and 95 % where anything is \
             unsettled; or compute a part again, with --replay 3 --job JOB_FILE",
            own.auditor.short(),
            own.steps.saturating_sub(own.unsettled),
            own.steps,
            counted(own.unsettled.into(), "attempt"),
            if own.unsettled == 1 { "is" } else { "are" },
            percent_below(own.detection(own.steps))
        );
    }
    let report = proof.report;
    let audits = match (report.audits_drawn, report.audits_agreed) {
        (0, _) if report.auditors.is_empty() => "nobody has audited it".to_string(),
        (0, _) => format!(
            "none of the {} pieces of work was drawn (a higher --audit-rate of `concord train` \
             draws more)",
            report.leaves
        ),
        (drawn, 0) => format!("none of the {drawn} drawn pieces of work was re-run"),
        _ if !proof.pinned.is_empty() => "no checker that you named has audited it".to_string(),
        _ => "audits count for those who trust a checker: give --checker KEY, if one is yours"
            .to_string(),
    };
    format!(
        "signatures, chain and coverage hold, but {audits}; or compute a part again, with \
         --replay 3 --job JOB_FILE (`concord train --audit 2%` has an auditor of your own draw)"
    )
}

/// Refuses a path that is not the folder of a proof, and suggests one that is near.
fn check_path(path: &Path) -> anyhow::Result<()> {
    if !path.exists() {
        bail!("{}: there is no such file or folder", path.display());
    }
    let inner = path.join("proof");
    if inner.is_dir() && !path.join("job.spec").exists() {
        bail!(
            "{} is not the folder of a proof: did you mean {}?",
            path.display(),
            inner.display()
        );
    }
    Ok(())
}

/// Refuses options that mean nothing for a proof.
fn check_options(args: &VerifyArgs) -> anyhow::Result<()> {
    if args.adapter.is_some() {
        bail!(
            "--adapter is for the receipt of an answer: the folder that a job wrote, adapter or \
             model, is given as --model"
        );
    }
    if args.load_in.format().is_some() {
        bail!(
            "--load-in-4bit and --load-in-8bit are for the receipt of an answer: whether a job \
             quantised its base model is found out"
        );
    }
    if args.device.is_given() && args.replay.is_none() {
        bail!(
            "--device is for --replay and for the receipt of an answer: to check what was signed \
             nothing is computed"
        );
    }
    Ok(())
}

/// Prints what does not hold as a JSON object, and returns it as an error.
fn refuted(error: VerifyError, output: &Output) -> anyhow::Error {
    let object = json!({
        "event": "refuted", "file": error.file, "statement": error.statement,
        "reason": error.reason, "party": error.party.map(|party| party.to_string()),
    });
    output.result("", &object);
    error.into()
}
