//! The rules of batching, one by one.

use concord_proto::serving::{Control, Finish, Generation, PassResult, PipelineView};

use super::model::{BREAKING, VOCAB, alone, generation};
use super::world::World;
use crate::{Refusal, SchedulerEvent, Settings};

fn settings() -> Settings {
    Settings::new(VOCAB, 2_000)
}

fn prompt(from: u32, length: u32) -> Vec<u32> {
    (from..from + length).map(|token| token * 7 % 390).collect()
}

/// A generation whose answer comes to an end.
fn sound(owner: u8, prompt: Vec<u32>, max_tokens: u32) -> Generation {
    let with_seed = |seed| {
        let mut generation = generation(owner, prompt.clone(), max_tokens);
        generation.spec.sampling.seed = seed;
        generation
    };
    let mut all = (0..100).map(with_seed);
    let ends = |generation: &Generation| alone(generation, 2_000).finish.is_some();
    all.find(ends).expect("one of a hundred")
}

fn view(world: &World) -> PipelineView {
    let mut view = PipelineView::default();
    world.scheduler.view(&mut view);
    view
}

/// Runs of the newest pass, as rows.
fn rows(world: &World) -> Vec<u32> {
    let (pass, _) = world.passes.back().expect("a pass in flight");
    pass.runs.iter().map(|run| run.count).collect()
}

#[test]
fn one_owner_with_a_thousand_requests_does_not_starve_another_with_one() {
    let many = Settings {
        active_max: 8,
        ..settings()
    };
    let mut world = World::new(many, 1, 64);
    for id in 0..1_000 {
        world.submit(id, generation(1, prompt(id as u32, 40), 10));
    }
    for _ in 0..30 {
        world.step();
        while world.claim() {}
    }
    world.submit(5_000, generation(2, prompt(0, 40), 10));
    let before = world.seen.values().filter(|seen| seen.is_over()).count();
    while !world.seen[&5_000].is_over() {
        assert!(world.step());
        while world.claim() {}
    }
    let passed = world.seen.values().filter(|seen| seen.is_over()).count() - before;
    assert!(
        passed <= 24,
        "{passed} answers of the other owner came first"
    );
    // Waiting generations are told at once how many are before them, and then rarely.
    let told = &world.seen[&999].queued;
    assert!(told[0] > 900 && told.len() < 12, "{told:?}");
}

#[test]
fn a_second_prompt_reuses_the_full_pages_of_the_first() {
    let mut world = World::new(settings(), 2, 64);
    world.submit(1, sound(1, prompt(0, 300), 50));
    world.step();
    // The first one still runs.
    world.submit(2, generation(2, prompt(0, 300), 5));
    world.drain();
    let (_, usage) = world.seen[&2].finished.expect("finished");
    assert_eq!(usage.cached, 256);
    assert_eq!(view(&world).prefix_hits, 256);
    assert_eq!(view(&world).prefix_queries, 600);
    // And a third one when nobody holds them any more; the answer of the first counts too.
    let mut longer = prompt(0, 300);
    longer.extend(&world.asked[&1].1.answer);
    longer.extend(prompt(11, 60));
    let before = world.rows_sent;
    world.submit(3, generation(3, longer, 1));
    world.drain();
    assert_eq!(world.seen[&3].finished.expect("finished").1.cached, 256);
    assert_eq!(world.rows_sent - before, 410 - 256);
    // The last token of a prompt is always computed.
    world.submit(4, generation(3, prompt(0, 256), 1));
    world.drain();
    assert_eq!(world.seen[&4].finished.expect("finished").1.cached, 128);
}

#[test]
fn a_prompt_to_be_scored_and_another_adapter_reuse_nothing() {
    let mut world = World::new(settings(), 1, 64);
    world.submit(1, generation(1, prompt(0, 300), 5));
    world.drain();
    let mut scored = generation(1, prompt(0, 300), 5);
    scored.spec.prompt_logprobs = Some(2);
    world.submit(2, scored);
    let mut adapted = generation(1, prompt(0, 300), 5);
    adapted.spec.adapter = Some(concord_proto::Digest([3; 32]));
    world.submit(3, adapted);
    world.drain();
    for id in [2, 3] {
        assert_eq!(world.seen[&id].finished.expect("finished").1.cached, 0);
    }
    assert_eq!(world.seen[&2].prompt.as_ref().map(Vec::len), Some(299));
}

