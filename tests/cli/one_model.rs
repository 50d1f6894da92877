//! The same numbers written down in another format, and the same configuration in other words: one
//! model, so one job, with one hash.

use std::collections::BTreeMap;
use std::fs;

use concord_kernels::Tensor;
use concord_models::export::{ExportDtype, write_tensors};
use concord_models::weights::ModelFolder;
use serde_json::{Value, json};

use crate::program::{arg, concord};
use crate::tiny_model::TinyModel;

/// Rounds numbers to 7 bits, which every format of the test holds.
fn coarse(values: &mut [f32]) {
    for value in values {
        *value = (*value * 32.0).round() / 32.0;
    }
}

/// The model with its numbers in `dtype`.
fn stored_as(dtype: ExportDtype) -> TinyModel {
    let model = TinyModel::new();
    model.write_weights(|_, values| coarse(values));
    let folder = ModelFolder::open(model.dir()).unwrap();
    let specs = folder.config().tensors().into_iter();
    let tensors: BTreeMap<String, Tensor> = specs
        .map(|spec| (spec.name.clone(), folder.load(&spec.name).unwrap()))
        .collect();
    drop(folder);
    write_tensors(&model.file("model.safetensors"), &tensors, |_| dtype).unwrap();
    model
}

fn train(model: &TinyModel) -> Value {
    let data = model.file("data.txt");
    fs::write(&data, "w3 w4 w5 w6 w7 w9 w12 w3 w4 w8 ".repeat(20)).unwrap();
    let job = model.file("job.yaml");
    let (dir, data) = (model.dir().display(), data.display());
    let text = format!(
        "{{base_model: {dir}, datasets: [{{path: {data}, type: text}}], max_steps: 2,\n\
         sequence_len: 16, learning_rate: 1e-2, adapter: lora, output_dir: {dir}/out}}"
    );
    fs::write(&job, text).unwrap();
    let mut objects = concord(["train", arg(&job), "--json"]).good().objects();
    objects.pop().unwrap()
}

#[test]
fn a_job_does_not_see_how_its_model_is_written_down() {
    let expected = train(&stored_as(ExportDtype::F32));
    let in_other_words = stored_as(ExportDtype::F32);
    // What the file says already by an older key, and keys that change nothing.
    let rope = json!({ "rope_type": "default", "rope_theta": 1e4 });
    in_other_words.configure("rope_parameters", rope);
    in_other_words.configure("initializer_range", json!(0.5));
    in_other_words.configure("torch_dtype", json!("bfloat16"));
    for (name, model) in [
        ("bf16", stored_as(ExportDtype::BF16)),
        ("f16", stored_as(ExportDtype::F16)),
        ("other words", in_other_words),
    ] {
        let found = train(&model);
        for key in ["job", "record_digest", "loss"] {
            assert_eq!(found[key], expected[key], "{name}: {key}");
        }
    }
    let other = TinyModel::new();
    other.write_weights(|_, values| {
        coarse(values);
        values[0] += 1.0 / 32.0;
    });
    assert_ne!(train(&other)["job"], expected["job"]);
}
