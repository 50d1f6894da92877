//! Any order of events: each answer is the one that the generation gives alone.

use concord_proto::Digest;
use concord_proto::serving::{Generation, GrammarSpec};
use proptest::prelude::*;

use super::model::{BREAKING, generation, mix};
use super::world::World;
use crate::Settings;

#[derive(Clone, Debug)]
enum Op {
    Submit(Box<Generation>),
    Step(u8),
    Claim,
    Allow,
    Lose,
    Up,
    Cancel(u8),
    Stop(u8, u8),
    Tick,
}

/// One of three texts, so that prompts share beginnings.
fn prompt(text: u8, length: u32, twist: bool) -> Vec<u32> {
    let token = |at: u32| (mix(u64::from(text), u64::from(at)) % 300) as u32;
    let mut tokens: Vec<u32> = (0..length).map(token).collect();
    if twist && let Some(last) = tokens.last_mut() {
        *last += 50;
    }
    tokens
}

prop_compose! {
    fn any_generation()(
        (owner, text, twist) in (0..3_u8, 0..3_u8, any::<bool>()),
        length in prop_oneof![1..130_u32, 1..400_u32],
        max_tokens in prop_oneof![1 => Just(0), 2 => 1..20_u32, 3 => 100..250_u32],
        (seed, adapter, penalty) in (0..5_u64, 0..6_u8, any::<bool>()),
        (logprobs, scored) in (proptest::option::of(0..3_u8), 0..6_u8),
        (grammar, stops, breaks) in (0..4_u8, 0..3_u8, 0..15_u8),
    ) -> Generation {
        let mut generation = generation(owner, prompt(text, length, twist), max_tokens);
        let spec = &mut generation.spec;
        spec.sampling.seed = seed;
        spec.adapter = (adapter < 2).then_some(Digest([adapter; 32]));
        if penalty {
            spec.sampling.frequency_penalty = 0.5.into();
        }
        spec.sampling.grammar = (grammar == 0).then_some(GrammarSpec::JsonObject);
        if stops == 0 {
            spec.stop_tokens = (0..20).collect();
        }
        if breaks == 0 {
            let at = spec.prompt.len() / 2;
            spec.prompt[at] = BREAKING;
        }
        spec.logprobs = logprobs;
        spec.prompt_logprobs = (scored < 2).then_some(scored);
        generation
    }
}

fn any_op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => any_generation().prop_map(|generation| Op::Submit(Box::new(generation))),
        20 => (1..90_u8).prop_map(Op::Step),
        12 => Just(Op::Claim),
        8 => Just(Op::Allow),
        1 => Just(Op::Lose),
        2 => Just(Op::Up),
        1 => any::<u8>().prop_map(Op::Cancel),
        1 => (any::<u8>(), 0..20_u8).prop_map(|(which, answer)| Op::Stop(which, answer)),
        1 => Just(Op::Tick),
    ]
}

fn run(world: &mut World, ops: Vec<Op>) {
    let mut next = 0;
    let which = |number: u8, count: u64| u64::from(number) % count.max(1);
    for op in ops {
        match op {
            Op::Submit(generation) => {
                if world.scheduler.refusal(&generation).is_none() {
                    world.submit(next, *generation);
                    next += 1;
                }
            }
            Op::Step(count) => {
                for _ in 0..count {
                    world.step();
                }
            }
            Op::Claim => _ = world.claim(),
            Op::Allow => _ = world.allow(),
            Op::Lose => world.lose(),
            Op::Up => world.up(),
            Op::Cancel(number) => world.cancel(which(number, next)),
            Op::Stop(number, answer) => world.stop(which(number, next), u32::from(answer)),
            Op::Tick => world.apply(crate::SchedulerEvent::Tick),
        }
    }
    world.drain();
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 300,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn every_answer_is_the_one_alone(
        ops in proptest::collection::vec(any_op(), 1..120),
        (stages, pages) in (1..4_u32, 5..10_u32),
        (rows_max, prefill_chunk) in (1..600_u32, 1..300_u32),
        (active_max, waiting_max) in (1..12_usize, 1..20_usize),
    ) {
        let settings = Settings {
            rows_max,
            prefill_chunk,
            active_max,
            waiting_max,
            ..Settings::new(super::model::VOCAB, 520)
        };
        run(&mut World::down(settings, stages, pages), ops);
    }
}
