//! Invariants that hold after each event, and at the end.

use std::collections::{BTreeMap, BTreeSet};

use concord_proto::serving::{DrawOrder, PAGE_TOKENS, Pass};

use super::model::BREAKING;
use super::world::World;
use crate::prefix;
use crate::sequence::SequencePhase;

/// Holds after each event.
pub fn check(world: &World) {
    let scheduler = &world.scheduler;
    let mut holders: BTreeMap<u32, u32> = BTreeMap::new();
    for (id, sequence) in &scheduler.sequences {
        let distinct: BTreeSet<u32> = sequence.pages.iter().copied().collect();
        assert_eq!(distinct.len(), sequence.pages.len(), "a page twice in {id}");
        for page in &sequence.pages {
            *holders.entry(*page).or_default() += 1;
        }
        let is_active = scheduler.active.values().any(|active| active == id);
        assert_eq!(is_active, sequence.phase == SequencePhase::Active);
        let is_closing = matches!(
            sequence.phase,
            SequencePhase::Claiming | SequencePhase::Leaving
        );
        assert_eq!(scheduler.closing.contains(id), is_closing);
        assert!(sequence.phase != SequencePhase::Waiting || sequence.pages.is_empty());
    }
    scheduler.pages.check(&holders);
    check_flights(world);
    check_cache(world);
    let waits = |phase| phase == SequencePhase::Waiting;
    let waiting = scheduler.sequences.values().filter(|s| waits(s.phase));
    assert_eq!(waiting.count(), scheduler.queue.len());
    assert!(scheduler.active.len() <= world.settings.active_max);
    assert!(scheduler.recent.len() <= crate::scheduler::RECENT_PASSES);
}

fn check_flights(world: &World) {
    let scheduler = &world.scheduler;
    assert!(
        scheduler.flights.len() as u32 <= world.shape.0 + 1,
        "too many passes in flight"
    );
    let mut flying = BTreeSet::new();
    for run in scheduler.flights.values().flat_map(|flight| &flight.runs) {
        assert!(flying.insert(run.sequence), "a sequence in two passes");
    }
    for (id, sequence) in &scheduler.sequences {
        assert_eq!(sequence.in_flight, flying.contains(id));
    }
    for number in scheduler.flights.keys() {
        assert!(world.passes.iter().any(|(pass, _)| pass.number == *number));
    }
    assert_eq!(scheduler.flights.len(), world.passes.len());
}

/// A page of the prefix cache has the content of its key.
fn check_cache(world: &World) {
    let known: BTreeMap<_, _> = world.scheduler.pages.known().collect();
    let mut found = 0;
    let mut seen = BTreeSet::new();
    for (generation, alone) in world.asked.values() {
        let spec = &generation.spec;
        let tokens: Vec<u32> = spec.prompt.iter().chain(&alone.answer).copied().collect();
        let pages = alone.values.len() / PAGE_TOKENS as usize;
        let mut keys = Vec::new();
        prefix::extend(&mut keys, spec.adapter, &tokens, pages);
        for (key, values) in keys.iter().zip(alone.values.chunks(PAGE_TOKENS as usize)) {
            let Some(page) = known.get(key) else {
                continue;
            };
            if !seen.insert(*key) {
                continue;
            }
            found += 1;
            let content = &world.stage.pages[*page as usize];
            let is_equal = content.iter().zip(values).all(|(a, b)| *a == Some(*b));
            assert!(is_equal, "page {page} holds something else");
        }
    }
    assert_eq!(
        found,
        known.len(),
        "a page of the cache that no sequence has"
    );
}

/// Holds for each pass.
pub fn check_pass(world: &World, pass: &Pass, draws: &DrawOrder) {
    assert_eq!(pass.number, draws.pass);
    assert!(!pass.runs.is_empty() && pass.tokens.len() <= world.settings.rows_max as usize);
    let rows: u32 = pass.runs.iter().map(|run| run.count).sum();
    assert_eq!(rows as usize, pass.tokens.len());
    let mut adapters: Vec<_> = pass.runs.iter().map(|run| run.adapter).collect();
    adapters.dedup();
    let distinct: BTreeSet<_> = adapters.iter().copied().collect();
    assert_eq!(
        distinct.len(),
        adapters.len(),
        "runs of an adapter are apart"
    );
    for run in &pass.runs {
        let pages = (run.first + run.count).div_ceil(PAGE_TOKENS);
        assert_eq!(run.pages.len() as u32, pages);
    }
    assert!(draws.draws.is_sorted_by(|a, b| a.run < b.run));
    for draw in &draws.draws {
        assert!(draw.sample.is_some() || !draw.targets.is_empty());
        assert!(draw.targets.len() as u32 <= pass.runs[draw.run as usize].count);
    }
}

/// The pages to be claimed hold the positions of the answer.
pub fn check_claim(world: &World, sequence: u64, positions: u32, pages: &[u32]) {
    if pages.is_empty() {
        return;
    }
    assert_eq!(pages.len() as u32, positions.div_ceil(PAGE_TOKENS));
    let (_, alone) = &world.asked[&sequence];
    for (at, value) in alone.values.iter().enumerate().take(positions as usize) {
        let slot = world.stage.pages[pages[at / 128] as usize][at % 128];
        assert_eq!(slot, Some(*value), "position {at}");
    }
}

/// Holds when nothing is left to do.
pub fn check_end(world: &World) {
    for (id, seen) in &world.seen {
        let (generation, alone) = &world.asked[id];
        let count = seen.tokens.len();
        assert_eq!(seen.tokens, alone.tokens[..count], "sequence {id}");
        if let Some(prompt) = &seen.prompt {
            assert_eq!(*prompt, alone.prompt);
        }
        if world.cancelled.contains(id) {
            continue;
        }
        if let Some((reason, _)) = &seen.failed {
            let is_broken = alone.finish.is_none() && count == alone.answer.len();
            let breaking = alone.answer.last().or(generation.spec.prompt.last());
            assert!(is_broken, "{reason}, after {breaking:?}");
            let tokens = generation.spec.prompt.iter().chain(&alone.answer);
            assert!(tokens.into_iter().any(|token| *token == BREAKING));
            continue;
        }
        let (finish, usage) = seen.finished.unwrap_or_else(|| panic!("{id} never ended"));
        let answered = seen.answered.as_ref().expect("answered");
        assert_eq!(usage.prompt as usize, generation.spec.prompt.len());
        if let Some(&stopped) = world.stopped.get(id) {
            assert_eq!(answered[..], alone.answer[..stopped as usize]);
            continue;
        }
        assert_eq!(*answered, alone.answer, "sequence {id}");
        assert_eq!(Some(finish), alone.finish);
        assert_eq!(
            seen.prompt.is_some(),
            generation.spec.prompt_logprobs.is_some()
        );
    }
    let pages = &world.scheduler.pages;
    assert_eq!(pages.available(), pages.count(), "pages are lost");
    assert!(world.scheduler.sequences.is_empty() && world.scheduler.queue.is_empty());
}
