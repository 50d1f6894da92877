//! Sequences of several documents: each document has the bits that it has alone.

use std::collections::BTreeMap;
use std::sync::Arc;

use concord_kernels::coded::Precision;
use concord_kernels::ops::Lengths;
use concord_kernels::{Device, Tensor};
use concord_models::config::DecoderConfig;
use concord_models::decoder::{
    Batch, Gradients, Keeps, Precisions, Stage, StageInput, StageOptions,
};
use concord_models::golden::{MadeModel, tiny_experts, tiny_llama};

/// Tokens of each document; the first three share a sequence, and so do the last two.
const DOCUMENTS: [u32; 5] = [300, 7, 31, 1, 130];
const SEQUENCES: [u32; 2] = [338, 131];

fn stage(config: DecoderConfig, device: Device) -> Stage {
    let config = Arc::new(config);
    let model = MadeModel {
        config: Arc::clone(&config),
        seed: 11,
        reach: 0.3,
    };
    let options = StageOptions {
        device,
        layers: (0..config.layers as u32).into(),
        precisions: Precisions {
            weights: Precision::I16,
            activations: Precision::I16,
            key_values: Precision::I16,
        },
        lora: None,
        trains_all: true,
        positions: 300,
        config,
    };
    Stage::load(options, &model, &BTreeMap::<String, Tensor>::new()).unwrap()
}

fn tokens() -> Vec<u32> {
    let count: u32 = DOCUMENTS.iter().sum();
    (0..count).map(|at| (at * at * 31 + at * 7) % 61).collect()
}

fn packed() -> Batch {
    let mask = vec![1; tokens().len()];
    let [sequences, documents] = [SEQUENCES.to_vec(), DOCUMENTS.to_vec()].map(Lengths::new);
    Batch::new(sequences, documents, tokens(), &mask)
}

/// Logits of all tokens, and the gradients of all tensors, by name.
type Computed = (Vec<u32>, BTreeMap<String, Vec<u32>>);

fn computed(stage: &Stage, batch: &Batch) -> Computed {
    computed_keeping(stage, batch, Keeps::Tapes)
}

fn computed_keeping(stage: &Stage, batch: &Batch, keeps: Keeps) -> Computed {
    let mut gradients = Gradients::default();
    let forward = stage.forward_keeping(batch, StageInput::Tokens, keeps);
    let (hidden, tape) = forward.unwrap();
    let loss = stage.loss(batch, &hidden, &mut gradients).unwrap();
    stage
        .backward(batch, &tape, loss.d_hidden, &mut gradients)
        .unwrap();
    let bits = |tensor: &Tensor| -> Vec<u32> {
        let values = tensor.values().unwrap();
        values.iter().map(|value| value.to_bits()).collect()
    };
    let gradients = gradients.0.iter();
    let gradients = gradients.map(|(key, gradient)| (key.name.clone(), bits(gradient)));
    (bits(&stage.logits(&hidden).unwrap()), gradients.collect())
}

#[test]
fn a_document_has_the_logits_that_it_has_alone() {
    for config in [tiny_llama(), tiny_experts()] {
        let stage = stage(config, Device::cpu(2));
        let (together, _) = computed(&stage, &packed());
        let vocab = stage.options().config.vocab;
        for range in Lengths::new(DOCUMENTS.to_vec()).ranges() {
            let alone = Batch::whole(range.len(), tokens()[range.clone()].to_vec());
            let (hidden, _) = stage.forward(&alone, StageInput::Tokens).unwrap();
            let logits = stage.logits(&hidden).unwrap();
            let bits: Vec<u32> = logits.data().iter().map(|v| v.to_bits()).collect();
            let expected = &together[range.start * vocab..range.end * vocab];
            assert!(bits == expected, "tokens {range:?}");
        }
    }
}

/// The loss of a sequence that counts one document alone is the loss of that document.
#[test]
fn a_document_has_the_loss_that_it_has_alone() {
    let stage = stage(tiny_llama(), Device::cpu(2));
    let loss = |batch: &Batch| {
        let (hidden, _) = stage.forward(batch, StageInput::Tokens).unwrap();
        let loss = stage.loss(batch, &hidden, &mut Gradients::default());
        loss.unwrap().sum.to_bits()
    };
    // A short sum has another shape in a longer sequence, so one token is counted at a time.
    for range in Lengths::new(DOCUMENTS.to_vec()).ranges() {
        for at in range.clone().step_by(3) {
            let mut batch = packed();
            let mut alone = Batch::whole(range.len(), tokens()[range.clone()].to_vec());
            let only = |targets: &mut Vec<Option<u32>>, one: usize| {
                let each = targets.iter_mut().enumerate();
                each.for_each(|(index, target)| *target = target.filter(|_| index == one));
            };
            only(&mut batch.targets, at);
            only(&mut alone.targets, at - range.start);
            assert_eq!(loss(&batch), loss(&alone), "token {at}");
        }
    }
}

/// Where the loss counts one document alone, gradients are those of that document alone: nothing
/// flows into another, and each of these lies within the atoms that it would have.
#[test]
fn a_document_has_the_gradients_that_it_has_alone() {
    for config in [tiny_llama(), tiny_experts()] {
        let stage = stage(config, Device::cpu(2));
        for range in Lengths::new(DOCUMENTS.to_vec()).ranges() {
            let mut batch = packed();
            for (at, target) in batch.targets.iter_mut().enumerate() {
                *target = target.filter(|_| range.contains(&at));
            }
            let alone = Batch::whole(range.len(), tokens()[range.clone()].to_vec());
            let (got, expected) = (computed(&stage, &batch).1, computed(&stage, &alone).1);
            for (name, bits) in &expected {
                assert!(&got[name] == bits, "{name} of tokens {range:?}");
            }
        }
    }
}

#[test]
fn the_reference_and_recomputing_give_the_same() {
    let expected = computed(&stage(tiny_llama(), Device::Reference), &packed());
    let stage = stage(tiny_llama(), Device::cpu(3));
    for keeps in [Keeps::Tapes, Keeps::Inputs] {
        let got = computed_keeping(&stage, &packed(), keeps);
        assert!(got == expected, "{keeps:?}");
    }
}
