//! Models that are written as GGUF, and read again: one model, whatever the family, and the numbers
//! that the type of each tensor allows.

use std::fs;
use std::path::{Path, PathBuf};

use concord_kernels::Device;
use concord_models::export::{GgufKind, write_gguf};
use concord_models::weights::ModelFolder;
use serde_json::{Value, json};

use crate::gguf::logits;
use crate::gguf_families::sayable;
use crate::vectors::packed;

/// Folders of `tests/families` whose files llama.cpp has.
const FAMILIES: [&str; 9] = [
    "gemma",
    "gemma2",
    "gemma3",
    "phi3",
    "mixtral",
    "qwen2_moe",
    "qwen3_moe",
    "olmo2",
    "starcoder2",
];

const SHARED: [&str; 5] = [
    "tinystories-260k",
    "tiny-llama31",
    "tiny-mistral",
    "tiny-qwen2",
    "tiny-qwen3",
];

/// A tokenizer of single letters, after SentencePiece; two of which are merged.
fn letters() -> Value {
    let special = ["<unk>", "<s>", "</s>"];
    let mut tokens: Vec<String> = special.map(str::to_string).into();
    tokens.push("\u{2581}".to_string());
    tokens.extend(('a'..='z').map(String::from));
    tokens.push("\u{2581}a".to_string());
    let vocab: serde_json::Map<String, Value> = (tokens.iter().enumerate())
        .map(|(id, text)| (text.clone(), json!(id)))
        .collect();
    let added = special.iter().enumerate().map(|(id, text)| {
        json!({"id": id, "content": text, "special": true, "single_word": false, "lstrip": false,
               "rstrip": false, "normalized": false})
    });
    json!({
        "version": "1.0", "truncation": null, "padding": null,
        "added_tokens": added.collect::<Vec<_>>(),
        "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": "\u{2581}"},
        "pre_tokenizer": null, "post_processor": null,
        "decoder": {"type": "Replace", "pattern": {"String": "\u{2581}"}, "content": " "},
        "model": {"type": "BPE", "dropout": null, "unk_token": "<unk>", "fuse_unk": true,
                  "byte_fallback": true, "ignore_merges": false, "vocab": vocab,
                  "continuing_subword_prefix": null, "end_of_word_suffix": null,
                  "merges": [["\u{2581}", "a"]]},
    })
}

/// A copy of a family's model, with a tokenizer, and a configuration that GGUF can say.
fn with_tokenizer(name: &str, folder: &Path) -> ModelFolder {
    let from: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/families")
        .join(name);
    let weights = "model.safetensors";
    fs::copy(from.join(weights), folder.join(weights)).unwrap();
    let config = fs::read(from.join("config.json")).unwrap();
    let config = sayable(name, serde_json::from_slice(&config).unwrap());
    fs::write(folder.join("config.json"), config.to_string()).unwrap();
    fs::write(folder.join("tokenizer.json"), letters().to_string()).unwrap();
    let tokens = json!({
        "bos_token": "<s>", "eos_token": "</s>", "chat_template": "{{ messages }}",
    });
    fs::write(folder.join("tokenizer_config.json"), tokens.to_string()).unwrap();
    ModelFolder::open(folder).unwrap()
}

/// Replaces a key of config.json.
fn set(folder: &Path, key: &str, value: Value) {
    let path = folder.join("config.json");
    let mut config: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    config[key] = value;
    fs::write(&path, config.to_string()).unwrap();
}

fn written(model: &ModelFolder, kind: GgufKind, folder: &Path) -> ModelFolder {
    let path = folder.join(format!("{}.gguf", kind.name()));
    let size = write_gguf(&path, model, kind, "tiny", &mut |_, _| ()).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().len(), size);
    ModelFolder::open(&path).unwrap()
}

