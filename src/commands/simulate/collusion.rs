//! Everybody against one honest auditor: how often a lie is not seen, and what the proof prints.

use std::collections::BTreeMap;
use std::ops::Range;

use concord_proto::auditor::RATE_MAX;
use concord_simulator::forger::{CollusionCounts, CollusionRow, Ruse, collude};
use concord_simulator::interval::clopper_pearson;
use concord_simulator::seeds::caught;
use serde_json::{Value, json};

use crate::support::output::Output;
use crate::support::table::table;

use super::RATE;
use super::threads::{FailedRun, placed, run_all};

/// Steps of each job.
const STEPS: u32 = 6;
/// The rate of an auditor that draws little.
const SELDOM: u64 = RATE_MAX / 20;
/// What the intervals are for.
const CONFIDENCE: f64 = 0.99;

/// What is hidden how, with how many false steps, from an auditor of which rate.
type Case = (Ruse, u32, u64);
type ByCase = BTreeMap<Case, CollusionCounts>;

/// Each way of hiding, with false leaves in every step; two of them with one false leaf, because
/// one that is hidden leaves nothing to compare, and with an auditor that draws less.
fn cases() -> impl Iterator<Item = Case> {
    let two = [Ruse::Nothing, Ruse::VoidsAttempt];
    let one = two.map(|ruse| (ruse, 1, RATE));
    let seldom = two.map(|ruse| (ruse, STEPS, SELDOM));
    let all = Ruse::ALL.map(|ruse| (ruse, STEPS, RATE));
    all.into_iter().chain(one).chain(seldom)
}

fn run_one(seed: u64) -> Result<ByCase, FailedRun> {
    let one = |(ruse, lies, rate): Case| {
        let counts = caught(|| collude(seed, ruse, (STEPS, lies), rate));
        let counts = counts.map_err(|reason| FailedRun {
            seed,
            reason: placed(reason),
            what: format!(
                "{lies} false steps of {STEPS}; the coordinator {}",
                ruse.as_str()
            ),
        })?;
        Ok(((ruse, lies, rate), counts))
    };
    cases().map(one).collect()
}

/// A rate as people write it.
fn percent(rate: u64) -> String {
    format!("{} %", rate * 100 / RATE_MAX)
}

/// A row, with what its count says.
struct Judged {
    case: Case,
    row: CollusionRow,
    interval: (f64, f64),
    /// Whether the printed chance of an escape is below what the count can be taken for.
    is_over: bool,
}

fn judged(counts: &ByCase) -> Vec<Judged> {
    let of = |(case, counts): (&Case, &CollusionCounts)| {
        let rows = counts.rows(case.2, case.1).into_iter();
        rows.map(|row| (*case, row)).collect::<Vec<_>>()
    };
    let rows: Vec<(Case, CollusionRow)> = counts.iter().flat_map(of).collect();
    // All rows together are to be wrong by chance in 1 % of all runs, and not each.
    let joint = 1.0 - (1.0 - CONFIDENCE) / rows.len() as f64;
    let judge = |(case, row): (Case, CollusionRow)| Judged {
        case,
        row,
        interval: clopper_pearson(row.unseen, row.jobs, CONFIDENCE),
        is_over: clopper_pearson(row.unseen, row.jobs, joint).0 > row.printed,
    };
    rows.into_iter().map(judge).collect()
}

/// A row of the table.
fn cells(one: &Judged) -> [String; 8] {
    let share = |share: f64| format!("{share:.4}");
    let (CollusionRow { unseen, jobs, .. }, (low, high)) = (one.row, one.interval);
    [
        one.case.0.as_str().to_string(),
        percent(one.case.2),
        one.case.1.to_string(),
        one.row.unsettled.to_string(),
        format!("{unseen} of {jobs}"),
        share(unseen as f64 / jobs as f64),
        format!("{}..{}", share(low), share(high)),
        share(one.row.printed),
    ]
}

/// The same for scripts.
fn object(one: &Judged) -> Value {
    json!({
        "ruse": one.case.0.as_str(), "rate": one.case.2, "false_steps": one.case.1,
        "unsettled_at_most": one.row.unsettled, "unseen": one.row.unseen,
        "jobs": one.row.jobs, "interval": [one.interval.0, one.interval.1],
        "printed": one.row.printed, "over": one.is_over,
    })
}

/// Runs each seed in each way, and prints how often the lie was not seen.
pub(super) fn run(seeds: &Range<u64>, output: &Output) -> anyhow::Result<Vec<FailedRun>> {
    let add = |all: &mut ByCase, one: &ByCase| {
        for (case, counts) in one {
            all.entry(*case).or_default().add(counts);
        }
    };
    let mut all = run_all(seeds, output, || (), |(), seed| run_one(seed), add)?;
    let judged = judged(&all.counts);
    let rows: Vec<[String; 8]> = judged.iter().map(cells).collect();
    let headings = [
        "where a false leaf is drawn, it",
        "rate",
        "false steps",
        "u at most",
        "not seen",
        "share",
        "99 % interval",
        "S printed",
    ];
    let text = format!(
        "{} jobs of {STEPS} steps for each way, {:.1} s on {} threads\n{}",
        seeds.end - seeds.start,
        all.took.as_secs_f64(),
        all.threads,
        table(headings, &rows)
    );
    output.result(
        &text,
        &json!({
            "event": "simulated", "seeds": [seeds.start, seeds.end], "steps": STEPS,
            "rows": judged.iter().map(object).collect::<Vec<_>>(),
            "failures": all.failures.len(), "seconds": all.took.as_secs_f64(),
            "threads": all.threads,
        }),
    );
    let over = judged
        .iter()
        .filter(|one| one.is_over)
        .map(|one| FailedRun {
            seed: seeds.start,
            reason: format!(
                "the lie was not seen in {} of {} jobs, and {:.4} is printed for it",
                one.row.unseen, one.row.jobs, one.row.printed
            ),
            what: format!(
                "{} false steps, a rate of {}; the coordinator {}; all seeds {seeds:?}",
                one.case.1,
                percent(one.case.2),
                one.case.0.as_str()
            ),
        });
    all.failures.extend(over);
    Ok(all.failures)
}
