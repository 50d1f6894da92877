use std::sync::atomic::AtomicU32;

use concord_proto::F32Bits;
use concord_proto::serving::{DeploymentId, GenerationSpec, SamplingSpec};
use concord_scheduler::{Scheduler, Settings};

use super::*;

fn generation(first: u32) -> Generation {
    let zero = F32Bits::from(0.0);
    let spec = GenerationSpec {
        deployment: DeploymentId(Digest([1; 32])),
        adapter: None,
        prompt: vec![first, 2, 3],
        sampling: SamplingSpec {
            temperature: zero,
            top_k: 0,
            top_p: zero,
            seed: 0,
            frequency_penalty: zero,
            presence_penalty: zero,
            logit_bias: Vec::new(),
            grammar: None,
        },
        max_tokens: 2,
        stop_tokens: Vec::new(),
        stop_texts: Vec::new(),
        readings: Vec::new(),
        logprobs: None,
        prompt_logprobs: None,
    };
    Generation {
        id: "cmpl-1".to_string(),
        model: "made-up".to_string(),
        owner: Digest([2; 32]),
        spec,
        body: Digest([3; 32]),
    }
}

fn submission(chosen: &Chosen, generation: Generation) -> RoutedGeneration {
    let home = Arc::new(AtomicU32::new(chosen.index));
    RoutedGeneration {
        sequence: 1,
        answer: AnswerUnderWay::new(generation, home, 2).0,
        answered: Vec::new(),
        allowed: None,
    }
}

/// A router to `count` running pipelines whose tasks are not there, with room for one input each.
fn router(count: u32) -> (Router, Vec<mpsc::Receiver<PipelineInput>>) {
    let router = Router::new();
    let inputs = Mutex::new(Vec::new());
    router.started(count - 1, |_| {
        let (to, waiting) = mpsc::channel(1);
        inputs.lock().unwrap().push(waiting);
        let state = PipelineState::new(Scheduler::new(Settings::new(10, 64)));
        state.lock().standing = Standing::Running;
        Route {
            inputs: to,
            state: Arc::new(state),
        }
    });
    (router, inputs.into_inner().unwrap())
}

fn on_their_way(router: &Router) -> Vec<u32> {
    let routes = router.routes();
    let counts = routes
        .all
        .iter()
        .map(|route| route.state.arrivals().count());
    counts.collect()
}

#[test]
fn a_generation_counts_as_on_its_way_until_it_arrives_or_is_given_up() {
    let (router, mut inputs) = router(1);
    let choose = || router.choose(&generation(1), None).unwrap();

    // Given up before it was handed over, as where the scheduler refuses it.
    let chosen = choose();
    assert_eq!(on_their_way(&router), [1]);
    drop(chosen);
    assert_eq!(on_their_way(&router), [0]);

    // Handed over: it counts until the pipeline has taken it in.
    let chosen = choose();
    let submitted = submission(&chosen, generation(1));
    assert!(chosen.hand_over(submitted).is_ok());
    assert_eq!(on_their_way(&router), [1]);

    // Given back by a pipeline that takes nothing more.
    let chosen = choose();
    let submitted = submission(&chosen, generation(1));
    assert_eq!(on_their_way(&router), [2]);
    assert!(chosen.hand_over(submitted).is_err());
    assert_eq!(on_their_way(&router), [1]);

    drop(inputs[0].try_recv().unwrap());
    assert_eq!(on_their_way(&router), [0]);

    // Lost with a pipeline that ends before it takes it in.
    let chosen = choose();
    let submitted = submission(&chosen, generation(1));
    assert!(chosen.hand_over(submitted).is_ok());
    drop(inputs);
    assert_eq!(on_their_way(&router), [0]);
    let chosen = choose();
    let submitted = submission(&chosen, generation(1));
    assert!(chosen.hand_over(submitted).is_err());
    assert_eq!(on_their_way(&router), [0]);
}

#[test]
fn those_on_their_way_count_when_a_pipeline_is_chosen() {
    let (router, _inputs) = router(2);
    // Prompts that no pipeline knows go to the one that has less to do.
    let all: Vec<Chosen> = (0..6)
        .map(|first| router.choose(&generation(first), None).unwrap())
        .collect();
    assert_eq!(on_their_way(&router), [3, 3]);
    // A known prompt goes to the pipeline that knows it, or to another one if that one is excluded.
    let known = router.choose(&generation(4), None).unwrap();
    assert_eq!(known.index, all[4].index);
    let moved = router.choose(&generation(4), Some(known.index)).unwrap();
    assert_ne!(moved.index, known.index);
    assert!(router.choose(&generation(4), Some(0)).is_some());
    drop(all);
    assert_eq!(on_their_way(&router).iter().sum::<u32>(), 2);
}

#[test]
fn nothing_is_reached_after_the_end() {
    let (router, _inputs) = router(2);
    assert_eq!(router.stop().len(), 2);
    assert!(router.choose(&generation(1), None).is_none());
    let unstarted = |_| -> Route { panic!("a pipeline is started after the end") };
    assert!(router.started(0, unstarted).is_none());
    let input = PipelineInput::Checked { sequence: 1 };
    assert!(router.try_send(0, input).is_err());
}