/// The same configuration, tokens and template; every number of f32 within `most` of its own.
#[track_caller]
fn check_same(name: &str, model: &ModelFolder, file: &ModelFolder, most: f32) {
    assert_eq!(
        file.config().canonical(),
        model.config().canonical(),
        "{name}"
    );
    for spec in model.config().tensors() {
        let [a, b] = [model, file].map(|model| model.load(&spec.name).unwrap());
        assert_eq!(a.shape(), b.shape(), "{name}: {}", spec.name);
        let off = a.data().iter().zip(b.data()).map(|(a, b)| (a - b).abs());
        let off = off.fold(0.0_f32, f32::max);
        assert!(off <= most, "{name}: {} is {off} off", spec.name);
    }
    let [a, b] = [model, file].map(|model| model.tokenizer().unwrap());
    let text = "a letter, a b c";
    assert_eq!(
        a.encode(text, true).unwrap(),
        b.encode(text, true).unwrap(),
        "{name}"
    );
    assert_eq!((a.bos(), a.eos()), (b.bos(), b.eos()), "{name}");
}

#[test]
fn every_family_comes_back_as_it_was() {
    for name in FAMILIES {
        let folder = tempfile::tempdir().unwrap();
        let model = with_tokenizer(name, folder.path());
        let file = written(&model, GgufKind::F32, folder.path());
        // Gemma's norms have 1 added, and taken off again.
        check_same(name, &model, &file, 1.5e-7);
        assert!(file.chat_template().unwrap().is_some(), "{name}");
        check_same(
            name,
            &model,
            &written(&model, GgufKind::F16, folder.path()),
            2e-3,
        );
    }
}

#[test]
fn bits_stay_in_f32_and_logits_are_near_in_fewer_bits() {
    for name in SHARED {
        let Some(path) = packed(&format!("../../models/{name}")) else {
            return;
        };
        let folder = tempfile::tempdir().unwrap();
        let model = ModelFolder::open(&path).unwrap();
        let ids = model
            .tokenizer()
            .unwrap()
            .encode("Once upon a time", true)
            .unwrap();
        let exact = logits(&model, Device::cpu(2), &ids);
        let largest = exact
            .iter()
            .fold(0.0_f32, |most, logit| most.max(logit.abs()));
        for (kind, most) in [
            (GgufKind::F32, 0.0),
            // Random weights of a few rows feel every bit that is lost.
            (GgufKind::Bf16, 0.05),
            (GgufKind::F16, 0.01),
            (GgufKind::Q8_0, 0.06),
            (GgufKind::Q4KM, 0.6),
        ] {
            let file = written(&model, kind, folder.path());
            let near = logits(&file, Device::cpu(2), &ids);
            let off = exact.iter().zip(&near).map(|(a, b)| (a - b).abs());
            let off = off.fold(0.0_f32, f32::max) / largest;
            assert!(off <= most, "{name} as {}: {off}", kind.name());
        }
    }
}

#[test]
fn what_a_file_would_not_say_is_refused() {
    let refused = |folder: &Path| {
        let model = ModelFolder::open(folder).unwrap();
        let path = folder.join("x.gguf");
        let error = write_gguf(&path, &model, GgufKind::F32, "x", &mut |_, _| ()).unwrap_err();
        assert!(!path.exists(), "nothing is left");
        error.to_string()
    };
    // llama.cpp knows no windows of a StarCoder2.
    let folder = tempfile::tempdir().unwrap();
    with_tokenizer("starcoder2", folder.path());
    set(folder.path(), "sliding_window", json!(24));
    let error = refused(folder.path());
    assert!(error.contains("sliding_window"), "{error}");
    let folder = tempfile::tempdir().unwrap();
    with_tokenizer("granite", folder.path());
    let error = refused(folder.path());
    assert!(
        error.contains("GraniteForCausalLM") && error.contains("qwen3"),
        "{error}"
    );
    let folder = tempfile::tempdir().unwrap();
    with_tokenizer("gemma2", folder.path());
    let mut words = letters();
    words["model"] = json!({"type": "WordLevel", "vocab": {"<unk>": 0}, "unk_token": "<unk>"});
    words["added_tokens"] = json!([]);
    fs::write(folder.path().join("tokenizer.json"), words.to_string()).unwrap();
    let error = refused(folder.path());
    assert!(error.contains("WordLevel"), "{error}");
}
