//! Verifies the receipt of an answer: the answer is computed again on this machine, in one pass.

use std::time::Instant;

use anyhow::{Context, bail};
use concord_gateway::receipt_file;
use concord_proto::PublicKey;
use concord_proto::merkle::MerklePath;
use concord_proto::serving::{AnswerVerdict, BatchedReceipt, Receipt, StageClaim};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

use super::VerifyArgs;
use super::verdict::Refuted;
use crate::support::layers::ends;
use crate::support::output::{Output, in_words};
use crate::support::receipt_judge::ReceiptJudge;
use crate::support::receipt_words::{self, refutation};

/// Judges a receipt.
///
/// # Errors
/// Naming what does not hold and who signed it; or what is missing to judge the receipt.
pub fn run(args: &VerifyArgs, output: &Output) -> anyhow::Result<()> {
    if args.replay.is_some() || !args.checker.is_empty() || !args.heads.is_empty() {
        bail!(
            "--replay, --checker and --heads are for the proof of a job, and this is a file: a \
             receipt"
        );
    }
    let path = &args.path;
    let text =
        std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let place = || format!("{}: not proven", path.display());
    let all = receipts(&text).map_err(|why| Refuted(in_words(&why)));
    for (number, signed) in all.with_context(place)?.iter().enumerate() {
        let one = one(args, signed, output);
        one.with_context(|| format!("{}, receipt {number}", place()))?;
    }
    Ok(())
}

/// The receipts in a file: one, or the list of a request's choices.
fn receipts(text: &str) -> anyhow::Result<Vec<BatchedReceipt>> {
    let value: Value = serde_json::from_str(text).context("not valid JSON")?;
    match value["data"].as_array() {
        None => Ok(vec![receipt_file::from_json(text)?]),
        Some(list) if list.is_empty() => bail!("it has no receipt"),
        Some(list) => list
            .iter()
            .map(|one| Ok(receipt_file::from_json(&one.to_string())?))
            .collect(),
    }
}

fn one(args: &VerifyArgs, signed: &BatchedReceipt, output: &Output) -> anyhow::Result<()> {
    let receipt = signed.open()?;
    let Some(model) = &args.model else {
        bail!("give the model that answered: --model DIR");
    };
    if receipt.spec.adapter.is_some() && args.adapter.is_none() {
        bail!("an adapter answered: give it with --adapter DIR");
    }
    let judge = ReceiptJudge::open(
        model,
        args.load_in.format(),
        args.adapter.as_deref(),
        args.device.device(None)?,
    )?;
    let bar = match output.is_json() {
        true => ProgressBar::hidden(),
        false => ProgressBar::new(0),
    };
    bar.set_style(ProgressStyle::with_template(
        "{bar:30} {pos}/{len} layers and tokens",
    )?);
    let start = Instant::now();
    let coordinator = args.coordinator()?;
    let verdict = judge.judge(signed, coordinator, &mut |progress| {
        bar.set_length(u64::from(progress.layers_total + progress.drawn_total));
        bar.set_position(u64::from(progress.layers + progress.drawn));
    })?;
    bar.finish_and_clear();
    let judged = JudgedReceipt {
        receipt: &receipt,
        signer: signed.signer(),
        path: &signed.path,
        is_coordinator_named: coordinator.is_some(),
        seconds: start.elapsed().as_secs_f64(),
    };
    told(&judged, &verdict, output)
}

/// A receipt, and how it was judged.
struct JudgedReceipt<'a> {
    receipt: &'a Receipt,
    signer: PublicKey,
    /// From it to what was signed.
    path: &'a MerklePath,
    is_coordinator_named: bool,
    seconds: f64,
}

/// Prints a verdict; one that is not good is an error.
fn told(
    judged: &JudgedReceipt<'_>,
    verdict: &AnswerVerdict,
    output: &Output,
) -> anyhow::Result<()> {
    let Some((culprit, reason)) = refutation(verdict, judged.signer) else {
        proven(judged, output);
        return Ok(());
    };
    let object = json!({
        "event": "refuted", "receipt": judged.receipt.id, "reason": reason,
        "party": culprit.map(|party| party.to_string()),
        "inconclusive": matches!(verdict, AnswerVerdict::Inconclusive { .. }),
    });
    output.result("", &object);
    match verdict {
        AnswerVerdict::Inconclusive { .. } => bail!("{reason}"),
        _ => Err(Refuted(reason).into()),
    }
}

fn proven(judged: &JudgedReceipt<'_>, output: &Output) {
    let JudgedReceipt {
        receipt,
        signer: coordinator,
        path,
        is_coordinator_named,
        seconds,
    } = judged;
    let claims = receipt.claims.iter();
    let stages: Vec<(PublicKey, StageClaim)> = claims
        .filter_map(|claim| Some((claim.signer, claim.open().ok()?)))
        .collect();
    let mut lines = vec![
        format!("proven      {} in {seconds:.2} s", receipt.id),
        format!("model       {} {}", receipt.model, receipt.deployment.model),
        format!(
            "answer      {} tokens after {} of the prompt, each drawn again",
            receipt.answer.len(),
            receipt.spec.prompt.len()
        ),
        format!("coordinator {coordinator}"),
    ];
    let precision = receipt.deployment.precision;
    if precision.key_values != precision.activations {
        let bits = precision.key_values;
        lines.insert(2, format!("precision   keys and values of {bits} bits"));
    }
    for (worker, StageClaim { layers, device, .. }) in &stages {
        let worker = worker.short();
        lines.push(format!("stage       {worker} layers {layers}  {device}"));
    }
    let given = &receipt.logprobs;
    let shown = receipt_words::shown(receipt, path);
    let not_shown = receipt_words::not_shown(receipt, *is_coordinator_named);
    lines.extend(shown.iter().map(|words| format!("shown       {words}")));
    lines.extend(not_shown.iter().map(|words| format!("not shown   {words}")));
    let stage = |(worker, claim): &(PublicKey, StageClaim)| {
        let layers = ends(claim.layers);
        json!({ "worker": worker.to_string(), "layers": layers })
    };
    let object = json!({
        "event": "verified", "receipt": receipt.id, "seconds": seconds,
        "coordinator": coordinator.to_string(), "answer_tokens": receipt.answer.len(),
        "key_values_bits": precision.key_values,
        "stages": stages.iter().map(stage).collect::<Vec<_>>(),
        "batch": { "index": path.index, "count": path.count },
        "finish": receipt_file::finish(receipt.finish),
        "logprobs": { "prompt": given.prompt.len(), "answer": given.answer.len() },
        "shown": shown, "not_shown": not_shown,
    });
    output.result(&lines.join("\n"), &object);
}
