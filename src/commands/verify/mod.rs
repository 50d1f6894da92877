//! `concord verify`: the proof of a job, or the receipt of an answer, checked with no coordinator
//! running.

mod receipt;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use concord_proto::{Claim, WorkerId};
use concord_verify::training::bundle::{self, Bundle, BundleError, Report, VerifyError};
use serde_json::{Value, json};

use crate::support::device::DeviceArgs;
use crate::support::load_in::LoadInArgs;
use crate::support::output::Output;
use crate::support::result_weights::{self, Base};

/// Options of `concord verify`.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  concord verify out/shakespeare/proof
  concord verify out/shakespeare/proof --model out/shakespeare   # the weights, too
  concord verify receipt.json --model path/to/model              # an answer of `concord serve`
  concord verify receipt.json --model path/to/model --adapter out/poet --device cuda:0

A proof shows who claims to have done the work, that the claims fit together from the first step
to the last, and which pieces of work that were drawn for an audit were re-run by somebody else.
Where none was re-run, nothing is proven, and the exit status is 1.
It does not show that the coordinator is one that you trust: --coordinator compares its key.")]
pub struct VerifyArgs {
    /// The folder of a proof, or the file of a receipt.
    #[arg(value_name = "BUNDLE_DIR_OR_RECEIPT")]
    path: PathBuf,
    /// A folder that the job wrote: check that its weights are those that the proof ends with. For
    /// a receipt, the model that answered.
    #[arg(long, value_name = "DIR")]
    model: Option<PathBuf>,
    #[command(flatten)]
    load_in: LoadInArgs,
    /// The adapter that answered, as a PEFT folder.
    #[arg(long, value_name = "DIR")]
    adapter: Option<PathBuf>,
    /// The key that must have signed the proof or the receipt; by default any key.
    #[arg(long, value_name = "KEY")]
    coordinator: Option<String>,
    /// Where a receipt's answer is computed again.
    #[command(flatten)]
    device: DeviceArgs,
}

/// The work of one worker, by its claims.
#[derive(Default)]
struct WorkerShare {
    device: String,
    steps: u32,
    leaves: u64,
    tokens: u64,
}

/// The result of comparing the weights.
struct Weights {
    /// How many tensors are as the last step left them.
    tensors: usize,
    /// The base model of an adapter.
    base: Option<Base>,
}

