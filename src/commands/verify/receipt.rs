//! Verifies the receipt of an answer: the answer is computed again on this machine, in one pass.

use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, bail};
use concord_gateway::receipt_file;
use concord_models::weights::ModelFolder;
use concord_proto::serving::{AdapterManifest, AnswerVerdict, Receipt, StageClaim};
use concord_proto::{Digest, PublicKey, Signed};
use concord_runtime::serving::judge::{AnswerCase, JudgedAdapter, judge};
use concord_text::TextTokenizer;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

use super::VerifyArgs;
use super::verdict::Refuted;
use crate::support::adapter_blobs::adapter_manifest;
use crate::support::blobs::BlobSet;
use crate::support::layers::ends;
use crate::support::load_in;
use crate::support::output::{Output, in_words};

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
fn receipts(text: &str) -> anyhow::Result<Vec<Signed>> {
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

fn one(args: &VerifyArgs, signed: &Signed, output: &Output) -> anyhow::Result<()> {
    let receipt: Receipt = signed.open()?;
    let Some(model) = &args.model else {
        bail!("give the model that answered: --model DIR");
    };
    let path = crate::support::loaded_model::resolve(&model.to_string_lossy())?;
    let folder = load_in::open(&path, args.load_in.format())?;
    check_root(
        "model",
        BlobSet::default().model(&folder)?,
        receipt.deployment.model,
    )?;
    let tokenizer = tokenizer(&folder, receipt.deployment.tokenizer)?;
    let adapter = adapter(args, &receipt, &folder)?;
    let device = args.device.device(None)?;
    let case = AnswerCase {
        receipt: signed,
        coordinator: args.coordinator()?,
        config: Arc::new(folder.config().clone()),
        tensors: &folder,
        tokenizer: Some(&tokenizer),
        adapter: adapter.as_ref(),
        device: &device,
    };
    let bar = match output.is_json() {
        true => ProgressBar::hidden(),
        false => ProgressBar::new(0),
    };
    bar.set_style(ProgressStyle::with_template(
        "{bar:30} {pos}/{len} layers and tokens",
    )?);
    let start = Instant::now();
    let verdict = judge(&case, &mut |progress| {
        bar.set_length(u64::from(progress.layers_total + progress.drawn_total));
        bar.set_position(u64::from(progress.layers + progress.drawn));
    })?;
    bar.finish_and_clear();
    told(
        &receipt,
        signed.signer,
        &verdict,
        start.elapsed().as_secs_f64(),
        output,
    )
}

/// Refuses files that are not those of the receipt.
fn check_root(what: &str, found: Digest, named: Digest) -> anyhow::Result<()> {
    if found != named {
        bail!(
            "the {what} is another one: the receipt names {}, this one is {}",
            named.short(),
            found.short()
        );
    }
    Ok(())
}

fn tokenizer(folder: &ModelFolder, named: Digest) -> anyhow::Result<TextTokenizer> {
    let bytes = folder.tokenizer_json()?;
    check_root("tokenizer", BlobSet::default().bytes(bytes), named)?;
    Ok(folder.tokenizer()?)
}

fn adapter(
    args: &VerifyArgs,
    receipt: &Receipt,
    folder: &ModelFolder,
) -> anyhow::Result<Option<JudgedAdapter>> {
    let (named, given) = (receipt.spec.adapter, &args.adapter);
    let (Some(named), Some(given)) = (named, given) else {
        return match (named, given) {
            (None, _) => Ok(None),
            _ => bail!("an adapter answered: give it with --adapter DIR"),
        };
    };
    let mut blobs = BlobSet::default();
    let (manifest, tensors): (AdapterManifest, _) =
        adapter_manifest(given, folder.config(), &mut blobs)?;
    check_root("adapter", blobs.value(&manifest), named)?;
    Ok(Some(JudgedAdapter::new(&manifest, tensors)?))
}

/// Prints a verdict; one that is not good is an error.
fn told(
    receipt: &Receipt,
    coordinator: PublicKey,
    verdict: &AnswerVerdict,
    seconds: f64,
    output: &Output,
) -> anyhow::Result<()> {
    let Some((culprit, reason)) = refutation(verdict, coordinator) else {
        proven(receipt, coordinator, seconds, output);
        return Ok(());
    };
    let object = json!({
        "event": "refuted", "receipt": receipt.id, "reason": reason,
        "party": culprit.map(|party| party.to_string()),
        "inconclusive": matches!(verdict, AnswerVerdict::Inconclusive { .. }),
    });
    output.result("", &object);
    match verdict {
        AnswerVerdict::Inconclusive { .. } => bail!("{reason}"),
        _ => Err(Refuted(reason).into()),
    }
}

fn proven(receipt: &Receipt, coordinator: PublicKey, seconds: f64, output: &Output) {
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
    let stage = |(worker, claim): &(PublicKey, StageClaim)| {
        let layers = ends(claim.layers);
        json!({ "worker": worker.to_string(), "layers": layers })
    };
    let object = json!({
        "event": "verified", "receipt": receipt.id, "seconds": seconds,
        "coordinator": coordinator.to_string(), "answer_tokens": receipt.answer.len(),
        "key_values_bits": precision.key_values,
        "stages": stages.iter().map(stage).collect::<Vec<_>>(),
    });
    output.result(&lines.join("\n"), &object);
}

/// The party at fault, if it is one, and what does not hold; `None` where all holds.
fn refutation(
    verdict: &AnswerVerdict,
    coordinator: PublicKey,
) -> Option<(Option<PublicKey>, String)> {
    Some(match verdict {
        AnswerVerdict::Agrees => return None,
        AnswerVerdict::WrongStage {
            worker,
            layers,
            expected,
            claimed,
        } => {
            let (claimed, expected) = (claimed.short(), expected.short());
            let reason = format!(
                "{worker} claims {claimed} as the output of layers {layers}, and it is {expected}"
            );
            (Some(*worker), reason)
        }
        AnswerVerdict::Gap { sender, receiver } => {
            let reason = format!(
                "{sender} and {receiver} claim different things about what passed between them"
            );
            (None, reason)
        }
        AnswerVerdict::WrongDraw {
            worker,
            index,
            expected,
            found,
        } => {
            let reason = format!(
                "{worker} gave out {found} as token {index} of the answer, and it is {expected}"
            );
            (Some(*worker), reason)
        }
        AnswerVerdict::Altered { what } => {
            let reason = format!("the coordinator {coordinator} signed what does not hold: {what}");
            (Some(coordinator), reason)
        }
        AnswerVerdict::Inconclusive { why } => (None, format!("it cannot be judged: {why}")),
    })
}
