//! Passes over pages: each sequence has the bits that it has alone, whatever else is in the pass.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use concord_kernels::coded::Precision;
use concord_kernels::cpu::Cpu;
use concord_kernels::isa::Isa;
use concord_kernels::ops::{PAGE_TOKENS, PagedRun};
use concord_kernels::{Device, KernelError, Tensor};
use concord_models::config::{DecoderConfig, Family, Projection, QkNorm};
use concord_models::decoder::{PassInput, Stage, StageAdapter, StageInput, StageRun, TensorSource};
use concord_models::golden::{tiny_experts, tiny_llama};
use concord_models::peft::Adapter;
use concord_models::weights::ModelFolder;

mod pipeline;

use pipeline::{
    Dice, Pipeline, Served, adapter, alone, bits, interleave, loaded, loaded_with, made, sequences,
};

/// Every part that a decoder may have and `tiny_llama` lacks; a window in one layer.
fn with_all_parts() -> DecoderConfig {
    DecoderConfig {
        family: Family::Qwen3,
        sliding_window: vec![Some(20), None],
        qkv_bias: true,
        o_bias: true,
        mlp_bias: true,
        qk_norm: Some(QkNorm::Heads),
        tie_embeddings: true,
        ..tiny_llama()
    }
}

/// Many sequences of three kinds in random passes, in one stage and in two, against each alone.
fn interleaved_is_alone(
    device: &Device,
    (config, key_values): (&DecoderConfig, Precision),
    lengths: &[usize],
    seed: u64,
) {
    let model = made(config.clone());
    let adapters = [
        adapter(config, 3, &Projection::ALL),
        adapter(config, 5, &[Projection::Q, Projection::V, Projection::Down]),
    ];
    let reference = Device::cpu(1);
    let whole = |lora| loaded_with(&reference, (config, &model), 0..2, lora, key_values);
    let expected = [
        whole(None),
        whole(Some(&adapters[0])),
        whole(Some(&adapters[1])),
    ];
    for cuts in [&[0, 2][..], &[0, 1, 2]] {
        let mut dice = Dice::new(seed);
        let (mut all, count) = sequences(&mut dice, lengths, config.vocab, adapters.len());
        let stage = |cut: &[u32]| {
            let layers = cut[0]..cut[1];
            loaded_with(device, (config, &model), layers, None, key_values)
        };
        let stages = cuts.windows(2).map(stage).collect();
        let mut pipeline = Pipeline::new(stages, count, &adapters);
        interleave(&mut dice, &mut pipeline, &mut all);
        for (i, one) in all.iter().enumerate() {
            let stage = &expected[one.adapter.map_or(0, |a| a + 1)];
            let name = device.name();
            assert!(
                one.logits == alone(stage, &one.tokens),
                "sequence {i} with adapter {:?} in stages {cuts:?} on {name}, seed {seed}, keys \
                 and values of {key_values:?}",
                one.adapter
            );
        }
    }
}

#[test]
fn sequences_in_random_passes_are_what_each_is_alone() {
    let available = Isa::ALL.into_iter().filter(|isa| isa.is_available());
    for (seed, isa) in (0..).zip(available) {
        for threads in [1, 2] {
            let device = Device::Cpu(Cpu::new(isa, threads));
            for config in [tiny_llama(), tiny_experts(), with_all_parts()] {
                let lengths = [1, 40, 130, 257, 9, 3, 128];
                for key_values in [Precision::I16, Precision::I8] {
                    interleaved_is_alone(&device, (&config, key_values), &lengths, seed);
                }
            }
        }
    }
}

#[cfg(feature = "emulator")]
#[test]
fn sequences_on_an_emulated_gpu_are_what_each_is_alone() {
    use concord_kernels::cuda::emulator::{EmulatorOptions, Turns};
    use concord_kernels::cuda::{Arch, Cuda};
    for arch in [61, 80] {
        let device = Device::Cuda(Cuda::emulated(EmulatorOptions {
            arch: Arch(arch),
            turns: Turns::Shuffled(u64::from(arch)),
            ..EmulatorOptions::default()
        }));
        let lengths = [3, 131, 20, 1];
        for config in [with_all_parts(), tiny_experts()] {
            for key_values in [Precision::I16, Precision::I8] {
                interleaved_is_alone(&device, (&config, key_values), &lengths, 5);
            }
        }
    }
}

fn shared() -> Option<PathBuf> {
    let default = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared");
    let shared = std::env::var_os("CONCORD_SHARED").map_or(default, PathBuf::from);
    if shared.join("models").is_dir() {
        return Some(shared);
    }
    println!("skipped: no models at {shared:?} (set CONCORD_SHARED)");
    None
}

