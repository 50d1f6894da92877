//! Dropout, noise, smoothed targets and z-loss: the same on every device, in every packing, and
//! with gradients that are those of the loss.

use std::collections::BTreeMap;
use std::sync::Arc;

use concord_kernels::coded::Precision;
use concord_kernels::ops::Lengths;
use concord_kernels::{Device, Tensor};
use concord_models::config::DecoderConfig;
use concord_models::decoder::{
    Batch, Gradients, Keeps, LoraSpec, Precisions, Stage, StageInput, StageOptions,
    StepRegularization,
};
use concord_models::golden::{MadeModel, tiny_experts, tiny_llama};
use concord_models::peft::Adapter;

const ALL: StepRegularization = StepRegularization {
    lora_dropout: 0.3,
    embedding_noise: 5.0,
    label_smoothing: 0.1,
    z_loss: 1e-3,
    seed: 9,
    step: 4,
};

/// Tokens of each document; the first three share a sequence, and so do the last two.
const DOCUMENTS: [u32; 5] = [300, 7, 31, 1, 130];
const SEQUENCES: [u32; 2] = [338, 131];

type Factors = BTreeMap<String, Tensor>;

fn adapter(config: &DecoderConfig) -> LoraSpec {
    LoraSpec::uniform(2, 1.5, config.projections())
}

fn factors_of(config: &DecoderConfig, lora: &LoraSpec) -> Factors {
    let shapes = Adapter::shapes(config, lora).into_iter();
    let factors = shapes.enumerate().map(|(index, (name, shape))| {
        let value = |i: usize| ((i * 7 + index * 13) % 23) as f32 / 40.0 - 0.25;
        let values: Vec<f32> = (0..shape.iter().product()).map(value).collect();
        (name, Tensor::new(&shape, values).unwrap())
    });
    factors.collect()
}

fn factors(config: &DecoderConfig) -> Factors {
    factors_of(config, &adapter(config))
}

fn stage(config: DecoderConfig, device: Device, factors: Option<&Factors>) -> Stage {
    let config = Arc::new(config);
    let model = MadeModel {
        config: Arc::clone(&config),
        seed: 11,
        reach: 0.3,
    };
    let use_dora = |factors: &Factors| {
        let mut names = factors.keys();
        names.any(|name| Adapter::magnitude_module(name).is_some())
    };
    let lora = factors.map(|factors| LoraSpec {
        use_dora: use_dora(factors),
        ..adapter(&config)
    });
    let options = StageOptions {
        device,
        layers: (0..config.layers as u32).into(),
        precisions: Precisions {
            weights: Precision::I16,
            activations: Precision::I16,
            key_values: Precision::I16,
        },
        trains_all: lora.is_none(),
        lora,
        positions: 300,
        config,
    };
    Stage::load(options, &model, factors.unwrap_or(&BTreeMap::new())).unwrap()
}

fn tokens() -> Vec<u32> {
    let count: u32 = DOCUMENTS.iter().sum();
    (0..count).map(|at| (at * at * 31 + at * 7) % 61).collect()
}

fn packed(regularization: StepRegularization) -> Batch {
    let mask = vec![1; tokens().len()];
    let [sequences, documents] = [SEQUENCES.to_vec(), DOCUMENTS.to_vec()].map(Lengths::new);
    Batch {
        regularization,
        ..Batch::new(sequences, documents, tokens(), &mask)
    }
}

type Computed = (f32, BTreeMap<String, Vec<f32>>);

fn computed(stage: &Stage, batch: &Batch, keeps: Keeps) -> Computed {
    let mut gradients = Gradients::default();
    let forward = stage.forward_keeping(batch, StageInput::Tokens, keeps);
    let (hidden, tape) = forward.unwrap();
    let loss = stage.loss(batch, &hidden, &mut gradients).unwrap();
    stage
        .backward(batch, &tape, loss.d_hidden, &mut gradients)
        .unwrap();
    let gradients = gradients.0.into_iter();
    let values = |tensor: Tensor| tensor.into_values().unwrap();
    let gradients = gradients.map(|(key, gradient)| (key.name.clone(), values(gradient)));
    (loss.sum, gradients.collect())
}

fn bits((loss, gradients): Computed) -> (u32, Vec<Vec<u32>>) {
    let of = |values: Vec<f32>| values.into_iter().map(f32::to_bits).collect();
    (loss.to_bits(), gradients.into_values().map(of).collect())
}

#[test]
fn devices_and_recomputing_give_the_same() {
    for (config, lora) in [
        (tiny_llama(), Some(false)),
        (tiny_experts(), Some(false)),
        (tiny_llama(), Some(true)),
        (tiny_experts(), Some(true)),
        (tiny_llama(), None),
    ] {
        let factors = lora.map(|use_dora| {
            let lora = LoraSpec {
                use_dora,
                ..adapter(&config)
            };
            factors_of(&config, &lora)
        });
        let stage = |device| stage(config.clone(), device, factors.as_ref());
        let batch = packed(ALL);
        let expected = bits(computed(&stage(Device::Reference), &batch, Keeps::Tapes));
        for keeps in [Keeps::Tapes, Keeps::Inputs] {
            let got = bits(computed(&stage(Device::cpu(2)), &batch, keeps));
            assert!(got == expected, "dora {lora:?}, {keeps:?}");
        }
    }
}

