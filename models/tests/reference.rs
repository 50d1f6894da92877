//! The decoder against transformers and peft (`shared/reference`), within a stated tolerance: torch
//! computes in f32 with sums in another order, Concord with operands of 16 bits and exact sums.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use concord_kernels::coded::Precision;
use concord_kernels::ops::{Lengths, sample::Sampling, tree_sum};
use concord_kernels::{Device, Tensor};
use concord_models::decoder::{
    Batch, Gradients, LoraSpec, Precisions, Stage, StageInput, StageOptions, StepRegularization,
};
use concord_models::generate::Generator;
use concord_models::peft::Adapter;
use concord_models::train::{
    MomentForm, OptimizerSettings, StepRule, StepScalars, TensorRule, TrainState, gradient_norm,
    mean_loss,
};
use concord_models::weights::{ModelFolder, TensorFile};
use concord_proto::{RateSchedule, ScheduleKind};

const MODELS: [&str; 5] = [
    "tinystories-260k",
    "tiny-qwen2",
    "tiny-qwen3",
    "tiny-mistral",
    "tiny-llama31",
];

fn shared() -> Option<PathBuf> {
    let default = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared");
    let shared = std::env::var_os("CONCORD_SHARED").map_or(default, PathBuf::from);
    if shared.join("models").is_dir() {
        return Some(shared);
    }
    println!(
        "skipped: no reference data at {} (set CONCORD_SHARED)",
        shared.display()
    );
    None
}

fn options(folder: &ModelFolder, lora: Option<LoraSpec>, trains_all: bool) -> StageOptions {
    let config = Arc::new(folder.config().clone());
    StageOptions {
        device: Device::cpu(2),
        layers: (0..config.layers as u32).into(),
        config,
        precisions: Precisions {
            weights: Precision::I16,
            activations: Precision::I16,
            key_values: Precision::I16,
        },
        lora,
        trains_all,
        positions: 512,
    }
}

fn whole(folder: &ModelFolder) -> Stage {
    Stage::load(options(folder, None, false), folder, &BTreeMap::new()).unwrap()
}

fn batch(tokens: &[i64], len: usize) -> Batch {
    let tokens: Vec<u32> = tokens.iter().map(|&token| token as u32).collect();
    Batch::whole(len, tokens)
}

#[test]
fn logits_agree_with_transformers() {
    let Some(shared) = shared() else { return };
    for model in MODELS {
        let reference = shared
            .join("reference")
            .join(model)
            .join("logits.safetensors");
        let reference = TensorFile::open(&reference).unwrap();
        let expected = reference.load("logits").unwrap();
        let batch = batch(&reference.load_i64("input_ids").unwrap(), 96);
        let stage = whole(&ModelFolder::open(&shared.join("models").join(model)).unwrap());
        let (hidden, _) = stage.forward(&batch, StageInput::Tokens).unwrap();
        let logits = stage.logits(&hidden).unwrap();

        let (mut error, mut norm) = (0.0, 0.0);
        for (got, expected) in logits.data().iter().zip(expected.data()) {
            error += f64::from(got - expected).powi(2);
            norm += f64::from(*expected).powi(2);
        }
        let relative = (error / norm).sqrt();
        let vocab = logits.rows_cols().1;
        let best = |row: &[f32]| (0..row.len()).max_by(|&a, &b| row[a].total_cmp(&row[b]));
        let rows = logits
            .data()
            .chunks(vocab)
            .zip(expected.data().chunks(vocab));
        let same = rows
            .filter(|(got, expected)| best(got) == best(expected))
            .count();
        let share = same as f64 / batch.tokens.len() as f64;
        println!("{model}: relative Frobenius error {relative:.2e}, same arg-max {share:.4}");
        assert!(relative <= 1e-3 && share >= 0.995, "{model}");
    }
}