/// Decode = prefill = chunks of 7, of 64 and all at once, on real families.
#[test]
fn every_cut_of_a_prompt_has_the_same_bits() {
    let Some(shared) = shared() else { return };
    for name in "tinystories-260k tiny-qwen2 tiny-qwen3 tiny-mistral tiny-llama31".split(' ') {
        let folder = ModelFolder::open(&shared.join("models").join(name)).unwrap();
        let config = folder.config().clone();
        let layers = 0..config.layers as u32;
        let device = Device::cpu(2);
        let tokens = Dice::new(3).tokens(150, config.vocab);
        for key_values in [Precision::I16, Precision::I8] {
            let stage = || {
                let model = (&config, &folder as &dyn TensorSource);
                loaded_with(&device, model, layers.clone(), None, key_values)
            };
            let expected = alone(&stage(), &tokens);
            let what = format!("{name}, keys and values of {key_values:?}");
            for chunk in [1, 7, 64, 150] {
                let mut pipeline = Pipeline::new(vec![stage()], 4, &[]);
                let mut all = [Served {
                    tokens: tokens.clone(),
                    pages: vec![3, 1],
                    adapter: None,
                    done: 0,
                    logits: Vec::new(),
                }];
                while all[0].done < tokens.len() {
                    let count = chunk.min(tokens.len() - all[0].done);
                    pipeline.pass(&mut all, vec![(0, count)]);
                }
                assert!(all[0].logits == expected, "{what}, in chunks of {chunk}");
                let cached = in_a_cache(&stage(), &tokens, chunk);
                assert!(cached == expected, "{what}, cached in chunks of {chunk}");
            }
        }
    }
}

/// Logits of every position of a sequence that grows in a cache by chunks.
fn in_a_cache(stage: &Stage, tokens: &[u32], chunk: usize) -> Vec<Vec<u32>> {
    let mut cache = stage.cache().unwrap();
    let mut logits = Vec::new();
    for tokens in tokens.chunks(chunk) {
        let hidden = stage.extend(&mut cache, tokens, StageInput::Tokens);
        logits.extend(bits(&stage.logits(&hidden.unwrap()).unwrap()));
    }
    logits
}

/// Fewer bits of keys and values change results, a little: what is stated for a relative error of
/// the logits is what it is on a model that has learnt something.
#[test]
fn keys_and_values_of_8_bits_are_close() {
    let Some(shared) = shared() else { return };
    let folder = ModelFolder::open(&shared.join("models/tinystories-260k")).unwrap();
    let config = folder.config().clone();
    let tokens = Dice::new(3).tokens(200, config.vocab);
    let logits = |key_values| {
        let layers = 0..config.layers as u32;
        let model = (&config, &folder as &dyn TensorSource);
        let stage = loaded_with(&Device::cpu(2), model, layers, None, key_values);
        alone(&stage, &tokens)
            .concat()
            .into_iter()
            .map(f32::from_bits)
    };
    let (mut error, mut norm) = (0.0, 0.0);
    for (got, exact) in logits(Precision::I8).zip(logits(Precision::I16)) {
        error += f64::from(got - exact).powi(2);
        norm += f64::from(exact).powi(2);
    }
    let relative = (error / norm).sqrt();
    println!("relative error of the logits: {relative:.1e}");
    assert!((1e-5..2e-2).contains(&relative), "{relative:e}");
}

/// Two sequences with a first page in common: the second starts behind it.
#[test]
fn a_shared_prefix_is_computed_once() {
    let config = with_all_parts();
    let stage = loaded(&Device::cpu(2), &config, &made(config.clone()), 0..2, None);
    let mut dice = Dice::new(8);
    let mut pipeline = Pipeline::new(vec![stage], 3, &[]);
    let prefix = dice.tokens(PAGE_TOKENS, config.vocab);
    let mut all: Vec<Served> = [vec![2, 0], vec![2, 1]]
        .into_iter()
        .map(|pages| Served {
            tokens: [prefix.clone(), dice.tokens(30, config.vocab)].concat(),
            pages,
            adapter: None,
            done: 0,
            logits: Vec::new(),
        })
        .collect();
    pipeline.pass(&mut all, vec![(0, PAGE_TOKENS)]);
    all[1].done = PAGE_TOKENS;
    for _ in 0..6 {
        pipeline.pass(&mut all, vec![(0, 5), (1, 5)]);
    }
    let last = |one: &Served| alone(&pipeline.stages[0], &one.tokens).split_off(PAGE_TOKENS);
    assert!(all[0].logits[PAGE_TOKENS..] == last(&all[0]));
    assert!(all[1].logits == last(&all[1]));
}