#[test]
fn the_youngest_gives_way_and_the_oldest_is_never_stopped() {
    let mut world = World::new(settings(), 1, 6);
    for id in 0..5 {
        world.submit(id, sound(id as u8, prompt(id as u32, 100), 500));
    }
    let mut order = Vec::new();
    while world.claim() | world.step() {
        for (id, seen) in &world.seen {
            if seen.is_over() && !order.contains(id) {
                order.push(*id);
            }
        }
    }
    world.drain();
    assert_eq!(order, [0, 1, 2, 3, 4]);
    assert!(view(&world).preemptions > 0);
}

#[test]
fn decoding_goes_on_beside_a_long_prompt() {
    let mut world = World::new(settings(), 1, 64);
    for id in 0..4 {
        world.submit(id, sound(1, prompt(id as u32, 10), 200));
    }
    for _ in 0..10 {
        world.step();
    }
    world.submit(9, generation(2, prompt(50, 1_500), 3));
    let tokens = |world: &World| world.seen[&0].tokens.len();
    let before = tokens(&world);
    let mut steps = 0;
    while world.seen[&9].tokens.is_empty() {
        let tokens_then = tokens(&world);
        world.step();
        assert!(rows(&world).iter().all(|count| *count <= 256));
        // At most one chunk of the prompt is computed between two tokens.
        world.step();
        assert!(tokens(&world) > tokens_then);
        steps += 2;
    }
    assert!(steps <= 16 && tokens(&world) >= before + 5);
    assert_eq!(world.seen[&9].prefill.last(), Some(&(1_500, 1_500)));
    // Few rows as long as nobody knows how long they take; then the most.
    assert_eq!(world.seen[&9].prefill.len(), 7);
}

#[test]
fn decoding_is_spread_over_the_stages() {
    for (stages, share) in [(1, 12), (2, 6), (3, 4)] {
        let mut world = World::new(settings(), stages, 64);
        for id in 0..12 {
            world.submit(id, sound(1, prompt(id as u32, 10), 200));
        }
        for _ in 0..40 {
            world.step();
        }
        for _ in 0..8 {
            world.step();
            assert_eq!(rows(&world).len(), share);
            assert_eq!(world.passes.len(), stages as usize);
        }
    }
}

#[test]
fn prompts_are_spread_over_the_stages() {
    let mut world = World::down(settings(), 3, 64);
    for id in 0..6 {
        world.submit(id, generation(id as u8, prompt(id as u32, 150), 2));
    }
    world.up();
    assert_eq!(world.passes.len(), 4);
    assert!(
        world
            .passes
            .iter()
            .all(|(pass, _)| pass.tokens.len() <= 300)
    );
    world.drain();
}

#[test]
fn a_result_that_does_not_fit_is_a_fault_and_changes_nothing() {
    let mut world = World::new(settings(), 1, 64);
    let mut scored = generation(1, prompt(0, 20), 5);
    scored.spec.prompt_logprobs = Some(1);
    scored.spec.logprobs = Some(1);
    world.submit(1, scored);
    let (pass, draws) = world.passes[0].clone();
    let (_, right) = world.stage.pass(&pass, &draws);
    let change = |change: &dyn Fn(&mut PassResult)| {
        let mut result = right.clone();
        change(&mut result);
        result
    };
    let wrong = [
        change(&|r| r.pass = 7),
        change(&|r| r.drawn.clear()),
        change(&|r| r.drawn[0].run = 1),
        change(&|r| r.drawn.push(r.drawn[0].clone())),
        change(&|r| r.drawn[0].token = None),
        change(&|r| r.drawn[0].token.as_mut().expect("a token").token = VOCAB),
        change(&|r| r.drawn[0].token.as_mut().expect("a token").top[0].0 = VOCAB),
        change(&|r| r.drawn[0].scored[3].token += 1),
        change(&|r| _ = r.drawn[0].scored.pop()),
        change(&|r| r.drawn[0].scored[0].top = vec![(0, 0.0.into()); 2]),
    ];
    for result in wrong {
        let effects = world
            .scheduler
            .apply(0, SchedulerEvent::Result(result.clone()));
        let is_fault = matches!(effects[..], [crate::SchedulerEffect::Fault { .. }]);
        assert!(is_fault, "{result:?} gives {effects:?}");
    }
    world.drain();
}