#[test]
fn greedy_tokens_are_those_of_transformers() {
    let Some(shared) = shared() else { return };
    for model in MODELS {
        let reference = shared
            .join("reference")
            .join(model)
            .join("logits.safetensors");
        let reference = TensorFile::open(&reference).unwrap();
        let ids = |name| -> Vec<u32> {
            reference
                .load_i64(name)
                .unwrap()
                .iter()
                .map(|&id| id as u32)
                .collect()
        };
        let stage = whole(&ModelFolder::open(&shared.join("models").join(model)).unwrap());
        let greedy = Sampling {
            temperature: 0.0,
            top_k: 0,
            top_p: 1.0,
            seed: 0,
        };
        let mut generator = Generator::new(&stage, greedy).unwrap();
        let mut feed = ids("greedy_prompt");
        let expected = ids("greedy_ids");
        let mut got = Vec::new();
        while got.len() < expected.len() {
            let token = generator.next(&feed).unwrap();
            got.push(token);
            feed = vec![token];
        }
        let same = got
            .iter()
            .zip(&expected)
            .take_while(|(a, b)| a == b)
            .count();
        println!(
            "{model}: {same} of {} greedy tokens in a row",
            expected.len()
        );
        // Random models have near-ties; the trained one must agree throughout.
        assert!(
            model != "tinystories-260k" || got == expected,
            "{got:?}\n{expected:?}"
        );
    }
}

#[derive(Default)]
struct Run {
    losses: Vec<f32>,
    norms: Vec<f32>,
}

/// One worker's training loop, as the runtime does it, without a runtime.
fn train(stage: &mut Stage, state: &mut TrainState, batches: &TensorFile, steps: u32) -> Run {
    let settings = OptimizerSettings {
        rule: StepRule::AdamW {
            beta1: 0.9,
            beta2: 0.999,
            epsilon: 1e-8,
        },
        weight_decay: 0.01,
        max_grad_norm: 1.0,
    };
    let schedule = RateSchedule {
        b_ratio: None,
        kind: ScheduleKind::Cosine,
        learning_rate: 1e-3.into(),
        warmup_steps: 5,
    };
    let tokens = batches.load_i64("tokens").unwrap();
    let device = stage.options().device.clone();
    let mut run = Run::default();
    for step in 0..steps {
        let microbatch = |index: usize| {
            let start = (step as usize * 4 + index) * 256;
            batch(&tokens[start..start + 256], 128)
        };
        let mut sums = Vec::new();
        let mut targets = 0;
        let mut one = |index: usize| {
            let batch = microbatch(index);
            targets += batch.targets.iter().flatten().count() as u64;
            let mut gradients = Gradients::default();
            let (hidden, tape) = stage.forward(&batch, StageInput::Tokens).unwrap();
            let loss = stage.loss(&batch, &hidden, &mut gradients).unwrap();
            sums.push(loss.sum);
            stage
                .backward(&batch, &tape, loss.d_hidden, &mut gradients)
                .unwrap();
            gradients
        };
        let gradients = tree_sum(4, &mut one, &mut |a, b| a.add(&device, &b).unwrap());
        let gradients = gradients.joined(&device).unwrap();
        let tensors: Vec<&Tensor> = gradients.values().map(|gradient| &**gradient).collect();
        let squared = device.sum_squares(&tensors).unwrap();
        let scalars = StepScalars {
            step,
            targets,
            grad_norm: gradient_norm(&squared, targets),
            learning_rate: schedule.rate(step, steps),
        };
        run.losses.push(mean_loss(&sums, targets));
        run.norms.push(scalars.grad_norm);
        *state = state
            .updated(&device, &gradients, &settings, &scalars, |_| {
                TensorRule::USUAL
            })
            .unwrap();
        stage.refresh(&state.values()).unwrap();
    }
    run
}

fn compare(shared: &Path, kind: &str, run: &Run) {
    let text = std::fs::read_to_string(shared.join("reference").join(kind).join("expected.json"));
    let expected: serde_json::Value = serde_json::from_str(&text.unwrap()).unwrap();
    let (mut worst_loss, mut worst_norm) = (0.0f64, 0.0f64);
    for (step, entry) in expected["log"].as_array().unwrap().iter().enumerate() {
        let loss = entry["loss"].as_f64().unwrap();
        let norm = entry["grad_norm"].as_f64().unwrap();
        worst_loss = worst_loss.max((f64::from(run.losses[step]) - loss).abs());
        worst_norm = worst_norm.max((f64::from(run.norms[step]) / norm - 1.0).abs());
    }
    println!("{kind}: worst loss difference {worst_loss:.2e}, worst norm ratio {worst_norm:.2e}");
    assert!(worst_loss <= 2e-3 && worst_norm <= 0.01, "{kind}");
}