/// New values of the factors and magnitudes give what a stage has that was loaded with them.
#[test]
fn a_stage_takes_over_new_magnitudes() {
    for config in [tiny_llama(), tiny_experts()] {
        let lora = LoraSpec {
            use_dora: true,
            ..adapter(&config)
        };
        let new = factors_of(&config, &lora);
        let doubled = |(name, value): (&String, &Tensor)| {
            let values: Vec<f32> = value.data().iter().map(|v| 2.0 * v + 0.1).collect();
            (name.clone(), Tensor::new(value.shape(), values).unwrap())
        };
        let old: Factors = new.iter().map(doubled).collect();
        let batch = packed(ALL);
        let mut stage = stage(config.clone(), Device::cpu(2), Some(&old));
        let before = bits(computed(&stage, &batch, Keeps::Tapes));
        stage.refresh(&new).unwrap();
        let after = bits(computed(&stage, &batch, Keeps::Tapes));
        let fresh = self::stage(config, Device::cpu(2), Some(&new));
        assert!(after == bits(computed(&fresh, &batch, Keeps::Tapes)));
        assert!(after != before);
    }
}

/// Each number of the settings counts, and without any of them a batch is as it was.
#[test]
fn every_setting_changes_the_result() {
    let factors = factors(&tiny_llama());
    let stage = stage(tiny_llama(), Device::cpu(2), Some(&factors));
    let run = |regularization| bits(computed(&stage, &packed(regularization), Keeps::Tapes));
    let none = StepRegularization::default();
    let one = |change: fn(&mut StepRegularization)| {
        let mut one = ALL;
        change(&mut one);
        run(one)
    };
    let others = [
        run(none),
        run(ALL),
        one(|r| r.lora_dropout = 0.0),
        one(|r| r.lora_dropout = 0.31),
        one(|r| r.embedding_noise = 0.0),
        one(|r| r.label_smoothing = 0.0),
        one(|r| r.z_loss = 0.0),
        one(|r| r.seed = 10),
        one(|r| r.step = 5),
    ];
    let distinct: std::collections::BTreeSet<_> = others.iter().collect();
    assert_eq!(distinct.len(), others.len());
    let seeded = StepRegularization {
        seed: 9,
        step: 4,
        ..none
    };
    assert!(run(seeded) == others[0], "nothing is drawn");
}

/// Where the loss counts one document alone, gradients are those of that document alone.
#[test]
fn a_document_has_the_gradients_that_it_has_alone() {
    for config in [tiny_llama(), tiny_experts()] {
        let factors = factors(&config);
        let stage = stage(config, Device::cpu(2), Some(&factors));
        for range in Lengths::new(DOCUMENTS.to_vec()).ranges() {
            let mut batch = packed(ALL);
            for (at, target) in batch.targets.iter_mut().enumerate() {
                *target = target.filter(|_| range.contains(&at));
            }
            let alone = Batch {
                regularization: ALL,
                ..Batch::whole(range.len(), tokens()[range.clone()].to_vec())
            };
            let together = computed(&stage, &batch, Keeps::Tapes).1;
            let alone = computed(&stage, &alone, Keeps::Tapes).1;
            assert!(bits((0.0, together)) == bits((0.0, alone)), "{range:?}");
        }
    }
}

/// Along its gradient the loss changes as the gradient says, within what operands of 16 bits allow.
#[test]
fn gradients_are_those_of_the_loss() {
    let none = StepRegularization::default();
    let cases = [
        none,
        StepRegularization {
            lora_dropout: 0.4,
            ..none
        },
        StepRegularization {
            embedding_noise: 8.0,
            ..none
        },
        StepRegularization {
            label_smoothing: 0.3,
            ..none
        },
        StepRegularization {
            z_loss: 0.05,
            ..none
        },
        ALL,
    ];
    for soft_cap in [None, Some(3.0)] {
        let config = DecoderConfig {
            logit_soft_cap: soft_cap,
            ..tiny_llama()
        };
        let start = factors(&config);
        for case in cases {
            let batch = packed(case);
            let loss = |factors: &Factors| {
                let stage = stage(config.clone(), Device::cpu(2), Some(factors));
                computed(&stage, &batch, Keeps::Tapes)
            };
            let gradient = loss(&start).1;
            let square: f64 = gradient
                .values()
                .flatten()
                .map(|&g| f64::from(g).powi(2))
                .sum();
            let step = 0.02 / square.sqrt();
            let moved = |sign: f64| {
                let factor = |(name, value): (&String, &Tensor)| {
                    let moved = value.data().iter().zip(&gradient[name]);
                    let moved = moved.map(|(&v, &g)| v + (sign * step * f64::from(g)) as f32);
                    let moved: Vec<f32> = moved.collect();
                    (name.clone(), Tensor::new(value.shape(), moved).unwrap())
                };
                f64::from(loss(&start.iter().map(factor).collect()).0)
            };
            let slope = (moved(1.0) - moved(-1.0)) / (2.0 * step);
            let error = (slope / square - 1.0).abs();
            println!("{case:?}, cap {soft_cap:?}: {error:.1e}");
            assert!(error < 0.01, "{case:?}, cap {soft_cap:?}: {error}");
        }
    }
}
