//! `concord simulate`: pools in one thread, from seeds, with faults and liars, and what must hold
//! in all of them.

mod collusion;
mod forgeries;
mod pools;
mod threads;

use std::ops::Range;

use anyhow::bail;
use concord_proto::auditor::RATE_MAX;
use serde_json::json;

use crate::support::output::Output;
use threads::FailedRun;

/// The rate of the auditor whom everybody else works against.
const RATE: u64 = RATE_MAX / 4;

/// Options of `concord simulate`.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  concord simulate --seeds 0..1000             # faults of every kind, and nobody lies
  concord simulate --seeds 0..1000 --liars     # and in each run one process lies
  concord simulate --seeds 17..18 --liars      # one run again: all of it follows from the seed
  concord simulate --collusion --seeds 0..10000
  concord simulate --forgeries --seeds 0..10000

The exit status is 1 where something does not hold that must: an honest key convicted, a conviction
that shows nothing, a record that is not that of one honest worker (where no undrawn lie is in it),
a statement signed twice, a secret told too early, a proof that does not hold or shows more than is
true. Each failure is told with its seed.")]
pub struct SimulateArgs {
    /// The seeds to run: from the first one up to, and without, the second one.
    #[arg(long, default_value = "0..200", value_name = "A..B", value_parser = seeds)]
    seeds: Range<u64>,
    /// In each run one worker, checker or auditor lies: it alters what it says, or does false work.
    #[arg(long, group = "who")]
    liars: bool,
    /// The coordinator and all workers are in one hand, with false leaves in every step or in one,
    /// against one honest auditor that draws a quarter of all leaves, or a twentieth: how often the
    /// lie is not seen, against what the proof prints. Each seed is run for each way of hiding what
    /// is drawn.
    #[arg(long, group = "who")]
    collusion: bool,
    /// A coordinator makes up its history by dice: each is refuted, or counts what it hides as
    /// unsettled.
    #[arg(long, group = "who")]
    forgeries: bool,
}

/// `A..B`
fn seeds(text: &str) -> Result<Range<u64>, String> {
    let range = text
        .split_once("..")
        .and_then(|(from, to)| Some(from.parse().ok()?..to.parse().ok()?));
    let range: Range<u64> = range.ok_or("two numbers with .. between them, such as 0..1000")?;
    match range.is_empty() {
        true => Err(format!(
            "there is no seed from {} on below {}",
            range.start, range.end
        )),
        false => Ok(range),
    }
}

/// Runs the seeds.
///
/// # Errors
/// Where something does not hold that must.
pub fn run(args: &SimulateArgs, output: &Output) -> anyhow::Result<()> {
    let (failures, mode) = if args.collusion {
        (collusion::run(&args.seeds, output)?, " --collusion")
    } else if args.forgeries {
        (forgeries::run(&args.seeds, output)?, " --forgeries")
    } else {
        let mode = if args.liars { " --liars" } else { "" };
        (pools::run(&args.seeds, args.liars, output)?, mode)
    };
    for FailedRun { seed, reason, what } in &failures {
        let again = format!("concord simulate --seeds {seed}..{}{mode}", seed + 1);
        output.result(
            &format!("seed {seed}: {reason}\n  {what}\n  again: {again}"),
            &json!({
                "event": "failure", "seed": seed, "reason": reason, "run": what, "again": again,
            }),
        );
    }
    match failures.len() {
        0 => Ok(()),
        count => bail!(
            "{count} of {} seeds failed",
            args.seeds.end - args.seeds.start
        ),
    }
}
