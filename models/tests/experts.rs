//! Experts: the result of a token and the gradients of an expert do not depend on the other
//! sequences of the batch.

use std::collections::BTreeMap;
use std::sync::Arc;

use concord_kernels::coded::Precision;
use concord_kernels::cpu::Cpu;
use concord_kernels::isa::Isa;
use concord_kernels::{Device, Tensor};
use concord_models::config::DecoderConfig;
use concord_models::decoder::{
    Batch, Gradients, LoraSpec, Precisions, Stage, StageInput, StageOptions,
};
use concord_models::golden::{MadeModel, tiny_experts};
use concord_models::peft::Adapter;

/// Long enough that an expert with most tokens of a sequence has more than two atoms.
const LENGTH: usize = 700;

fn stage(device: Device, config: &DecoderConfig, lora: bool) -> Stage {
    let config = Arc::new(config.clone());
    let model = MadeModel {
        config: Arc::clone(&config),
        seed: 3,
        reach: 0.3,
    };
    let spec = LoraSpec::uniform(2, 1.5, config.projections());
    let factors = Adapter::shapes(&config, &spec).into_iter();
    let factors = factors.enumerate().map(|(index, (name, shape))| {
        let value = |i: usize| ((i * 7 + index * 13) % 23) as f32 / 40.0 - 0.25;
        let values: Vec<f32> = (0..shape[0] * shape[1]).map(value).collect();
        (name, Tensor::new(&shape, values).unwrap())
    });
    let options = StageOptions {
        device,
        layers: (0..2).into(),
        config,
        precisions: Precisions {
            weights: Precision::I16,
            activations: Precision::I16,
            key_values: Precision::I16,
        },
        lora: lora.then_some(spec),
        trains_all: !lora,
        positions: LENGTH,
    };
    Stage::load(options, &model, &factors.collect::<BTreeMap<_, _>>()).unwrap()
}

/// Sequences that are unlike each other: the second is one token over and over.
fn batch(which: &[usize]) -> Batch {
    let token = |sequence: usize, at: usize| match sequence {
        1 => 5,
        _ => ((at * at * 31 + at * 7 + sequence) % 67) as u32,
    };
    let tokens = which
        .iter()
        .flat_map(|&sequence| (0..LENGTH).map(move |at| token(sequence, at)));
    let tokens: Vec<u32> = tokens.collect();
    Batch::whole(LENGTH, tokens)
}

fn gradients(stage: &Stage, which: &[usize]) -> Gradients {
    let batch = batch(which);
    let mut gradients = Gradients::default();
    let (hidden, tape) = stage.forward(&batch, StageInput::Tokens).unwrap();
    let loss = stage.loss(&batch, &hidden, &mut gradients).unwrap();
    stage
        .backward(&batch, &tape, loss.d_hidden, &mut gradients)
        .unwrap();
    gradients
}

fn bits(gradients: &Gradients) -> BTreeMap<String, Vec<u32>> {
    let all = gradients.0.iter();
    all.map(|(key, gradient)| {
        let values = gradient.values().unwrap();
        let bits = values.iter().map(|value| (value + 0.0).to_bits());
        (key.name.clone(), bits.collect())
    })
    .collect()
}

/// The gradients of experts only: other tensors have atoms that cross sequences.
fn of_experts(mut bits: BTreeMap<String, Vec<u32>>) -> BTreeMap<String, Vec<u32>> {
    bits.retain(|name, _| name.contains(".experts."));
    assert!(bits.len() >= 15, "{:?}", bits.keys());
    bits
}

#[test]
fn gradients_of_experts_are_sums_over_sequences() {
    let device = Device::cpu(1);
    for lora in [false, true] {
        let stage = stage(device.clone(), &tiny_experts(), lora);
        let together = of_experts(bits(&gradients(&stage, &[0, 1])));
        let mut apart = gradients(&stage, &[0]);
        apart.add(&device, &gradients(&stage, &[1])).unwrap();
        assert!(together == of_experts(bits(&apart)), "lora {lora}");
    }
}

#[test]
fn every_instruction_set_has_the_gradients_of_the_reference() {
    for lora in [false, true] {
        let expected = bits(&gradients(
            &stage(Device::Reference, &tiny_experts(), lora),
            &[1],
        ));
        for isa in Isa::ALL.into_iter().filter(|isa| isa.is_available()) {
            let device = Device::Cpu(Cpu::new(isa, 2));
            let got = bits(&gradients(&stage(device, &tiny_experts(), lora), &[1]));
            assert!(got == expected, "{isa}, lora {lora}");
        }
    }
}

#[test]
fn an_expert_without_tokens_has_gradients_of_zero() {
    let stage = stage(Device::cpu(1), &tiny_experts(), false);
    // One token over and over: in the first layer few experts see it.
    let found = of_experts(bits(&gradients(&stage, &[1])));
    let is_zero = |values: &Vec<u32>| values.iter().all(|&bits| bits == 0);
    let zeros = found.values().filter(|values| is_zero(values)).count();
    assert!(
        zeros > 0 && zeros < found.len(),
        "{zeros} of {}",
        found.len()
    );
}

#[test]
fn loads_are_counted_by_layer_and_expert() {
    let stage = stage(Device::cpu(1), &tiny_experts(), false);
    assert_eq!(stage.expert_loads(), [(0, vec![0; 5])]);
    stage.forward(&batch(&[0, 2]), StageInput::Tokens).unwrap();
    let loads = stage.expert_loads();
    let [(0, counts)] = &loads[..] else {
        panic!("{loads:?}");
    };
    // Two experts a token.
    assert_eq!(counts.iter().sum::<u64>(), 2 * 2 * LENGTH as u64);
}
