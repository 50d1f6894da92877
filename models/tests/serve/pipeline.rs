//! Sequences that go through stages in passes.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use concord_kernels::coded::Precision;
use concord_kernels::ops::{KvPages, PAGE_TOKENS, PagedRun};
use concord_kernels::rng::Philox;
use concord_kernels::{Device, Tensor};
use concord_models::config::{DecoderConfig, Projection};
use concord_models::decoder::{
    Batch, LoraSpec, PassInput, Precisions, Stage, StageAdapter, StageInput, StageOptions,
    StageRun, TensorSource,
};
use concord_models::golden::MadeModel;
use concord_models::peft::Adapter;

const POSITIONS: usize = 512;

pub fn made(config: DecoderConfig) -> MadeModel {
    MadeModel {
        config: Arc::new(config),
        seed: 11,
        reach: 0.25,
    }
}

pub fn loaded(
    device: &Device,
    config: &DecoderConfig,
    source: &dyn TensorSource,
    layers: Range<u32>,
    lora: Option<&(LoraSpec, BTreeMap<String, Tensor>)>,
) -> Stage {
    loaded_with(device, (config, source), layers, lora, Precision::I16)
}

/// A stage with keys and values of some bits.
pub fn loaded_with(
    device: &Device,
    (config, source): (&DecoderConfig, &dyn TensorSource),
    layers: Range<u32>,
    lora: Option<&(LoraSpec, BTreeMap<String, Tensor>)>,
    key_values: Precision,
) -> Stage {
    let options = StageOptions {
        device: device.clone(),
        layers: layers.into(),
        config: Arc::new(config.clone()),
        precisions: Precisions {
            weights: Precision::I16,
            activations: Precision::I16,
            key_values,
        },
        lora: lora.map(|(spec, _)| spec.clone()),
        trains_all: false,
        positions: POSITIONS,
    };
    let values = lora.map_or_else(BTreeMap::new, |(_, tensors)| tensors.clone());
    Stage::load(options, source, &values).unwrap()
}

/// An adapter of a rank on some projections, both factors random.
pub fn adapter(
    config: &DecoderConfig,
    rank: u32,
    targets: &[Projection],
) -> (LoraSpec, BTreeMap<String, Tensor>) {
    let spec = LoraSpec::uniform(rank, 0.75 * rank as f32, targets.iter().copied());
    let tensors = Adapter::shapes(config, &spec).into_iter().enumerate();
    let tensors = tensors.map(|(index, (name, shape))| {
        let words = Philox::new(u64::from(rank), index as u64);
        let values = (0..(shape[0] * shape[1]) as u64).map(|i| words.unit(i) - 0.5);
        let value = Tensor::new(&shape, values.collect::<Vec<f32>>()).unwrap();
        (name, value)
    });
    (spec, tensors.collect())
}

/// Rows of logits by their bits.
pub fn bits(logits: &Tensor) -> Vec<Vec<u32>> {
    let values = logits.values().unwrap();
    let rows = values.chunks(logits.rows_cols().1);
    rows.map(|row| row.iter().map(|v| v.to_bits()).collect())
        .collect()
}

/// Logits of every position of a sequence, at once and without pages.
pub fn alone(stage: &Stage, tokens: &[u32]) -> Vec<Vec<u32>> {
    let batch = Batch::whole(tokens.len(), tokens.to_vec());
    let (hidden, _) = stage.forward(&batch, StageInput::Tokens).unwrap();
    bits(&stage.logits(&hidden).unwrap())
}

/// Random numbers below a bound.
pub struct Dice(Philox, u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(Philox::new(seed, 0), 0)
    }

    pub fn below(&mut self, bound: usize) -> usize {
        self.1 += 1;
        self.0.words(self.1)[0] as usize % bound
    }

    pub fn tokens(&mut self, count: usize, vocab: usize) -> Vec<u32> {
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
pub struct Served {
    pub tokens: Vec<u32>,
    pub pages: Vec<u32>,
    /// Which adapter.
    pub adapter: Option<usize>,
    pub done: usize,
    pub logits: Vec<Vec<u32>>,
}

/// Stages of one model, one after another, and their pages.
pub struct Pipeline {
    pub stages: Vec<Stage>,
    pages: Vec<KvPages>,
    adapters: Vec<Vec<StageAdapter>>,
}

impl Pipeline {
    pub fn new(
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
    pub fn pass(&mut self, all: &mut [Served], mut chosen: Vec<(usize, usize)>) {
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
pub fn sequences(
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
pub fn interleave(dice: &mut Dice, pipeline: &mut Pipeline, all: &mut [Served]) {
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