/// Checks a proof and, if they are given, the weights.
///
/// # Errors
/// Naming the file, the statement in it and, where one is at fault, the party.
pub fn run(args: &VerifyArgs, output: &Output) -> anyhow::Result<()> {
    if args.path.is_file() {
        return receipt::run(args, output);
    }
    check_path(&args.path)?;
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
    if args.device.is_given() {
        bail!("--device is for the receipt of an answer: to verify a proof nothing is computed");
    }
    let expected = receipt::key(args)?;
    let place = || format!("{}: not proven", args.path.display());
    let bundle = match Bundle::read_dir(&args.path) {
        Ok(bundle) => bundle,
        Err(BundleError::Content(error)) => return Err(refuted(error, output)).with_context(place),
        Err(error) => return Err(error.into()),
    };
    let report = match bundle::verify(&bundle) {
        Ok(report) => report,
        Err(error) => return Err(refuted(error, output)).with_context(place),
    };
    if let Some(expected) = expected.filter(|key| *key != report.coordinator) {
        bail!(
            "{}: it is signed by the coordinator {}, and --coordinator asks for {expected}",
            place(),
            report.coordinator
        );
    }
    let weights = match &args.model {
        Some(folder) => Some(Weights {
            tensors: result_weights::check(&bundle, folder)?,
            base: result_weights::check_base(&bundle, folder)?,
        }),
        None => None,
    };
    let shares = shares(&bundle)?;
    output.result(
        &text(&report, &shares, weights.as_ref()),
        &object(&report, &shares, weights.as_ref()),
    );
    if !report.is_unaudited() {
        return Ok(());
    }
    let why = match report.audits_drawn {
        0 => format!(
            "none of the {} pieces of work was drawn (a higher --audit-rate of `concord train` \
             draws more)",
            report.leaves
        ),
        drawn => format!("none of the {drawn} drawn pieces of work could be re-run"),
    };
    bail!(
        "{}: signatures, chain and coverage hold, but {why}: nobody but the workers has computed \
         anything",
        place()
    );
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

/// Prints what does not hold as a JSON object, and returns it as an error.
fn refuted(error: VerifyError, output: &Output) -> anyhow::Error {
    let object = json!({
        "event": "refuted", "file": error.file, "statement": error.statement,
        "reason": error.reason, "party": error.party.map(|party| party.to_string()),
    });
    output.result("", &object);
    error.into()
}

fn shares(bundle: &Bundle) -> anyhow::Result<BTreeMap<WorkerId, WorkerShare>> {
    let mut shares: BTreeMap<WorkerId, WorkerShare> = BTreeMap::new();
    let claims = bundle.claims.iter();
    let claims = claims.flat_map(|step| step.claims.iter().map(move |claim| (step.step, claim)));
    for (step, (signed, leaves)) in claims {
        let claim: Claim = signed.open()?;
        let share = shares.entry(signed.signer).or_default();
        share.device = claim.device;
        share.steps += u32::from(!bundle.spec.is_evaluation(step));
        share.leaves += leaves.len() as u64;
        share.tokens += leaves.iter().map(|leaf| leaf.tokens).sum::<u64>();
    }
    Ok(shares)
}

fn text(
    report: &Report,
    shares: &BTreeMap<WorkerId, WorkerShare>,
    weights: Option<&Weights>,
) -> String {
    let mut lines = vec![
        match report.is_unaudited() {
            false => format!("proven      job {}", report.job),
            true => format!("not proven  job {}", report.job),
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
    lines.extend(decisions(report));
    for (worker, share) in shares {
        lines.push(format!(
            "worker      {}  {} steps, {} pieces of work  {}",
            worker.short(),
            share.steps,
            share.leaves,
            share.device
        ));
    }
    for checker in &report.checkers {
        lines.push(format!("checker     {}", checker.short()));
    }
    lines.push(format!(
        "audits      {} of {} pieces drawn, {} agreed, {} could not be re-run",
        report.audits_drawn, report.leaves, report.audits_agreed, report.audits_inconclusive
    ));
    match report.convicted.as_slice() {
        [] => lines.push("convicted   nobody".to_string()),
        all => lines.extend(all.iter().map(|id| format!("convicted   {id}"))),
    }
    lines.extend(not_computed(report));
    lines.push(format!(
        "detection   {:.2} % for one false piece in each step (a piece is drawn with {:.2} %)",
        percent_below(report.detection),
        percent_below(report.audit_rate_min)
    ));
    lines.extend(
        weights
            .into_iter()
            .flat_map(|weights| of_weights(report, weights)),
    );
    lines.join("\n")
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

/// Whether the evaluations that decide about the result were re-run, where there are any.
fn decisions(report: &Report) -> Option<String> {
    let words = match report.deciding_unseen {
        0 => "decisions   rest on losses of which every piece was re-run".to_string(),
        unseen => format!(
            "decisions   not proven: they rest on {} evaluations, and of {unseen} not every piece \
             was re-run",
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

/// A percentage with two decimals, rounded down, so that 100 % is shown only for a share within
/// 1e-8 of certainty. That 1e-8 undoes rounding errors.
fn percent_below(share: f64) -> f64 {
    (share * 1e4 + 1e-4).floor() / 1e2
}

fn object(
    report: &Report,
    shares: &BTreeMap<WorkerId, WorkerShare>,
    weights: Option<&Weights>,
) -> Value {
    let names = |ids: &[WorkerId]| ids.iter().map(|id| id.to_string()).collect::<Vec<_>>();
    let worker = |(id, share): (&WorkerId, &WorkerShare)| {
        json!({
            "worker": id.to_string(), "device": share.device, "steps": share.steps,
            "leaves": share.leaves, "tokens": share.tokens,
        })
    };
    json!({
        "event": if report.is_unaudited() { "unjudged" } else { "verified" },
        "job": report.job.to_string(),
        "record_digest": report.record.to_string(), "steps": report.steps,
        "evaluations": report.evaluations, "best_step": report.best.map(|best| best.0),
        "best_eval_loss": report.best.map(|best| best.1),
        "deciding_evaluations": report.deciding,
        "deciding_evaluations_unseen": report.deciding_unseen,
        "coordinator": report.coordinator.to_string(),
        "workers": shares.iter().map(worker).collect::<Vec<_>>(),
        "checkers": names(&report.checkers), "leaves": report.leaves,
        "audits_drawn": report.audits_drawn, "audits_agreed": report.audits_agreed,
        "audits_inconclusive": report.audits_inconclusive,
        "convicted": names(&report.convicted),
        "convictions_on_rerun": report.convictions_on_rerun,
        "convictions_on_state": report.convictions_on_state,
        "audit_rate_min": report.audit_rate_min,
        "detection": report.detection,
        "tensors_checked": weights.map(|weights| weights.tensors),
        "base_checked": weights.map(|weights| matches!(weights.base, Some(Base::Same(..)))),
    })
}