/// Receipts have what was asked for: a stage that gives a logprob more has claimed another one.
#[test]
fn a_logprob_that_nobody_asked_for_is_a_fault() {
    let mut world = World::new(settings(), 1, 64);
    let mut scored = generation(1, prompt(0, 20), 5);
    scored.spec.prompt_logprobs = Some(1);
    world.submit(1, scored);
    let (pass, draws) = world.passes[0].clone();
    let asked = &draws.draws[0];
    assert_eq!((asked.logprobs, asked.target_logprobs), (None, 1));
    let (_, mut result) = world.stage.pass(&pass, &draws);
    result.drawn[0].token.as_mut().expect("a token").logprob = (-0.5).into();
    let effects = world.scheduler.apply(0, SchedulerEvent::Result(result));
    let is_fault = matches!(effects[..], [crate::SchedulerEffect::Fault { .. }]);
    assert!(is_fault, "{effects:?}");
    world.drain();
}

#[test]
fn a_spec_beyond_its_bounds_is_refused() {
    let world = World::new(settings(), 1, 64);
    let mut wide = generation(1, prompt(0, 20), 5);
    assert_eq!(world.scheduler.refusal(&wide), None);
    wide.spec.logprobs = Some(21);
    let refused = world
        .scheduler
        .refusal(&wide)
        .expect("too many")
        .to_string();
    assert!(refused.contains("top logprobs"), "{refused}");
    wide.spec.logprobs = None;
    wide.spec.stop_texts = vec![String::new()];
    let refused = world.scheduler.refusal(&wide).expect("empty").to_string();
    assert!(refused.contains("stop texts"), "{refused}");
}

#[test]
fn a_token_that_the_grammar_forbids_is_a_fault() {
    let mut world = World::new(settings(), 1, 64);
    let mut strict = generation(1, prompt(0, 20), 5);
    strict.spec.sampling.grammar = Some(concord_proto::serving::GrammarSpec::JsonObject);
    world.submit(1, strict);
    // All but the last token goes on without the grammar.
    assert_eq!(rows(&world), [19]);
    world.step();
    assert!(world.passes.is_empty());
    world.allow();
    let (pass, draws) = world.passes[0].clone();
    let (_, mut result) = world.stage.pass(&pass, &draws);
    let allowed = super::model::allowed(1, 0);
    let is_forbidden = |token: &u32| allowed[*token as usize / 8] >> (token % 8) & 1 == 0;
    let forbidden = (0..VOCAB).find(is_forbidden).expect("one");
    result.drawn[0].token.as_mut().expect("a token").token = forbidden;
    let effects = world.scheduler.apply(0, SchedulerEvent::Result(result));
    assert!(matches!(
        effects[..],
        [crate::SchedulerEffect::Fault { .. }]
    ));
    world.drain();
}

#[test]
fn what_breaks_fails_and_is_not_kept() {
    let mut world = World::new(settings(), 2, 64);
    let mut tokens = prompt(0, 300);
    tokens[200] = BREAKING;
    world.submit(1, generation(1, tokens, 5));
    world.drain();
    let (reason, retry) = world.seen[&1].failed.clone().expect("it fails");
    assert!(reason.contains("overflow") && !retry);
    assert_eq!(view(&world).pages_cached, 0);
    // Told late: the sequence fails, and so does what it left in the cache.
    world.submit(2, generation(1, prompt(0, 300), 5));
    let first = world.passes[0].0.number;
    world.step();
    let broken = SchedulerEvent::Broken {
        pass: first,
        runs: vec![0],
    };
    world.scheduler.apply(0, broken);
    assert_eq!(world.scheduler.pages.known().count(), 0);
}

#[test]
fn what_is_evicted_goes_on_elsewhere_with_the_same_tokens() {
    let mut world = World::new(settings(), 2, 64);
    let mut strict = generation(1, prompt(3, 20), 30);
    strict.spec.sampling.grammar = Some(concord_proto::serving::GrammarSpec::JsonObject);
    world.submit(1, sound(1, prompt(0, 200), 300));
    world.submit(2, strict);
    for _ in 0..20 {
        world.step();
        world.allow();
    }
    assert!(world.seen.values().all(|seen| !seen.tokens.is_empty()));
    world.lose();
    let evicted = world.scheduler.evict();
    assert_eq!(evicted.len(), 2);
    assert!(world.scheduler.sequences.is_empty());
    let mut other = World::new(settings(), 1, 64);
    std::mem::swap(&mut other.asked, &mut world.asked);
    std::mem::swap(&mut other.seen, &mut world.seen);
    std::mem::swap(&mut other.grammars, &mut world.grammars);
    for event in evicted.into_iter().flat_map(crate::Evicted::events) {
        other.apply(event);
    }
    other.drain();
}

