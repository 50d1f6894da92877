//! Whole pools: the real coordinator, make-believe workers and auditors, faults, and perhaps a
//! liar.

use std::ops::Range;

use concord_simulator::scenario::{ExpectedRecords, FaultKind, ScenarioCounts};
use concord_simulator::seeds::run_seed;
use serde_json::{Value, json};

use crate::support::output::Output;
use crate::support::table::columns;

use super::threads::{AllRuns, FailedRun, placed, run_all};

/// Runs each seed, and prints what there was in all of them together.
pub(super) fn run(
    seeds: &Range<u64>,
    has_liar: bool,
    output: &Output,
) -> anyhow::Result<Vec<FailedRun>> {
    let one = |expected: &mut ExpectedRecords, seed: u64| {
        run_seed(seed, has_liar, expected).map_err(|failed| FailedRun {
            seed,
            reason: placed(failed.reason),
            what: failed.scenario,
        })
    };
    let all = run_all(
        seeds,
        output,
        ExpectedRecords::default,
        one,
        ScenarioCounts::add,
    )?;
    output.result(&words(&all, has_liar), &object(&all, seeds));
    Ok(all.failures)
}

fn faults(counts: &ScenarioCounts) -> impl Iterator<Item = (FaultKind, u64)> {
    let of = |kind| (kind, counts.faults.get(&kind).copied().unwrap_or(0));
    FaultKind::ALL.into_iter().map(of)
}

fn words(all: &AllRuns<ScenarioCounts>, has_liar: bool) -> String {
    let AllRuns {
        counts,
        failures,
        took,
        threads,
    } = all;
    let watched = &counts.watched;
    let row = |count: u64, what: String| vec![count.to_string(), what];
    let mut rows = vec![
        row(
            counts.completed,
            "jobs completed, with the record of one honest worker".to_string(),
        ),
        row(
            watched.attempts,
            format!(
                "attempts at steps; steps were voided {} times",
                watched.voids
            ),
        ),
        row(
            watched.agreed,
            "leaves re-run by auditors and found right".to_string(),
        ),
        row(watched.accusations, "accusations".to_string()),
        row(watched.convictions, "convictions".to_string()),
        row(
            counts.unsettled,
            "attempts that an honest auditor has not settled".to_string(),
        ),
    ];
    if has_liar {
        rows.extend([
            row(
                counts.lied,
                "jobs in which the liar did something".to_string(),
            ),
            row(counts.caught, "liars convicted".to_string()),
            row(
                counts.undrawn,
                "jobs completed with a lie that no auditor drew, or that it left unsettled"
                    .to_string(),
            ),
            row(
                counts.ended_early,
                "jobs ended for want of their auditor, the liar".to_string(),
            ),
        ]);
    }
    let faults = faults(counts).map(|(kind, count)| row(count, kind.as_str().to_string()));
    let injected: u64 = counts.faults.values().sum();
    rows.push(row(injected, "faults:".to_string()));
    rows.extend(faults.map(|mut row| {
        row[1].insert_str(0, "  ");
        row
    }));
    rows.push(row(failures.len() as u64, "seeds failed".to_string()));
    let (jobs, seconds) = (counts.jobs, took.as_secs_f64());
    format!(
        "{jobs} jobs, {} events, {seconds:.1} s on {threads} threads\n{}",
        counts.events,
        columns(&rows)
    )
}

fn object(all: &AllRuns<ScenarioCounts>, seeds: &Range<u64>) -> Value {
    let (counts, watched) = (&all.counts, &all.counts.watched);
    let faults: serde_json::Map<String, Value> = faults(counts)
        .map(|(kind, count)| (kind.as_str().to_string(), json!(count)))
        .collect();
    json!({
        "event": "simulated", "seeds": [seeds.start, seeds.end], "jobs": counts.jobs,
        "completed": counts.completed, "events": counts.events,
        "attempts": watched.attempts, "voids": watched.voids,
        "audits": watched.agreed, "accusations": watched.accusations,
        "convictions": watched.convictions,
        "unsettled": counts.unsettled, "lied": counts.lied, "caught": counts.caught,
        "undrawn": counts.undrawn, "ended_early": counts.ended_early, "faults": faults,
        "failures": all.failures.len(), "seconds": all.took.as_secs_f64(),
        "threads": all.threads,
    })
}
