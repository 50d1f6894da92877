use std::path::Path;

use concord_models::weights::TensorFile;
use serde_json::json;

use crate::program::{Ran, arg, concord, shared};
use crate::tiny_model::TinyModel;

/// A safetensors file with one I64 tensor, by the format's definition.
pub fn write_ids(path: &Path, name: &str, shape: &[usize], ids: &[i64]) {
    let bytes: Vec<u8> = ids.iter().flat_map(|id| id.to_le_bytes()).collect();
    let entry = json!({ "dtype": "I64", "shape": shape, "data_offsets": [0, bytes.len()] });
    let header = json!({ name: entry }).to_string();
    let length = (header.len() as u64).to_le_bytes();
    std::fs::write(path, [&length[..], header.as_bytes(), &bytes].concat()).unwrap();
}

/// Runs `concord logits` with some more options.
pub fn logits(model: &Path, input: &Path, output: &Path, more: &[&str]) -> Ran {
    let paths = [
        "--model",
        arg(model),
        "--input",
        arg(input),
        "--output",
        arg(output),
    ];
    concord([&["logits"], &paths[..], more].concat())
}

#[test]
fn logits_are_those_of_transformers() {
    let Some(shared) = shared() else { return };
    let out = tempfile::tempdir().unwrap();
    let out = out.path().join("logits.safetensors");
    for model in [
        "tinystories-260k",
        "tiny-qwen2",
        "tiny-qwen3",
        "tiny-mistral",
        "tiny-llama31",
    ] {
        let reference = shared
            .join("reference")
            .join(model)
            .join("logits.safetensors");
        logits(&shared.join("models").join(model), &reference, &out, &[]).good();
        let expected = TensorFile::open(&reference)
            .unwrap()
            .load("logits")
            .unwrap();
        let file = TensorFile::open(&out).unwrap();
        let got = file.load("logits").unwrap();
        assert_eq!(got.shape(), expected.shape());
        assert_eq!(file.names().collect::<Vec<_>>(), ["logits"]);
        let (mut error, mut norm) = (0.0, 0.0);
        for (got, expected) in got.data().iter().zip(expected.data()) {
            error += f64::from(got - expected).powi(2);
            norm += f64::from(*expected).powi(2);
        }
        let relative = (error / norm).sqrt();
        println!("{model}: relative Frobenius error {relative:.2e}");
        assert!(relative <= 1e-3, "{model}: {relative}");
    }
}

#[test]
fn each_sequence_is_computed_as_if_alone() {
    let model = TinyModel::new();
    let (a, b) = ([3, 4, 5, 6], [7, 3, 9, 9]);
    let run = |ids: &[i64], shape: &[usize]| {
        let (input, output) = (model.file("ids.safetensors"), model.file("out.safetensors"));
        write_ids(&input, "input_ids", shape, ids);
        logits(model.dir(), &input, &output, &[]).good();
        TensorFile::open(&output)
            .unwrap()
            .load("logits")
            .unwrap()
            .into_values()
            .unwrap()
    };
    let both = run(&[a, b].concat(), &[2, 4]);
    let alone = [run(&a, &[1, 4]), run(&b, &[1, 4])].concat();
    let bits = |values: &[f32]| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
    assert_eq!(bits(&both), bits(&alone));
    // Nothing that comes later changes what came before.
    assert_eq!(
        bits(&run(&a[..2], &[1, 2])),
        bits(&both[..2 * crate::tiny_model::VOCAB])
    );
}

#[test]
fn bad_input_is_refused_and_leaves_no_file() {
    let model = TinyModel::new();
    let (input, output) = (model.file("ids.safetensors"), model.file("out.safetensors"));
    let refused = |name: &str, shape: &[usize], ids: &[i64], words: &[&str]| {
        write_ids(&input, name, shape, ids);
        logits(model.dir(), &input, &output, &[]).refused(words);
        assert!(!output.exists());
    };
    refused(
        "ids",
        &[1, 2],
        &[3, 4],
        &["ids.safetensors", "`input_ids`", "missing"],
    );
    refused(
        "input_ids",
        &[2],
        &[3, 4],
        &["shape [2], but must be [B, T]"],
    );
    refused("input_ids", &[1, 0], &[], &["[1, 0] is empty"]);
    refused(
        "input_ids",
        &[2, 2],
        &[3, 4, 5, 32],
        &["[1, 1] is 32", "from 0 to 31"],
    );
    refused("input_ids", &[1, 2], &[3, -1], &["[0, 1] is -1"]);
    refused(
        "input_ids",
        &[1, 65],
        &[3; 65],
        &["65 tokens", "64 positions"],
    );
    std::fs::write(&input, [1, 2, 3]).unwrap();
    logits(model.dir(), &input, &output, &[]).refused(&["ids.safetensors"]);
    write_ids(&input, "input_ids", &[1, 2], &[3, 4]);
    let nowhere = model.file("no/such/folder/out.safetensors");
    logits(model.dir(), &input, &nowhere, &[]).refused(&["no/such/folder"]);
}

#[test]
fn an_output_that_would_replace_what_is_read_is_refused() {
    let model = TinyModel::new();
    let input = model.file("ids.safetensors");
    write_ids(&input, "input_ids", &[1, 2], &[3, 4]);
    let files = [
        "ids.safetensors",
        "model.safetensors",
        "config.json",
        "tokenizer.json",
    ];
    for name in files {
        let before = std::fs::read(model.file(name)).unwrap();
        logits(model.dir(), &input, &model.file(name), &[]).refused(&["--output", name]);
        assert_eq!(std::fs::read(model.file(name)).unwrap(), before, "{name}");
    }
    logits(model.dir(), &input, model.dir(), &[]).refused(&["is a folder"]);
    let output = model.file("out.safetensors");
    for _ in 0..2 {
        logits(model.dir(), &input, &output, &[]).good();
    }
}