#[test]
fn lora_training_follows_peft() {
    let Some(shared) = shared() else { return };
    let folder = ModelFolder::open(&shared.join("models/tinystories-260k")).unwrap();
    let initial = shared.join("reference/train-lora/initial");
    let adapter = Adapter::open(&initial, folder.config()).unwrap();
    let options = options(&folder, Some(adapter.lora.clone()), false);
    let mut stage = Stage::load(options, &folder, &adapter.tensors).unwrap();
    let mut state = TrainState::fresh(adapter.tensors, MomentForm::F32);
    let batches = shared.join("reference/train-lora/batches.safetensors");
    let run = train(
        &mut stage,
        &mut state,
        &TensorFile::open(&batches).unwrap(),
        40,
    );
    compare(&shared, "train-lora", &run);
}

#[test]
fn full_training_follows_torch() {
    let Some(shared) = shared() else { return };
    let folder = ModelFolder::open(&shared.join("models/tinystories-260k")).unwrap();
    let mut stage = Stage::load(options(&folder, None, true), &folder, &BTreeMap::new()).unwrap();
    let values: BTreeMap<String, Tensor> = folder
        .config()
        .tensors()
        .into_iter()
        .map(|spec| (spec.name.clone(), folder.load(&spec.name).unwrap()))
        .collect();
    let mut state = TrainState::fresh(values, MomentForm::F32);
    let batches = shared.join("reference/train-full/batches.safetensors");
    let run = train(
        &mut stage,
        &mut state,
        &TensorFile::open(&batches).unwrap(),
        20,
    );
    compare(&shared, "train-full", &run);
}

/// An adapter that came back from its file, applied beside the weights and merged into them.
#[test]
fn merged_weights_give_the_logits_of_the_adapter() {
    let Some(shared) = shared() else { return };
    let folder = ModelFolder::open(&shared.join("models/tinystories-260k")).unwrap();
    let adapter = Adapter::open(&shared.join("reference/train-lora/final"), folder.config());
    let saved = tempfile::tempdir().unwrap();
    adapter
        .unwrap()
        .save(saved.path(), folder.config(), "models/tinystories-260k")
        .unwrap();
    let adapter = Adapter::open(saved.path(), folder.config()).unwrap();
    let scale = adapter.lora.common.scale();
    let beside = options(&folder, Some(adapter.lora.clone()), false);
    let beside = Stage::load(beside, &folder, &adapter.tensors).unwrap();
    let merged = merge(&folder, &adapter, scale);
    let merged = Stage::load(options(&folder, None, false), &folder, &merged).unwrap();
    let plain = whole(&folder);

    let reference = shared.join("reference/tinystories-260k/logits.safetensors");
    let ids = TensorFile::open(&reference)
        .unwrap()
        .load_i64("input_ids")
        .unwrap();
    let batch = batch(&ids, 96);
    let logits = |stage: &Stage| {
        let (hidden, _) = stage.forward(&batch, StageInput::Tokens).unwrap();
        stage.logits(&hidden).unwrap()
    };
    let (beside, merged, plain) = (logits(&beside), logits(&merged), logits(&plain));
    let distance = |a: &Tensor, b: &Tensor| {
        let squares = |v: &mut dyn Iterator<Item = f64>| v.map(|v| v * v).sum::<f64>();
        let pairs = a.data().iter().zip(b.data());
        let error = squares(&mut pairs.map(|(a, b)| f64::from(a - b)));
        (error / squares(&mut b.data().iter().map(|&b| f64::from(b)))).sqrt()
    };
    let (close, far) = (distance(&merged, &beside), distance(&plain, &beside));
    println!("merged against beside {close:.1e}, without the adapter {far:.1e}");
    // Operands are rounded to 16 bits at other places: as close as the logits are to torch's.
    assert!(close < 1e-3 && far > 0.05);
}

/// `W + scale * B A` for every projection that the adapter has.
fn merge(folder: &ModelFolder, adapter: &Adapter, scale: f32) -> BTreeMap<String, Tensor> {
    let mut merged = BTreeMap::new();
    for layer in 0..folder.config().layers as u32 {
        for projection in &adapter.lora.targets {
            let name = format!(
                "model.layers.{layer}.{}.weight",
                folder.config().module(*projection)
            );
            let a = &adapter.tensors[&Adapter::key_a(folder.config(), layer, *projection)];
            let b = &adapter.tensors[&Adapter::key_b(folder.config(), layer, *projection)];
            let mut weight = folder.load(&name).unwrap();
            let (_, cols) = weight.rows_cols();
            let rank = adapter.lora.common.rank as usize;
            for (i, w) in weight.values_mut().unwrap().iter_mut().enumerate() {
                let (row, col) = (i / cols, i % cols);
                let term = |r: usize| b.data()[row * rank + r] * a.data()[r * cols + col];
                *w += scale * (0..rank).map(term).sum::<f32>();
            }
            merged.insert(name, weight);
        }
    }
    merged
}

