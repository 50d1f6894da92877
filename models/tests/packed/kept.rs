//! Matrices that stay packed in a stage. LoRA on them has the bits of LoRA on the same numbers in
//! f32, on every instruction set; and they do stay packed.

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;

use concord_kernels::coded::Precision;
use concord_kernels::cpu::Cpu;
use concord_kernels::isa::Isa;
use concord_kernels::packed::BlockFormat;
use concord_kernels::{Device, Tensor};
use concord_models::decoder::{
    Batch, Gradients, Keeps, LoraSpec, Precisions, Stage, StageInput, StageOptions, TensorSource,
    Trainable, WeightBytes,
};
use concord_models::weights::ModelFolder;
use serde_json::Value;

use crate::encoders::BLOCKS;
use crate::methods::methods;
use crate::storages::{gguf, write_packed};

const RANK: u32 = 2;
const TOKENS: [u32; 40] = [3; 40];

/// All layers of a model, with an adapter on every projection, or all weights trained.
pub fn stage(model: &ModelFolder, device: &Device, trains_all: bool) -> Stage {
    let config = Arc::new(model.config().clone());
    let targets: Vec<_> = config.projections().into_iter().collect();
    let alpha = 2.0 * RANK as f32;
    let lora = (!trains_all).then(|| LoraSpec::uniform(RANK, alpha, targets));
    let trainable = match &lora {
        Some(lora) => Trainable::Lora(lora.clone()),
        None => Trainable::Full,
    };
    let tensors = trainable.tensors(&config);
    let first = tensors.iter().enumerate().map(|(index, tensor)| {
        let value = match trains_all {
            true => model.load(&tensor.name).unwrap(),
            false => Tensor::new(
                &tensor.shape,
                (0..tensor.shape.iter().product())
                    .map(|i| ((i * 37 + index) % 11) as f32 / 64.0)
                    .collect::<Vec<f32>>(),
            )
            .unwrap(),
        };
        (tensor.name.clone(), value)
    });
    let values: BTreeMap<String, Tensor> = first.collect();
    let options = StageOptions {
        device: device.clone(),
        layers: (0..config.layers as u32).into(),
        positions: 64,
        config,
        precisions: Precisions {
            weights: Precision::I16,
            activations: Precision::I16,
            key_values: Precision::I16,
        },
        lora,
        trains_all,
    };
    Stage::load(options, model, &values).unwrap()
}

/// The bits of the loss and of all gradients, whatever is kept for the backward pass.
pub fn gradients(stage: &Stage) -> Vec<u32> {
    let kept = gradients_keeping(stage, Keeps::Tapes);
    assert!(
        kept == gradients_keeping(stage, Keeps::Inputs),
        "layers computed again"
    );
    kept
}

fn gradients_keeping(stage: &Stage, keeps: Keeps) -> Vec<u32> {
    let device = &stage.options().device;
    let batch = Batch {
        tokens: TOKENS.iter().zip(0..).map(|(a, i)| (a * i) % 64).collect(),
        ..Batch::whole(20, vec![7; 40])
    };
    let mut gradients = Gradients::default();
    let forward = stage.forward_keeping(&batch, StageInput::Tokens, keeps);
    let (hidden, tape) = forward.unwrap();
    let loss = stage.loss(&batch, &hidden, &mut gradients).unwrap();
    let sum = loss.sum;
    stage
        .backward(&batch, &tape, loss.d_hidden, &mut gradients)
        .unwrap();
    let joined = gradients.joined(device).unwrap();
    let each = joined
        .values()
        .flat_map(|gradient| gradient.data().to_vec());
    std::iter::once(sum).chain(each).map(f32::to_bits).collect()
}

/// How many matrices of a stage are packed.
pub fn packed_matrices(stage: &Stage) -> usize {
    format!("{stage:?}").matches("PackedRows {").count()
}

