//! `concord merge` and `concord export`: what comes out is the base model with the adapter, to the
//! bit that the dtype allows.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use concord_kernels::Tensor;
use concord_models::config::{DecoderConfig, LoraSpec, Projection};
use concord_models::peft::Adapter;
use concord_models::weights::ModelFolder;

use crate::program::{arg, concord, shared};
use crate::tiny_model::TinyModel;

const TARGETS: [Projection; 2] = [Projection::Q, Projection::Down];

/// An adapter of rank 2 with alpha 3 for the model in a folder.
fn adapter(model: &Path, folder: &Path) -> Adapter {
    let config = DecoderConfig::from_folder(model).unwrap();
    let lora = LoraSpec::uniform(2, 3.0, TARGETS);
    let shapes = Adapter::shapes(&config, &lora);
    let tensors = shapes
        .into_iter()
        .enumerate()
        .map(|(index, (name, shape))| {
            let len = shape.iter().product::<usize>();
            let value = |i: usize| ((i * 37 + index * 11) % 64) as f32 / 256.0 - 0.125;
            let tensor = Tensor::new(&shape, (0..len).map(value).collect::<Vec<f32>>()).unwrap();
            (name, tensor)
        });
    let adapter = Adapter {
        lora,
        tensors: tensors.collect::<BTreeMap<String, Tensor>>(),
    };
    adapter.save(folder, &config, arg(model)).unwrap();
    adapter
}

/// W + s * (B A), one rounding a step.
fn merged(base: &ModelFolder, adapter: &Adapter, name: &str) -> Vec<f32> {
    let mut values = base.load(name).unwrap().data().to_vec();
    let module = name.trim_end_matches(".weight");
    let [a, b] = Adapter::keys(module).map(|key| adapter.tensors.get(&key));
    let (Some(a), Some(b)) = (a, b) else {
        return values;
    };
    let (rank, cols) = a.rows_cols();
    for (at, value) in values.iter_mut().enumerate() {
        let (row, col) = (at / cols, at % cols);
        let mut sum = 0.0;
        for k in 0..rank {
            sum += b.data()[row * rank + k] * a.data()[k * cols + col];
        }
        *value += adapter.lora.common.scale() * sum;
    }
    values
}

fn check(folder: &Path, base: &ModelFolder, adapter: &Adapter, round: impl Fn(f32) -> f32) {
    let found = ModelFolder::open(folder).unwrap();
    for spec in base.config().tensors() {
        let expected = merged(base, adapter, &spec.name);
        let expected: Vec<f32> = expected.into_iter().map(&round).collect();
        let found = found.load(&spec.name).unwrap();
        assert!(found.data() == expected, "{}", spec.name);
    }
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.collect();
    names.sort();
    names
}

#[test]
fn the_base_and_the_adapter_become_one_model() {
    let base = TinyModel::new();
    let home = tempfile::tempdir().unwrap();
    let at = |name: &str| home.path().join(name);
    let adapter = adapter(base.dir(), &at("adapter"));
    let model = ModelFolder::open(base.dir()).unwrap();
    let before = names(base.dir());
    concord(["merge", arg(&at("adapter")), "-o", arg(&at("whole"))]).good();
    check(&at("whole"), &model, &adapter, |value| value);
    let card = fs::read_to_string(at("whole/README.md")).unwrap();
    assert!(
        card.starts_with("---\nlibrary_name: transformers\n"),
        "{card}"
    );
    assert!(card.contains("merged into it"), "{card}");

    // In parts, and in a narrower dtype, which config.json names.
    let more = ["--dtype", "bf16", "--max-shard-size", "2K"];
    let (from, to) = (at("adapter"), at("parts"));
    let args = ["merge", arg(&from), "-o", arg(&to)];
    concord([&args[..], &more].concat()).good();
    assert!(at("parts/model.safetensors.index.json").is_file());
    assert!(!at("parts/model.safetensors").exists());
    let narrow = |value: f32| {
        f32::from_bits(
            value
                .to_bits()
                .wrapping_add(0x7fff + (value.to_bits() >> 16 & 1))
                & 0xffff_0000,
        )
    };
    check(&at("parts"), &model, &adapter, narrow);
    let config = fs::read_to_string(at("parts/config.json")).unwrap();
    assert!(config.contains("\"bfloat16\""), "{config}");

    // What is there stays, the base model above all.
    for place in [
        at("whole"),
        base.dir().to_path_buf(),
        base.file("config.json"),
    ] {
        let args = ["merge", arg(&from), "-o", arg(&place)];
        concord(args).refused(&["--output", "is there already"]);
    }
    assert_eq!(names(base.dir()), before);
    assert_eq!(names(home.path()), ["adapter", "parts", "whole"]);
}

#[test]
fn a_merged_model_computes_what_its_adapter_does() {
    let Some(models) = shared() else { return };
    let base = models.join("models/tinystories-260k");
    let home = tempfile::tempdir().unwrap();
    let at = |name: &str| home.path().join(name);
    adapter(&base, &at("adapter"));
    let (from, merged, exported) = (at("adapter"), at("merged"), at("f32.gguf"));
    concord(["merge", arg(&from), "-o", arg(&merged)]).good();
    for kind in ["f32", "q8_0", "q4_k_m"] {
        let file = at(&format!("{kind}.gguf"));
        let args = ["export", arg(&from), "--gguf", kind, "-o", arg(&file)];
        let said = concord(args).good().stdout;
        assert!(said.contains(kind), "{said}");
        let card = fs::read_to_string(at(&format!("{kind}.gguf.md"))).unwrap();
        for words in [
            "library_name: gguf",
            &format!("| numbers | {kind} |"),
            "`adapter`",
        ] {
            assert!(card.contains(words), "no {words} in\n{card}");
        }
    }
    let text = |model: PathBuf| {
        let args = [
            "generate",
            "--model",
            arg(&model),
            "--prompt",
            "Once upon a time",
        ];
        let greedy = ["--temperature", "0", "--max-tokens", "16", "--ignore-eos"];
        concord([&args[..], &greedy].concat()).good().stdout
    };
    let expected = text(at("adapter"));
    assert_eq!(text(at("merged")), expected);
    assert_eq!(text(at("f32.gguf")), expected);
    let args = [
        "export",
        arg(&merged),
        "--gguf",
        "f32",
        "-o",
        arg(&exported),
    ];
    concord(args).refused(&["f32.gguf", "is there already"]);
    // Nor is a card replaced.
    fs::remove_file(&exported).unwrap();
    concord(args).refused(&["f32.gguf.md", "is there already"]);
    assert!(!exported.exists());
}

#[test]
fn a_tokenizer_without_a_name_in_gguf_is_refused() {
    let base = TinyModel::new();
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("x.gguf");
    let args = ["export", arg(base.dir()), "--gguf", "f16", "-o", arg(&file)];
    concord(args).refused(&["cannot be written as GGUF", "WordLevel"]);
    assert_eq!(names(home.path()).len(), 0);
}