/// As `make_regularization.py` has it: settings, loss, gradient norm.
const REGULARIZED: [(StepRegularization, [f32; 2]); 7] = [
    (regularized(0.0, 0.0, 0.0, 0.0), [26.4667, 14.2242]),
    (regularized(0.1, 0.0, 0.0, 0.0), [26.4936, 14.2485]),
    (regularized(0.5, 0.0, 0.0, 0.0), [26.4291, 14.1884]),
    (regularized(0.0, 5.0, 0.0, 0.0), [26.4012, 14.2537]),
    (regularized(0.0, 0.0, 0.1, 0.0), [25.6457, 13.7348]),
    (regularized(0.0, 0.0, 0.0, 1e-3), [26.645, 14.3256]),
    (regularized(0.3, 5.0, 0.2, 0.01), [26.5073, 14.1963]),
];

/// As `make_regularization.py .. dora` has it.
const DECOMPOSED: [(StepRegularization, [f32; 2]); 3] = [
    (regularized(0.0, 0.0, 0.0, 0.0), [26.4102, 15.3997]),
    (regularized(0.1, 0.0, 0.0, 0.0), [26.4364, 15.4048]),
    (regularized(0.5, 0.0, 0.0, 0.0), [26.3914, 15.3377]),
];

const fn regularized(dropout: f32, noise: f32, smoothing: f32, z_loss: f32) -> StepRegularization {
    StepRegularization {
        lora_dropout: dropout,
        embedding_noise: noise,
        label_smoothing: smoothing,
        z_loss,
        seed: 9,
        step: 4,
    }
}

/// Dropout, noise, smoothed targets and z-loss against peft and transformers in f64, with the same
/// random numbers, made by another implementation.
#[test]
fn regularized_losses_agree_with_peft() {
    agrees_with_peft(&REGULARIZED, false);
}

/// DoRA with magnitudes that are the norms of the model, whatever its factors are, likewise.
#[test]
fn losses_of_dora_agree_with_peft() {
    agrees_with_peft(&DECOMPOSED, true);
}

fn agrees_with_peft(cases: &[(StepRegularization, [f32; 2])], use_dora: bool) {
    let Some(shared) = shared() else { return };
    let folder = ModelFolder::open(&shared.join("models/tinystories-260k")).unwrap();
    let lora = LoraSpec::uniform(4, 8.0, folder.config().projections());
    let shapes = Adapter::shapes(folder.config(), &lora).into_iter();
    let factors = shapes.enumerate().map(|(index, (name, shape))| {
        let value = |i: usize| ((i * i * 7 + index * 13 + i) % 23) as f32 / 128.0 - 11.0 / 128.0;
        let values: Vec<f32> = (0..shape[0] * shape[1]).map(value).collect();
        (name, Tensor::new(&shape, values).unwrap())
    });
    let factors: BTreeMap<String, Tensor> = factors.collect();
    let lora = LoraSpec { use_dora, ..lora };
    let stage = Stage::load(options(&folder, Some(lora), false), &folder, &factors).unwrap();
    for &(regularization, [loss, norm]) in cases {
        let lengths = Lengths::new(vec![61, 40]);
        let ids = [61_u32, 40].into_iter();
        let ids = ids.flat_map(|len| (0..len).map(|i| (i * i * 31 + i * 7) % 61 + 3));
        let batch = Batch {
            regularization,
            ..Batch::new(lengths.clone(), lengths, ids.collect(), &[1; 101])
        };
        let mut gradients = Gradients::default();
        let (hidden, tape) = stage.forward(&batch, StageInput::Tokens).unwrap();
        let found = stage.loss(&batch, &hidden, &mut gradients).unwrap();
        stage
            .backward(&batch, &tape, found.d_hidden, &mut gradients)
            .unwrap();
        let squares = gradients.0.values().map(|g| {
            let values = g.values().unwrap();
            values.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>()
        });
        let found = [found.sum / 99.0, squares.sum::<f64>().sqrt() as f32 / 99.0];
        println!("{regularization:?}: {found:?}, peft {:?}", [loss, norm]);
        assert!((found[0] - loss).abs() <= 3e-4 * loss, "{regularization:?}");
        assert!((found[1] - norm).abs() <= 1e-2 * norm, "{regularization:?}");
    }
}