#[test]
fn lora_through_packed_matrices_has_the_bits_of_f32() {
    let folder = tempfile::tempdir().unwrap();
    let (_, null, plain_bf16) = methods().swap_remove(0);
    assert_eq!(null, Value::Null);
    write_packed(folder.path(), null, plain_bf16);
    let halves = ModelFolder::open(folder.path()).unwrap();
    let matrices = 2 * 7 + 2;
    let best = Device::cpu(2);
    let whole = stage(&halves, &best, true);
    assert_eq!(packed_matrices(&whole), 0, "what is trained is codes");
    let expected = gradients(&stage(&halves, &Device::Reference, false));
    assert!(expected.iter().any(|bits| *bits != expected[0]));
    let path = folder.path().join("packed.gguf");
    for (name, kind, elements, block) in BLOCKS {
        fs::write(&path, gguf(kind, elements, block).whole()).unwrap();
        let model = ModelFolder::open(&path).unwrap();
        let isas = Isa::ALL.into_iter().filter(|isa| isa.is_available());
        for device in isas.map(|isa| Device::Cpu(Cpu::new(isa, 2))) {
            let stage = stage(&model, &device, false);
            let expected_count = if name == "F32" { 0 } else { matrices };
            assert_eq!(packed_matrices(&stage), expected_count, "{name}");
            assert_eq!(gradients(&stage), expected, "{name} {}", device.name());
        }
        fs::remove_file(&path).unwrap();
    }
    // Those whose parts are repacked; the embedding and the head are f32 there.
    for (name, quantization, store) in methods().split_off(1) {
        write_packed(folder.path(), quantization, store);
        let model = ModelFolder::open(folder.path()).unwrap();
        let stays = model.format("model.layers.0.mlp.up_proj.weight") != BlockFormat::F32;
        let isas = Isa::ALL.into_iter().filter(|isa| isa.is_available());
        for device in isas.map(|isa| Device::Cpu(Cpu::new(isa, 2))) {
            let stage = stage(&model, &device, false);
            let expected_count = if stays { matrices - 2 } else { 0 };
            assert_eq!(packed_matrices(&stage), expected_count, "{name}");
            assert_eq!(gradients(&stage), expected, "{name} {}", device.name());
        }
    }
}

/// What a stage holds is what `concord plan` counts with: the bytes of the blocks.
#[test]
fn repacked_matrices_take_what_is_counted() {
    let folder = tempfile::tempdir().unwrap();
    let device = Device::cpu(2);
    let mut taken = BTreeMap::new();
    for (name, quantization, store) in methods() {
        write_packed(folder.path(), quantization, store);
        let model = ModelFolder::open(folder.path()).unwrap();
        let config = model.config();
        let counted = WeightBytes::loaded(config, (0..2).into(), 0, &model, &device);
        let stage = stage(&model, &device, false);
        // `PackedRows` say how many bytes they have.
        let shown = format!("{stage:?}");
        let packed = shown.split(" bytes").filter_map(|text| {
            let digits = text.rsplit(|c: char| !c.is_ascii_digit()).next()?;
            digits.parse::<u64>().ok()
        });
        let packed: u64 = packed.sum();
        let forms = config
            .layer_matrices(0)
            .into_iter()
            .chain(config.layer_matrices(1));
        let numbers: u64 = forms
            .map(|form| (form.shape[0] * form.shape[1]) as u64)
            .sum();
        let coded = WeightBytes::of(config).stage(config, (0..2).into(), 0);
        match packed {
            0 => assert_eq!(counted, coded, "{name}"),
            _ => assert_eq!(counted + 2 * numbers, coded + packed, "{name}"),
        }
        taken.insert(name, packed * 1_000 / numbers);
    }
    // Bytes of 1,000 numbers.
    let expected = [
        ("AWQ", 546),
        ("BF16", 2_000),
        ("FP8", 1_062),
        ("FP8 with powers of two", 1_062),
        ("GPTQ", 546),
        ("GPTQ in the order of activations", 0),
        ("bitsandbytes", 0),
        ("bitsandbytes, int8", 1_062),
        ("compressed-tensors", 593),
        ("compressed-tensors, int8", 1_093),
    ];
    assert_eq!(taken, BTreeMap::from(expected));
}