#[test]
fn a_run_that_is_not_finite_harms_no_other() {
    let config = with_all_parts();
    let model = made(config.clone());
    let stage = loaded(&Device::cpu(2), &config, &model, 1..2, None);
    let d = config.hidden;
    let mut dice = Dice::new(4);
    let values: Vec<f32> = (0..6 * d)
        .map(|_| dice.below(1_000) as f32 / 500.0 - 1.0)
        .collect();
    let runs: Vec<StageRun<'_>> = [&[0][..], &[1], &[2]]
        .into_iter()
        .map(|pages| StageRun {
            run: PagedRun {
                pages,
                first: 0,
                count: 2,
            },
            adapter: None,
        })
        .collect();
    let pass = |values: Vec<f32>, runs: &[StageRun<'_>]| {
        let hidden = Tensor::new(&[values.len() / d, d], values).unwrap();
        let mut pages = stage.kv_pages(3).unwrap();
        stage
            .pass(&mut pages, runs, PassInput::Hidden(hidden))
            .unwrap()
    };
    let expected = pass(values.clone(), &runs);
    assert_eq!(expected.broken, [0; 0]);
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut values = values.clone();
        values[2 * d + 5] = bad;
        let got = pass(values, &runs);
        assert_eq!(got.broken, [1], "{bad}");
        let (got, expected) = (bits(&got.hidden), bits(&expected.hidden));
        assert_eq!(got[..2], expected[..2]);
        assert_eq!(got[2..4], vec![vec![0; d]; 2]);
        assert_eq!(got[4..], expected[4..]);
    }
}

#[test]
fn what_does_not_fit_is_refused_by_name() {
    let config = tiny_llama();
    let model = made(config.clone());
    let stage = loaded(&Device::cpu(1), &config, &model, 0..2, None);
    let last = loaded(&Device::cpu(1), &config, &model, 1..2, None);
    let refused = |stage: &Stage, (pages, first, count), input: PassInput<'_>| {
        let mut all = stage.kv_pages(4).unwrap();
        let run = PagedRun {
            pages,
            first,
            count,
        };
        let runs = [StageRun { run, adapter: None }];
        match stage.pass(&mut all, &runs, input) {
            Err(KernelError::DoesNotFit(reason)) => reason,
            other => panic!("{other:?}"),
        }
    };
    let tokens = |ids| PassInput::Tokens(ids);
    let hidden = |rows: usize, cols: usize| PassInput::Hidden(Tensor::zeros(&[rows, cols]));
    let cases = [
        (refused(&stage, (&[4], 0, 1), tokens(&[1])), "page 4"),
        (refused(&stage, (&[], 0, 1), tokens(&[1])), "too few pages"),
        (
            refused(&stage, (&[0], 127, 2), tokens(&[1, 2])),
            "too few pages",
        ),
        (
            refused(&stage, (&[0, 1], 128, 1), tokens(&[1])),
            "before it is written",
        ),
        (refused(&stage, (&[0], 0, 1), tokens(&[67])), "token 67"),
        (refused(&stage, (&[0], 0, 2), tokens(&[1])), "1 token ids"),
        (refused(&stage, (&[0], 0, 0), tokens(&[])), "0 tokens"),
        (
            refused(&stage, (&[0; 9], 600, 1), tokens(&[1])),
            "512 positions",
        ),
        (
            refused(&stage, (&[0], usize::MAX, 1), tokens(&[1])),
            "512 positions",
        ),
        (refused(&last, (&[0], 0, 1), tokens(&[1])), "not the first"),
        (refused(&last, (&[0], 0, 1), hidden(2, 40)), "hidden states"),
        (refused(&last, (&[0], 0, 1), hidden(1, 41)), "hidden states"),
    ];
    for (got, expected) in cases {
        assert!(got.contains(expected), "{got:?} lacks {expected:?}");
    }
    let mut others = last.kv_pages(4).unwrap();
    let none = stage.pass(&mut others, &[], PassInput::Tokens(&[]));
    assert!(matches!(none, Err(KernelError::DoesNotFit(_))), "{none:?}");
}

#[test]
fn factors_of_another_shape_are_refused() {
    let config = tiny_llama();
    let stage = loaded(&Device::cpu(1), &config, &made(config.clone()), 0..2, None);
    let (spec, mut tensors) = adapter(&config, 3, &[Projection::Q]);
    let name = Adapter::key_b(&config, 1, Projection::Q);
    tensors.insert(name.clone(), Tensor::zeros(&[40, 4]));
    let refused = |tensors: &BTreeMap<String, Tensor>| {
        let error = StageAdapter::load(&stage, &spec, tensors).unwrap_err();
        assert!(error.to_string().contains(&name), "{error}");
    };
    refused(&tensors);
    tensors.insert(
        name.clone(),
        Tensor::new(&[40, 3], vec![f32::NAN; 120]).unwrap(),
    );
    refused(&tensors);
}
