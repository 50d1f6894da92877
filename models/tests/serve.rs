//! Passes over pages: each sequence has the bits that it has alone, whatever else is in the pass.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use concord_kernels::coded::Precision;
use concord_kernels::cpu::Cpu;
use concord_kernels::isa::Isa;
use concord_kernels::ops::{KvPages, PAGE_TOKENS, PagedRun};
use concord_kernels::rng::Philox;
use concord_kernels::{Device, KernelError, Tensor};
use concord_models::config::{DecoderConfig, Family, Projection, QkNorm};
use concord_models::decoder::{
    Batch, LoraSpec, PassInput, Precisions, Stage, StageAdapter, StageInput, StageOptions,
    StageRun, TensorSource,
};
use concord_models::golden::{MadeModel, tiny_experts, tiny_llama};
use concord_models::peft::Adapter;
use concord_models::weights::ModelFolder;

const POSITIONS: usize = 512;

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

fn made(config: DecoderConfig) -> MadeModel {
    MadeModel {
        config: Arc::new(config),
        seed: 11,
        reach: 0.25,
    }
}

fn loaded(
    device: &Device,
    config: &DecoderConfig,
    source: &dyn TensorSource,
    layers: Range<u32>,
    lora: Option<&(LoraSpec, BTreeMap<String, Tensor>)>,
) -> Stage {
    let options = StageOptions {
        device: device.clone(),
        layers: layers.into(),
        config: Arc::new(config.clone()),
        precisions: Precisions {
            weights: Precision::I16,
            activations: Precision::I16,
        },
        lora: lora.map(|(spec, _)| spec.clone()),
        trains_all: false,
        positions: POSITIONS,
    };
    let values = lora.map_or_else(BTreeMap::new, |(_, tensors)| tensors.clone());
    Stage::load(options, source, &values).unwrap()
}

/// An adapter of a rank on some projections, both factors random.
fn adapter(
    config: &DecoderConfig,
    rank: u32,
    targets: &[Projection],
) -> (LoraSpec, BTreeMap<String, Tensor>) {
    let tensors = Adapter::shapes(config, rank, targets)
        .into_iter()
        .enumerate();
    let tensors = tensors.map(|(index, (name, shape))| {
        let words = Philox::new(u64::from(rank), index as u64);
        let values = (0..(shape[0] * shape[1]) as u64).map(|i| words.unit(i) - 0.5);
        let value = Tensor::new(&shape, values.collect::<Vec<f32>>()).unwrap();
        (name, value)
    });
    let spec = LoraSpec {
        rank,
        scale: 0.75,
        targets: targets.iter().copied().collect(),
    };
    (spec, tensors.collect())
}

/// Rows of logits by their bits.
fn bits(logits: &Tensor) -> Vec<Vec<u32>> {
    let values = logits.values().unwrap();
    let rows = values.chunks(logits.rows_cols().1);
    rows.map(|row| row.iter().map(|v| v.to_bits()).collect())
        .collect()
}

/// Logits of every position of a sequence, at once and without pages.
fn alone(stage: &Stage, tokens: &[u32]) -> Vec<Vec<u32>> {
    let batch = Batch::whole(tokens.len(), tokens.to_vec());
    let (hidden, _) = stage.forward(&batch, StageInput::Tokens).unwrap();
    bits(&stage.logits(&hidden).unwrap())
}

/// Random numbers below a bound.
struct Dice(Philox, u64);

impl Dice {
    fn new(seed: u64) -> Self {
        Self(Philox::new(seed, 0), 0)
    }

    fn below(&mut self, bound: usize) -> usize {
        self.1 += 1;
        self.0.words(self.1)[0] as usize % bound
    }

    fn tokens(&mut self, count: usize, vocab: usize) -> Vec<u32> {
        (0..count).map(|_| self.below(vocab) as u32).collect()
    }

    fn shuffled(&mut self, count: u32) -> Vec<u32> {
        let mut numbers: Vec<u32> = (0..count).collect();
        for i in (1..numbers.len()).rev() {
            numbers.swap(i, self.below(i + 1));
        }
        numbers
    }
}

/// A sequence that is served, and its results.
struct Served {
    tokens: Vec<u32>,
    pages: Vec<u32>,
    /// Which adapter.
    adapter: Option<usize>,
    done: usize,
    logits: Vec<Vec<u32>>,
}

/// Stages of one model, one after another, and their pages.
struct Pipeline {
    stages: Vec<Stage>,
    pages: Vec<KvPages>,
    adapters: Vec<Vec<StageAdapter>>,
}

impl Pipeline {
    fn new(
        stages: Vec<Stage>,
        pages: u32,
        adapters: &[(LoraSpec, BTreeMap<String, Tensor>)],
    ) -> Self {
        let load = |stage: &Stage| {
            let one = |(spec, tensors): &(LoraSpec, _)| StageAdapter::load(stage, spec, tensors);
            adapters.iter().map(|a| one(a).unwrap()).collect()
        };
        Self {
            pages: stages.iter().map(|s| s.kv_pages(pages).unwrap()).collect(),
            adapters: stages.iter().map(load).collect(),
            stages,
        }
    }

