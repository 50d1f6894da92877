//! The tokens of a pipeline are those of the whole model on one device.

use concord_kernels::Device;
use concord_kernels::ops::sample::{Candidates, RowSample, Sampling};
use concord_models::decoder::StageInput;
use concord_models::generate::Generator;
use concord_proto::F32Bits;
use concord_proto::serving::{
    Draw, DrawOrder, FromStage, Pass, SampleOrder, SamplingSpec, SequenceRun, ToStage,
};

use crate::model::{ServedModel, served};
use crate::pool::{Asked, Pool, Step, Wanted, sampling};

/// The answer of the whole model.
pub fn alone(model: &ServedModel, prompt: &[u32], spec: &SamplingSpec, tokens: usize) -> Vec<u32> {
    let device = Device::cpu(1);
    let stage = model.whole(&device);
    let sampling = Sampling {
        temperature: spec.temperature.get(),
        top_k: spec.top_k as usize,
        top_p: spec.top_p.get(),
        seed: spec.seed,
    };
    let mut generator = Generator::new(&stage, sampling).unwrap();
    let mut answer = vec![generator.next(prompt).unwrap()];
    while answer.len() < tokens {
        let last = answer[answer.len() - 1];
        answer.push(generator.next(&[last]).unwrap());
    }
    answer
}