#[test]
fn refusals_say_what_is_wrong() {
    let few = Settings {
        waiting_max: 1,
        active_max: 1,
        ..settings()
    };
    let mut world = World::new(few, 1, 4);
    let refusal = |world: &World, generation| world.scheduler.refusal(&generation);
    let is_refused = |generation| refusal(&world, generation).is_some();
    assert!(is_refused(generation(1, Vec::new(), 5)));
    assert!(is_refused(generation(1, vec![VOCAB], 5)));
    let long = refusal(&world, generation(1, prompt(0, 2_000), 1));
    let positions = 2_000;
    assert_eq!(
        long,
        Some(Refusal::TooLong {
            prompt: 2_000,
            positions
        })
    );
    let large = refusal(&world, generation(1, prompt(0, 300), 300));
    let needed = 5;
    assert_eq!(large, Some(Refusal::TooManyPages { needed, pages: 4 }));
    // 512 positions: the last token of an answer takes none.
    assert_eq!(refusal(&world, generation(1, prompt(0, 300), 213)), None);
    world.submit(1, generation(1, prompt(0, 30), 50));
    world.submit(2, generation(1, prompt(0, 30), 5));
    let full = refusal(&world, generation(1, prompt(0, 30), 5));
    assert_eq!(full, Some(Refusal::Full { waiting: 1 }));
    world.drain();
}

#[test]
fn a_full_queue_is_full_for_who_filled_it() {
    let few = Settings {
        waiting_max: 8,
        active_max: 1,
        ..settings()
    };
    let mut world = World::new(few, 1, 64);
    let of = |owner| generation(owner, prompt(0, 30), 5);
    let takes = |world: &World, owner| world.scheduler.refusal(&of(owner)).is_none();
    let mut next = 0;
    let mut fill = |world: &mut World, owner| {
        let before = next;
        while takes(world, owner) {
            next += 1;
            world.submit(next, of(owner));
            assert!(next < 100, "the queue has no bound");
        }
        next - before
    };
    // One runs, and alone an owner may have the whole queue.
    assert_eq!(fill(&mut world, 1), 1 + 8);
    // Its share is 8 / 3 as soon as it waits, and it may exceed it by the last one.
    assert_eq!(fill(&mut world, 2), 3);
    assert!(!takes(&world, 1));
    assert_eq!(fill(&mut world, 3), 3);
    assert_eq!(fill(&mut world, 4), 2);
    // Twice as many as is usual: now it is full for all.
    assert_eq!(
        world.scheduler.refusal(&of(5)),
        Some(Refusal::Full { waiting: 16 })
    );
    world.drain();
}

#[test]
fn a_pause_is_told_once_and_ends_with_the_next_token() {
    let mut world = World::new(settings(), 2, 64);
    world.submit(1, generation(1, prompt(0, 200), 30));
    for _ in 0..5 {
        world.step();
    }
    let before = world.seen[&1].tokens.len();
    assert!(before > 0);
    world.lose();
    assert!(world.seen[&1].is_paused);
    world.lose();
    world.up();
    // One prefill of prompt and answer, and the next token is there.
    world.step();
    assert_eq!(world.seen[&1].tokens.len(), before + 1);
    assert!(!world.seen[&1].is_paused);
    world.drain();
}

#[test]
fn a_stop_truncates_and_a_grammar_without_a_token_fails() {
    let mut world = World::new(settings(), 2, 64);
    world.submit(1, generation(1, prompt(0, 20), 100));
    for _ in 0..9 {
        world.step();
    }
    world.stop(1, 4);
    assert_eq!(world.seen[&1].answered.as_ref().map(Vec::len), Some(4));
    assert_eq!(world.seen[&1].finished.map(|f| f.0), Some(Finish::StopText));
    world.drain();
    let mut strict = generation(1, prompt(0, 20), 5);
    strict.spec.sampling.grammar = Some(concord_proto::serving::GrammarSpec::JsonObject);
    world.submit(2, strict);
    let nothing = Control::Allow {
        answer: 0,
        tokens: vec![0; 50],
    };
    world.apply(SchedulerEvent::Control {
        sequence: 2,
        control: nothing,
    });
    assert!(world.seen[&2].failed.is_some());
}
