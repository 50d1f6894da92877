//! A layer whose experts lie on several stages: the bits of one stage, wherever it is cut.

use std::collections::BTreeMap;
use std::sync::Arc;

use concord_kernels::coded::Precision;
use concord_kernels::ops::PagedRun;
use concord_kernels::{Device, Tensor};
use concord_models::config::{Cut, DecoderConfig, Span};
use concord_models::decoder::{
    Batch, Gradients, LoraSpec, PassInput, Precisions, Stage, StageAdapter, StageInput,
    StageOptions, StageRun,
};
use concord_models::golden::{MadeModel, tiny_experts};
use concord_models::peft::Adapter;

const LENGTH: usize = 40;
const SEQUENCES: usize = 2;

/// Two layers of five experts and one that all tokens share.
fn config() -> DecoderConfig {
    let mut config = tiny_experts();
    if let Some(experts) = &mut config.experts {
        experts.dense_layers.clear();
    }
    config.residual_multiplier = Some(0.75);
    config
}

fn cut(layer: u32, expert: u32) -> Cut {
    Cut { layer, expert }
}

/// Where the model of [`config`] is cut: nowhere, before a layer, within one, in one several times,
/// in both, between any two experts.
fn ways() -> Vec<Vec<Cut>> {
    let everywhere = (0..10).map(|at| cut(at / 5, at % 5)).skip(1);
    vec![
        vec![],
        vec![cut(1, 0)],
        vec![cut(0, 3)],
        vec![cut(0, 1), cut(0, 2), cut(1, 4)],
        vec![cut(0, 4), cut(1, 1)],
        everywhere.collect(),
    ]
}

fn spans(cuts: &[Cut]) -> Vec<Span> {
    let mut ends = vec![cut(0, 0)];
    ends.extend(cuts);
    ends.push(cut(2, 0));
    let span = |ends: &[Cut]| Span {
        start: ends[0],
        end: ends[1],
    };
    ends.windows(2).map(span).collect()
}

fn factors(config: &DecoderConfig) -> BTreeMap<String, Tensor> {
    let factors = Adapter::shapes(config, &spec(config)).into_iter();
    let factors = factors.enumerate().map(|(index, (name, shape))| {
        let value = |i: usize| ((i * 7 + index * 13) % 23) as f32 / 40.0 - 0.25;
        let values: Vec<f32> = (0..shape[0] * shape[1]).map(value).collect();
        (name, Tensor::new(&shape, values).unwrap())
    });
    factors.collect()
}

fn spec(config: &DecoderConfig) -> LoraSpec {
    LoraSpec::uniform(2, 1.5, config.projections())
}

fn try_stage(device: &Device, layers: Span, lora: Option<bool>) -> Result<Stage, String> {
    let config = Arc::new(config());
    let model = MadeModel {
        config: Arc::clone(&config),
        seed: 3,
        reach: 0.3,
    };
    let options = StageOptions {
        device: device.clone(),
        layers,
        precisions: Precisions {
            weights: Precision::I16,
            activations: Precision::I16,
            key_values: Precision::I16,
        },
        lora: (lora == Some(true)).then(|| spec(&config)),
        trains_all: lora == Some(false),
        positions: LENGTH,
        config: Arc::clone(&config),
    };
    Stage::load(options, &model, &factors(&config)).map_err(|error| error.to_string())
}

fn stage(device: &Device, layers: Span, lora: Option<bool>) -> Stage {
    try_stage(device, layers, lora).unwrap()
}

fn tokens() -> Vec<u32> {
    let token = |at: usize| ((at * at * 31 + at * 7) % 67) as u32;
    (0..SEQUENCES * LENGTH).map(token).collect()
}

/// Loss and gradients of a microbatch through `stages`, by their bits.
fn trained(stages: &[Stage]) -> (u32, BTreeMap<String, Vec<u32>>) {
    let tokens = tokens();
    let mut batch = Batch::whole(LENGTH, tokens);
    // Without an adapter nothing is dropped.
    batch.regularization.lora_dropout = 0.25;
    batch.regularization.embedding_noise = 3.0;
    let (mut input, mut tapes) = (StageInput::Tokens, Vec::new());
    let mut hidden = Tensor::zeros(&[0]);
    for stage in stages {
        let (output, tape) = stage.forward(&batch, input).unwrap();
        tapes.push(tape);
        hidden = output;
        input = StageInput::Hidden(hidden.clone());
    }
    let mut found = BTreeMap::new();
    let last = stages.last().unwrap();
    let mut gradients = Gradients::default();
    let loss = last.loss(&batch, &hidden, &mut gradients).unwrap();
    let mut back = Some(loss.d_hidden);
    for (stage, tape) in stages.iter().zip(&tapes).rev() {
        let d_output = back.take().unwrap();
        back = stage
            .backward(&batch, tape, d_output, &mut gradients)
            .unwrap();
        for (key, gradient) in std::mem::take(&mut gradients).0 {
            let values = gradient.values().unwrap();
            let bits = values.iter().map(|value| value.to_bits()).collect();
            assert!(found.insert(key.name, bits).is_none(), "held twice");
        }
    }
    assert!(back.is_none(), "the first stage has no gradient to send");
    (loss.sum.to_bits(), found)
}