/// Some token ids.
pub fn prompt(len: usize, vocab: u32) -> Vec<u32> {
    (0..len as u32).map(|i| (i * 37 + 11) % vocab).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_cut_gives_the_tokens_of_the_whole_model() {
    let Some(model) = served("tinystories-260k") else {
        return;
    };
    let prompt = prompt(150, model.deployment.vocab);
    let mut pool = Pool::start(&model, &[None, None, None]).await;
    let cuts: [&[u32]; 3] = [&[], &[2], &[1, 3]];
    for (epoch, cuts) in (1..).zip(cuts) {
        let mut pipeline = pool.serve(&pool.assignment(&model, cuts, epoch)).await;
        for seed in [None, Some(5)] {
            let spec = sampling(seed);
            let expected = alone(&model, &prompt, &spec, 20);
            let sequence = u64::from(epoch) * 10 + seed.unwrap_or_default();
            let answer = pipeline.answer(&Asked::new(sequence, &prompt, &spec)).await;
            assert_eq!(answer, expected, "cuts {cuts:?}, seed {seed:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sequences_in_one_pass_do_not_see_each_other() {
    let Some(model) = served("tinystories-260k") else {
        return;
    };
    let mut pool = Pool::start(&model, &[None, None]).await;
    let mut pipeline = pool.serve(&pool.assignment(&model, &[3], 1)).await;
    let all = prompt(140, model.deployment.vocab);
    let prompts = [&all[..3], &all[20..140], &all[7..50]];
    let pages: [&[u32]; 3] = [&[5], &[60, 1], &[33]];
    let specs = [sampling(None), sampling(Some(1)), sampling(Some(2))];
    let mut answers: [Vec<u32>; 3] = Default::default();
    let mut first = [0u32; 3];
    for round in 0..16 {
        let mut steps = Vec::new();
        for sequence in 0..3 {
            let tokens = match round {
                0 => prompts[sequence].to_vec(),
                _ => answers[sequence][round - 1..].to_vec(),
            };
            let end = first[sequence] as usize + tokens.len();
            let used = end.div_ceil(128);
            steps.push((sequence, tokens, &pages[sequence][..used]));
        }
        // Another order in each pass.
        steps.rotate_left(round % 3);
        let passes: Vec<Step<'_>> = steps
            .iter()
            .map(|(sequence, tokens, pages)| Step {
                sequence: *sequence as u64,
                first: first[*sequence],
                tokens,
                pages,
                adapter: None,
                sample: Some(SampleOrder::new(
                    &specs[*sequence],
                    &answers[*sequence],
                    None,
                )),
                wanted: Wanted::default(),
            })
            .collect();
        let drawn = pipeline.pass(&passes).await;
        for ((sequence, tokens, _), token) in steps.iter().zip(drawn) {
            answers[*sequence].push(token);
            first[*sequence] += tokens.len() as u32;
        }
    }
    for sequence in 0..3 {
        let expected = alone(&model, prompts[sequence], &specs[sequence], 16);
        assert_eq!(answers[sequence], expected, "sequence {sequence}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn passes_in_flight_keep_their_order() {
    let Some(model) = served("tinystories-260k") else {
        return;
    };
    let mut pool = Pool::start(&model, &[None, None]).await;
    let mut pipeline = pool.serve(&pool.assignment(&model, &[2], 1)).await;
    let all = prompt(40, model.deployment.vocab);
    let spec = sampling(None);
    let pages: Vec<[u32; 1]> = (0..40).map(|page| [page]).collect();
    // Forty sequences of one to forty tokens, all on their way before the first is asked for.
    for (sequence, pages) in pages.iter().enumerate() {
        pipeline.send(&[Step {
            sequence: sequence as u64,
            first: 0,
            tokens: &all[..=sequence],
            pages,
            adapter: None,
            sample: Some(SampleOrder::new(&spec, &[], None)),
            wanted: Wanted::default(),
        }]);
    }
    for sequence in 0..40 {
        let drawn = pipeline.result().await;
        let expected = alone(&model, &all[..=sequence], &spec, 1);
        assert_eq!(drawn[0].token.as_ref().unwrap().token, expected[0]);
        assert_eq!(pipeline.passed[sequence].pass, sequence as u64);
    }
    let mut sent = 0;
    while let Ok(FromStage::Passed(passed)) = pipeline.streams[0].from.try_recv() {
        let row = 4 * model.folder.config().hidden as u64;
        assert!(passed.bytes > u64::from(passed.rows) * row, "{passed:?}");
        sent += 1;
    }
    assert_eq!(sent, 40);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn logprobs_are_those_of_the_logits() {
    let Some(model) = served("tinystories-260k") else {
        return;
    };
    let mut pool = Pool::start(&model, &[None, None]).await;
    let mut pipeline = pool.serve(&pool.assignment(&model, &[2], 1)).await;
    // More rows than are scored at a time.
    let tokens = prompt(100, model.deployment.vocab);
    let run = SequenceRun {
        sequence: 1,
        first: 0,
        count: 100,
        pages: vec![3],
        adapter: None,
    };
    pipeline.streams[0].send(&ToStage::Pass(Pass {
        number: 0,
        runs: vec![run],
        tokens: tokens.clone(),
    }));
    let draw = Draw {
        run: 0,
        sample: Some(SampleOrder::new(&sampling(None), &[], None)),
        targets: tokens[1..].to_vec(),
        target_logprobs: 2,
        logprobs: Some(2),
    };
    let draws = vec![draw];
    pipeline.streams[1].send(&ToStage::Draws(DrawOrder { pass: 0, draws }));
    let drawn = pipeline.result().await.remove(0);

    let device = Device::cpu(1);
    let stage = model.whole(&device);
    let mut cache = stage.cache().unwrap();
    let hidden = stage
        .extend(&mut cache, &tokens, StageInput::Tokens)
        .unwrap();
    let logits = stage.logits(&hidden).unwrap();
    let token = device
        .sample_rows(&logits.rows(99, 1), &[greedy()])
        .unwrap()[0];
    let asked = tokens[1..].iter().chain([&token]).enumerate();
    let asked: Vec<(usize, u32, u8)> = asked.map(|(row, token)| (row, *token, 2)).collect();
    let expected = device.logprobs(&logits, &asked).unwrap();
    let mut found = drawn.scored;
    found.extend(drawn.token);
    assert_eq!(found.len(), 100);
    for ((found, expected), (_, token, _)) in found.iter().zip(expected).zip(asked) {
        assert_eq!(
            (found.token, found.logprob),
            (token, expected.target.into())
        );
        let top: Vec<(u32, F32Bits)> = expected.top.iter().map(|t| (t.0, t.1.into())).collect();
        assert_eq!(found.top, top);
    }
}

fn greedy() -> RowSample<'static> {
    RowSample {
        row: 0,
        sampling: Sampling {
            temperature: 0.0,
            top_k: 0,
            top_p: 1.0,
            seed: 0,
        },
        candidates: Candidates::default(),
        position: 100,
    }
}