    /// Puts the next tokens of some sequences through: (sequence, how many).
    fn pass(&mut self, all: &mut [Served], mut chosen: Vec<(usize, usize)>) {
        chosen.sort_by_key(|(s, _)| (all[*s].adapter, *s));
        let next = |(s, count): &(usize, usize)| all[*s].done..all[*s].done + count;
        let tokens: Vec<u32> = chosen
            .iter()
            .flat_map(|one| all[one.0].tokens[next(one)].to_vec())
            .collect();
        let mut hidden = None;
        for (at, stage) in self.stages.iter().enumerate() {
            let runs: Vec<StageRun<'_>> = chosen
                .iter()
                .map(|&(s, count)| StageRun {
                    run: PagedRun {
                        pages: &all[s].pages,
                        first: all[s].done,
                        count,
                    },
                    adapter: all[s].adapter.map(|a| &self.adapters[at][a]),
                })
                .collect();
            let input = match hidden {
                None => PassInput::Tokens(&tokens),
                Some(hidden) => PassInput::Hidden(hidden),
            };
            let out = stage.pass(&mut self.pages[at], &runs, input).unwrap();
            assert_eq!(out.broken, [0; 0]);
            hidden = Some(out.hidden);
        }
        let last = &self.stages[self.stages.len() - 1];
        let mut rows = bits(&last.logits(&hidden.unwrap()).unwrap()).into_iter();
        for (s, count) in chosen {
            all[s].logits.extend(rows.by_ref().take(count));
            all[s].done += count;
        }
    }
}

/// Sequences of `lengths` in pages of a shuffled pool, with no adapter and with each in turns.
fn sequences(
    dice: &mut Dice,
    lengths: &[usize],
    vocab: usize,
    adapters: usize,
) -> (Vec<Served>, u32) {
    let needed = |len: usize| len.div_ceil(PAGE_TOKENS);
    let count = lengths.iter().map(|&len| needed(len)).sum::<usize>() as u32 + 3;
    let mut pool = dice.shuffled(count);
    let all = lengths.iter().enumerate().map(|(i, &len)| Served {
        tokens: dice.tokens(len, vocab),
        pages: pool.split_off(pool.len() - needed(len)),
        adapter: (i % (adapters + 1)).checked_sub(1),
        done: 0,
        logits: Vec::new(),
    });
    (all.collect(), count)
}

/// Random chunks of random sequences until all are through.
fn interleave(dice: &mut Dice, pipeline: &mut Pipeline, all: &mut [Served]) {
    loop {
        let mut chosen = Vec::new();
        for (s, one) in all.iter().enumerate() {
            let left = one.tokens.len() - one.done;
            if left > 0 && dice.below(3) > 0 {
                let most = [1, 1, 7, 64, 150][dice.below(5)];
                chosen.push((s, most.min(left)));
            }
        }
        if !chosen.is_empty() {
            pipeline.pass(all, chosen);
        }
        if all.iter().all(|one| one.done == one.tokens.len()) {
            return;
        }
    }
}

/// Many sequences of three kinds in random passes, in one stage and in two, against each alone.
fn interleaved_is_alone(device: &Device, config: &DecoderConfig, lengths: &[usize], seed: u64) {
    let model = made(config.clone());
    let adapters = [
        adapter(config, 3, &Projection::ALL),
        adapter(config, 5, &[Projection::Q, Projection::V, Projection::Down]),
    ];
    let reference = Device::cpu(1);
    let whole = |lora| loaded(&reference, config, &model, 0..2, lora);
    let expected = [
        whole(None),
        whole(Some(&adapters[0])),
        whole(Some(&adapters[1])),
    ];
    for cuts in [&[0, 2][..], &[0, 1, 2]] {
        let mut dice = Dice::new(seed);
        let (mut all, count) = sequences(&mut dice, lengths, config.vocab, adapters.len());
        let stage = |cut: &[u32]| loaded(device, config, &model, cut[0]..cut[1], None);
        let stages = cuts.windows(2).map(stage).collect();
        let mut pipeline = Pipeline::new(stages, count, &adapters);
        interleave(&mut dice, &mut pipeline, &mut all);
        for (i, one) in all.iter().enumerate() {
            let stage = &expected[one.adapter.map_or(0, |a| a + 1)];
            let name = device.name();
            assert!(
                one.logits == alone(stage, &one.tokens),
                "sequence {i} with adapter {:?} in stages {cuts:?} on {name}, seed {seed}",
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
                interleaved_is_alone(&device, &config, &lengths, seed);
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
        interleaved_is_alone(&device, &with_all_parts(), &[3, 131, 20, 1], 5);
        interleaved_is_alone(&device, &tiny_experts(), &[3, 131, 20, 1], 5);
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
        let expected = alone(
            &loaded(&device, &config, &folder, layers.clone(), None),
            &tokens,
        );
        for chunk in [1, 7, 64, 150] {
            let stage = loaded(&device, &config, &folder, layers.clone(), None);
            let mut pipeline = Pipeline::new(vec![stage], 4, &[]);
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
            assert!(all[0].logits == expected, "{name} in chunks of {chunk}");
        }
    }
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
