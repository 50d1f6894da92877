//! Histories that a coordinator makes up.

use std::ops::Range;

use concord_simulator::forger::{ForgedCounts, forge};
use concord_simulator::interval::clopper_pearson;
use concord_simulator::seeds::caught;
use serde_json::{Value, json};

use crate::support::output::Output;
use crate::support::table::columns;

use super::RATE;
use super::threads::{FailedRun, placed, run_all};

/// What the interval is for.
const CONFIDENCE: f64 = 0.99;

/// Makes up a history for each seed, and prints what became of them.
pub(super) fn run(seeds: &Range<u64>, output: &Output) -> anyhow::Result<Vec<FailedRun>> {
    let one = |(): &mut (), seed: u64| {
        caught(|| forge(seed, RATE)).map_err(|reason| FailedRun {
            seed,
            reason: placed(reason),
            what: "a history that is made up".to_string(),
        })
    };
    let mut all = run_all(seeds, output, || (), one, ForgedCounts::add)?;
    let counts = &all.counts;
    let rows = counts.rows(RATE);
    let joint = 1.0 - (1.0 - CONFIDENCE) / rows.len() as f64;
    let is_over = |(_, accepted, printed): &&(u32, u64, f64)| {
        clopper_pearson(*accepted, counts.all_false, joint).0 > *printed
    };
    let over: Vec<FailedRun> = rows
        .iter()
        .filter(is_over)
        .map(|(unsettled, accepted, printed)| FailedRun {
            seed: seeds.start,
            reason: format!(
                "{accepted} of {} histories that are false in every step hold with {unsettled} \
                 unsettled or fewer, and {printed:.4} is printed for it",
                counts.all_false
            ),
            what: format!("all seeds {seeds:?}"),
        })
        .collect();
    output.result(
        &words(counts, all.took.as_secs_f64(), all.threads),
        &object(counts, seeds),
    );
    all.failures.extend(over);
    Ok(all.failures)
}

fn words(counts: &ForgedCounts, seconds: f64, threads: usize) -> String {
    let row = |count: u64, what: &str| vec![count.to_string(), what.to_string()];
    let mut rows: Vec<Vec<String>> = counts
        .shown
        .iter()
        .map(|(shown, count)| row(*count, shown.as_str()))
        .collect();
    rows.push(row(
        counts.hidden,
        "drawn wrong leaves in steps of proofs that hold: each is among the unsettled",
    ));
    rows.push(row(counts.deeds.values().sum(), "deeds:"));
    let deeds = counts.deeds.iter();
    rows.extend(deeds.map(|(deed, count)| row(*count, &format!("  {deed}"))));
    rows.push(row(
        counts.all_false,
        "histories that are false in every step:",
    ));
    rows.extend(counts.rows(RATE).into_iter().map(|(unsettled, accepted, printed)| {
        let share = accepted as f64 / counts.all_false.max(1) as f64;
        let words = format!(
            "  hold with {unsettled} unsettled or fewer: {share:.4}, and {printed:.4} is printed"
        );
        row(accepted, &words)
    }));
    format!(
        "{} histories, {seconds:.1} s on {threads} threads\n{}",
        counts.jobs,
        columns(&rows)
    )
}

fn object(counts: &ForgedCounts, seeds: &Range<u64>) -> Value {
    let shown = counts.shown.iter();
    let shown: serde_json::Map<String, Value> = shown
        .map(|(shown, count)| (shown.as_str().to_string(), json!(count)))
        .collect();
    let rows = counts.rows(RATE).into_iter().map(|(unsettled, accepted, printed)| {
        json!({"unsettled_at_most": unsettled, "unseen": accepted, "printed": printed})
    });
    json!({
        "event": "simulated", "seeds": [seeds.start, seeds.end], "jobs": counts.jobs,
        "shown": shown, "refusals": counts.refusals, "deeds": counts.deeds,
        "hidden": counts.hidden, "all_false": counts.all_false,
        "rows": rows.collect::<Vec<_>>(),
    })
}