#[test]
fn every_cut_trains_to_the_same_bits() {
    for lora in [false, true] {
        let whole = trained(&[stage(&Device::cpu(1), Span::from(0..2), Some(lora))]);
        assert!(whole.1.len() > 30, "{}", whole.1.len());
        let hardware = [Device::cpu(2), Device::Reference];
        for (device, cuts) in hardware.iter().flat_map(|device| {
            let ways = ways().into_iter();
            ways.map(move |cuts| (device, cuts))
        }) {
            let stages = spans(&cuts).into_iter();
            let stages: Vec<Stage> = stages.map(|span| stage(device, span, Some(lora))).collect();
            assert!(
                trained(&stages) == whole,
                "lora {lora}, {cuts:?}, {device:?}"
            );
        }
    }
}

/// Rows behind the last layer of a prompt and, with an adapter, of another one, in two passes.
fn served(device: &Device, cuts: &[Cut]) -> Vec<u32> {
    let stages: Vec<Stage> = spans(cuts)
        .into_iter()
        .map(|span| stage(device, span, None))
        .collect();
    let config = config();
    let load = |stage: &Stage| StageAdapter::load(stage, &spec(&config), &factors(&config));
    let adapters: Vec<StageAdapter> = stages.iter().map(|stage| load(stage).unwrap()).collect();
    let mut pages: Vec<_> = stages.iter().map(|s| s.kv_pages(2).unwrap()).collect();
    let mut bits = Vec::new();
    for (first, count) in [(0, 30), (30, 10)] {
        let ids: Vec<u32> = (0..2)
            .flat_map(|run| tokens()[run * LENGTH + first..][..count].to_vec())
            .collect();
        let mut hidden = None;
        for ((stage, adapter), pages) in stages.iter().zip(&adapters).zip(&mut pages) {
            let run = |page: &'static [u32], adapter| StageRun {
                run: PagedRun {
                    first,
                    count,
                    pages: page,
                },
                adapter,
            };
            let input = match hidden.take() {
                None => PassInput::Tokens(&ids),
                Some(hidden) => PassInput::Hidden(hidden),
            };
            let runs = [run(&[0], None), run(&[1], Some(adapter))];
            let output = stage.pass(pages, &runs, input).unwrap();
            assert!(output.broken.is_empty());
            hidden = Some(output.hidden);
        }
        let hidden = hidden.unwrap();
        bits.extend(hidden.values().unwrap().iter().map(|value| value.to_bits()));
    }
    bits
}

#[test]
fn every_cut_serves_the_same_bits() {
    let whole = served(&Device::cpu(1), &[]);
    for cuts in ways() {
        assert!(served(&Device::cpu(2), &cuts) == whole, "{cuts:?}");
    }
}

/// On an emulated GPU what goes over a cut is put together and taken apart there.
#[cfg(feature = "emulator")]
#[test]
fn a_gpu_has_the_bits_of_the_cpu_at_every_cut() {
    use concord_kernels::cuda::Cuda;
    use concord_kernels::cuda::emulator::EmulatorOptions;

    let gpu = Device::Cuda(Cuda::emulated(EmulatorOptions::default()));
    let cuts = [cut(0, 1), cut(0, 2), cut(1, 4)];
    let stages = |device: &Device, cuts: &[Cut]| -> Vec<Stage> {
        let spans = spans(cuts).into_iter();
        spans.map(|span| stage(device, span, Some(false))).collect()
    };
    let whole = trained(&stages(&Device::cpu(1), &[]));
    assert!(trained(&stages(&gpu, &cuts)) == whole);
    assert!(served(&gpu, &cuts) == served(&Device::cpu(1), &[]));
}

#[test]
fn loads_of_the_parts_add_up() {
    let counts = |cuts: &[Cut]| {
        let stages: Vec<Stage> = spans(cuts)
            .into_iter()
            .map(|span| stage(&Device::cpu(1), span, Some(true)))
            .collect();
        trained(&stages);
        let mut sums = BTreeMap::new();
        for (layer, loads) in stages.iter().flat_map(Stage::expert_loads) {
            let sum = sums.entry(layer).or_insert_with(|| vec![0; loads.len()]);
            sum.iter_mut()
                .zip(loads)
                .for_each(|(sum, load)| *sum += load);
        }
        sums
    };
    let whole = counts(&[]);
    assert_eq!(
        whole[&1].iter().sum::<u64>(),
        (2 * SEQUENCES * LENGTH) as u64
    );
    assert_eq!(counts(&[cut(0, 2), cut(0, 4), cut(1, 3)]), whole);
}

/// What comes over a cut is another worker's word: numbers that stand for no expert are taken as
/// some, and rows of another width are refused.
#[test]
fn rows_over_a_cut_are_looked_at() {
    let device = Device::cpu(1);
    let span = |start, end| Span { start, end };
    let rest = stage(&device, span(cut(0, 3), cut(1, 0)), Some(true));
    let [width, _] = config().cut_widths(cut(0, 3));
    let batch = Batch::whole(2, vec![0; 2]);
    let wild = [-1.0, 4.0e9, f32::MAX, 2.5];
    let forward = |values: Vec<f32>, width| {
        let rows = Tensor::new(&[2, width], values).unwrap();
        rest.forward(&batch, StageInput::Hidden(rows))
    };
    let numbers = width - 2 * config().experts.unwrap().chosen;
    for wrong in wild {
        let mut values = vec![0.25; 2 * width];
        values[numbers] = wrong;
        forward(values, width).unwrap();
    }
    let error = forward(vec![0.25; 2 * (width - 1)], width - 1).unwrap_err();
    assert!(error.to_string().contains("columns at a cut"), "{error}");

    for beyond in [cut(0, 5), cut(3, 0), cut(1, 9)] {
        let error = try_stage(&device, span(cut(0, 0), beyond), None).unwrap_err();
        assert!(error.contains("no such cuts"), "{error}");
    }
}
