//! A run from its beginning to its end, and what must hold there.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use concord_proto::client::JobEvent;
use concord_proto::{Digest, JobId};
use concord_verify::training::bundle;

use super::super::clock::SECOND;
use super::super::oracle;
use super::super::watch::{Watch, WatchCounts};
use super::super::world::World;
use super::{FaultKind, Scenario};

/// A run that has not ended by then hangs.
const LIMIT: u64 = 1_800 * SECOND;

/// The records of jobs that one honest worker does alone.
#[derive(Default)]
pub struct ExpectedRecords {
    by_job: BTreeMap<JobId, Digest>,
}

impl ExpectedRecords {
    fn of(&mut self, scenario: &Scenario) -> Digest {
        let mut new = scenario.job((1, 1));
        // Nobody is there to check it.
        let options = &mut new.submission.options;
        (options.checkers, options.audit_rate) = (0, 0);
        let job = new.submission.spec.id();
        *self.by_job.entry(job).or_insert_with(|| {
            let mut world = World::new(1, new);
            world.join_worker(1, 0, None);
            world.run(LIMIT).expect("one honest worker is enough")
        })
    }
}

/// How much there was of what, in runs without a failure.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ScenarioCounts {
    pub jobs: u64,
    /// Those that were done, with the record of one honest worker.
    pub completed: u64,
    /// Those in which a lie that nobody drew is in the record: an auditor says with which
    /// probability.
    pub undrawn: u64,
    /// Those that ended early, with a reason.
    pub ended_early: u64,
    pub watched: WatchCounts,
    /// Attempts that an auditor has not settled.
    pub unsettled: u64,
    /// Jobs in which the liar did something.
    pub lied: u64,
    /// Liars that were convicted.
    pub caught: u64,
    pub faults: BTreeMap<FaultKind, u64>,
    /// What happened in all runs together.
    pub events: u64,
}

impl ScenarioCounts {
    pub fn add(&mut self, other: &Self) {
        self.jobs += other.jobs;
        self.completed += other.completed;
        self.undrawn += other.undrawn;
        self.ended_early += other.ended_early;
        self.watched.add(&other.watched);
        self.unsettled += other.unsettled;
        self.lied += other.lied;
        self.caught += other.caught;
        self.events += other.events;
        for (kind, count) in &other.faults {
            *self.faults.entry(*kind).or_default() += count;
        }
    }
}

/// Runs a scenario to its end.
///
/// # Panics
/// Where something does not hold that must, with what.
pub fn run(scenario: &Scenario, expected: &mut ExpectedRecords) -> ScenarioCounts {
    let expected = expected.of(scenario);
    let mut world = scenario.world();
    world.watch = Some(Box::<Watch>::default());
    let mut counts = ScenarioCounts {
        jobs: 1,
        ..ScenarioCounts::default()
    };
    let record = loop {
        counts.events += 1;
        if let ControlFlow::Break(record) = world.step(LIMIT) {
            break record;
        }
    };
    let watch = world.watch.take().expect("it was put there");
    check_convicted(&world, scenario);
    match record {
        Some(record) => completed(&world, &watch, (record, expected), &mut counts),
        None => ended(&world, scenario, &mut counts),
    }
    counts.watched = watch.counts;
    let (now, crashed) = (world.now(), world.crashes > 0);
    for fault in &scenario.faults {
        let has_happened = match fault.kind {
            FaultKind::CrashBetweenEffects => crashed,
            _ => fault.has_happened(now),
        };
        if has_happened {
            *counts.faults.entry(fault.kind).or_default() += 1;
        }
    }
    if let Some(liar) = scenario.liar() {
        let mutant = world.mutants.get(&liar);
        // One that works otherwise does so whenever it has a place.
        counts.lied = u64::from(mutant.is_none_or(|mutant| !mutant.deeds.is_empty()));
        counts.caught = u64::from(world.memory.convicted.contains_key(&liar));
    }
    counts
}

/// Nobody honest is convicted, also where its process is gone.
fn check_convicted(world: &World, scenario: &Scenario) {
    let liar = scenario.liar();
    let mut convicted = world.memory.convicted.keys();
    if let Some(honest) = convicted.find(|id| Some(**id) != liar) {
        panic!("{} is honest and was convicted", honest.short());
    }
}

/// The job is done: its proof holds, and shows no more than is true.
fn completed(
    world: &World,
    watch: &Watch,
    (record, expected): (Digest, Digest),
    counts: &mut ScenarioCounts,
) {
    let bundle = world.memory.bundle(&world.new);
    let report = bundle::verify(&bundle).unwrap_or_else(|error| panic!("the proof fails: {error}"));
    assert_eq!(report.record, record, "the proof is of another record");
    let honest = report.auditors.iter();
    let honest = honest.filter(|own| world.is_honest(&own.auditor) == Some(true));
    for own in honest {
        let hidden = oracle::hidden_hits(&bundle, (&own.auditor, 1), &watch.steps);
        assert!(
            own.unsettled >= hidden,
            "the report says {} unsettled, and {hidden} attempts hide a wrong leaf that was drawn",
            own.unsettled
        );
        counts.unsettled += u64::from(own.unsettled);
    }
    if record == expected {
        counts.completed += 1;
        return;
    }
    assert!(
        oracle::has_wrong_leaf(&bundle, &watch.steps),
        "a wrong record was accepted, and no leaf of it is wrong"
    );
    counts.undrawn += 1;
}

/// The job is not done: only a liar can bring that about, and then there is a reason.
fn ended(world: &World, scenario: &Scenario, counts: &mut ScenarioCounts) {
    match world.memory.events.last() {
        // A job that names an auditor does not go on without it.
        Some(JobEvent::Failed(why)) if scenario.liar_is_named() && why.contains("auditor") => {
            counts.ended_early += 1;
        }
        Some(JobEvent::Failed(why)) => panic!("the job failed: {why}"),
        Some(_) | None => panic!("the job has no end"),
    }
}

impl Scenario {
    /// What watchers of the job were told, for people who look for the reason of a failure.
    pub fn told(&self) -> Vec<String> {
        let mut world = self.world();
        let _ = world.run(LIMIT);
        let events = world.memory.events.iter();
        events.map(|event| format!("{event:?}")).collect()
    }
}
