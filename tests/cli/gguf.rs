//! GGUF files as models of the commands, and the same numbers in a folder of f32: one result.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use concord_models::export::{ExportDtype, write_tensors};
use concord_models::weights::ModelFolder;
use serde_json::Value;

use crate::program::{arg, concord, shared};

/// A GGUF file of the reference data.
fn file(name: &str) -> Option<PathBuf> {
    let path = shared()?.join("reference/packed").join(name);
    if !path.is_file() {
        println!("skipped: {} is not there", path.display());
    }
    path.is_file().then_some(path)
}

/// The numbers of a file as a folder of f32, with all else that it says.
fn unpacked(file: &Path, folder: &Path) {
    let model = ModelFolder::open(file).unwrap();
    let specs = model.config().tensors().into_iter();
    let tensors: BTreeMap<_, _> = specs
        .map(|spec| (spec.name.clone(), model.load(&spec.name).unwrap()))
        .collect();
    let weights = folder.join("model.safetensors");
    write_tensors(&weights, &tensors, |_| ExportDtype::F32).unwrap();
    fs::write(folder.join("config.json"), model.config_json()).unwrap();
    fs::write(
        folder.join("tokenizer.json"),
        model.tokenizer_json().unwrap(),
    )
    .unwrap();
}

fn text(model: &Path) -> String {
    let args = [
        "generate",
        "--model",
        arg(model),
        "--prompt",
        "Once upon a time",
    ];
    let greedy = ["--temperature", "0", "--max-tokens", "24", "--ignore-eos"];
    concord([&args[..], &greedy].concat()).good().stdout
}

/// Trains an adapter for two steps, and gives the result and the adapter's bytes.
fn train(base: &Path, folder: &Path, name: &str, more: &[&str]) -> (Value, Vec<u8>) {
    let data = folder.join("data.txt");
    fs::write(&data, "One day, Tim and Ann went to the park. ".repeat(40)).unwrap();
    let job = folder.join(format!("{name}.yaml"));
    let text = format!(
        "{{base_model: {}, recompute: {}, datasets: [{{path: {}, type: text}}], max_steps: 2,\n\
         sequence_len: 32, learning_rate: 1e-2, adapter: lora, output_dir: {}}}",
        base.display(),
        name == "again",
        data.display(),
        folder.join(name).display()
    );
    fs::write(&job, text).unwrap();
    let args = [&["train", arg(&job), "--json"], more].concat();
    let mut objects = concord(args).good().objects();
    let adapter = folder.join(name).join("adapter_model.safetensors");
    (objects.pop().unwrap(), fs::read(adapter).unwrap())
}

#[test]
fn one_text_and_one_job_hash_however_the_base_is_stored() {
    for name in ["llama-h256-Q4_K.gguf", "tinystories-260k-Q8_0.gguf"] {
        let Some(packed) = file(name) else { return };
        let folder = tempfile::tempdir().unwrap();
        let plain = folder.path().join("plain");
        fs::create_dir(&plain).unwrap();
        unpacked(&packed, &plain);
        assert!(!text(&packed).is_empty());
        assert_eq!(text(&packed), text(&plain), "{name}");
        if name.starts_with("llama") {
            // Workers hold its blocks, and each layer is computed again on the way back.
            let two = ["--workers", "local:2", "--plan", "2x1"];
            let (a, adapter_a) = train(&packed, folder.path(), "packed", &[]);
            let (b, adapter_b) = train(&packed, folder.path(), "again", &two);
            let (c, adapter_c) = train(&plain, folder.path(), "unpacked", &[]);
            assert!(adapter_a == adapter_b, "{name}: the adapters differ");
            assert!(adapter_a == adapter_c, "{name}: the adapters differ");
            for key in ["job", "record_digest", "loss"] {
                assert_eq!(a[key], b[key], "{name}: {key}");
                assert_eq!(a[key], c[key], "{name}: {key}");
            }
        }
    }
}

#[test]
fn what_is_no_model_is_refused_by_its_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.gguf");
    fs::write(&path, "GGUF").unwrap();
    let args = ["generate", "--model", arg(&path), "--prompt", "x"];
    concord(args).refused(&["x.gguf", "cut short"]);
}
