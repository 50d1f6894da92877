//! `load_in_4bit` and its options: a job on a checkpoint that is quantised as it is read is the job
//! on the quantised numbers, and `concord verify` finds out which those are.

use std::collections::BTreeMap;
use std::fs;

use concord_kernels::Tensor;
use concord_kernels::packed::QuantFormat;
use concord_models::export::{ExportDtype, write_tensors};
use concord_models::weights::ModelFolder;
use serde_json::{Value, json};

use crate::logits::{logits, write_ids};
use crate::program::{Ran, arg, concord};
use crate::tiny_model::TinyModel;

/// A model whose rows have so many numbers.
fn model_of(width: usize) -> TinyModel {
    let model = TinyModel::new();
    model.configure("hidden_size", json!(width));
    model.configure("head_dim", json!(width / 2));
    model.configure("intermediate_size", json!(width));
    model.write_weights(|_, values| values.iter_mut().for_each(|value| *value *= 0.25));
    model
}

/// A model whose rows are whole blocks of NF4.
fn model() -> TinyModel {
    model_of(64)
}

/// The same model with the numbers that it is quantised to.
fn saved(width: usize, format: QuantFormat) -> TinyModel {
    let model = model_of(width);
    let folder = ModelFolder::open(model.dir()).unwrap();
    let folder = folder.quantized_to(format).unwrap();
    let specs = folder.config().tensors().into_iter();
    let tensors: BTreeMap<String, Tensor> = specs
        .map(|spec| (spec.name.clone(), folder.load(&spec.name).unwrap()))
        .collect();
    drop(folder);
    let path = model.file("model.safetensors");
    write_tensors(&path, &tensors, |_| ExportDtype::F32).unwrap();
    model
}

/// Runs a job with some more keys, and some more options.
fn job(model: &TinyModel, keys: &str, options: &[&str]) -> Ran {
    let data = model.file("data.txt");
    fs::write(&data, "w3 w4 w5 w6 w7 w9 w12 w3 w4 w8 ".repeat(20)).unwrap();
    let job = model.file("job.yaml");
    let (dir, data) = (model.dir().display(), data.display());
    let text = format!(
        "{{base_model: {dir}, datasets: [{{path: {data}, type: text}}], max_steps: 2,\n\
         sequence_len: 16, learning_rate: 1e-2, output_dir: {dir}/out, {keys}}}"
    );
    fs::write(&job, text).unwrap();
    concord([&["train", arg(&job)], options].concat())
}

/// What a job came to whose pieces of work are all done again by checkers.
fn result(model: &TinyModel, keys: &str) -> Value {
    let ran = job(model, keys, &["--json", "--audit-rate", "1"]);
    ran.good().objects().pop().unwrap()
}

#[test]
fn a_job_on_a_quantised_checkpoint_is_the_job_on_its_numbers() {
    let q4_k = "load_in_4bit: true, bnb_4bit_quant_type: q4_k";
    let dora = "adapter: lora, peft_use_dora: true";
    for (width, keys, format, name) in [
        (64, "load_in_4bit: true", QuantFormat::Nf4, "NF4"),
        (64, "load_in_8bit: true", QuantFormat::Q8_0, "Q8_0"),
        (256, q4_k, QuantFormat::Q4K, "Q4_K"),
    ] {
        let quantized = model_of(width);
        // DoRA takes the norms of the quantised numbers, too.
        let adapter = if width == 64 { dora } else { "adapter: lora" };
        let found = result(&quantized, &format!("{adapter}, {keys}"));
        let expected = result(&saved(width, format), adapter);
        for key in ["job", "record_digest", "loss"] {
            assert_eq!(found[key], expected[key], "{name}: {key}");
        }
        let out = quantized.file("out");
        let proof = out.join("proof");
        let said = concord(["verify", arg(&proof), "--model", arg(&out)]).unproven();
        let base = format!("quantised to {name} as it was trained on");
        assert!(said.stdout.contains(&base), "{said:#?}");
        // Where it is used on the base as its files have it, that is said.
        let (input, to) = (quantized.file("ids"), quantized.file("logits"));
        write_ids(&input, "input_ids", &[1, 4], &[3, 4, 5, 6]);
        let used = logits(&out, &input, &to, &[]).good();
        let note = format!("was trained on its base model quantised to {name}");
        assert!(used.stderr.contains(&note), "{used:#?}");
        let used = logits(&out, &input, &to, &[option_of(format)]).good();
        assert!(!used.stderr.contains("was trained on"), "{used:#?}");
        // Another model is still found out.
        quantized.write_weights(|_, values| values[0] += 0.5);
        let refused = concord(["verify", arg(&proof), "--model", arg(&out)]);
        refused.refused(&["base_model_name_or_path", "not the model"]);
    }
}

/// The option of a command that reads a model in a format.
fn option_of(format: QuantFormat) -> &'static str {
    match format {
        QuantFormat::Nf4 => "--load-in-4bit",
        QuantFormat::Q4K => "--load-in-4bit=q4_k",
        QuantFormat::Q8_0 => "--load-in-8bit",
    }
}

#[test]
fn an_answer_of_a_quantised_model_is_that_of_its_numbers() {
    let (plain, quantized) = (model(), saved(64, QuantFormat::Nf4));
    let logits = |model: &TinyModel, option: &[&str]| {
        // The output is not to lie in the folder of the model.
        let folder = tempfile::tempdir().unwrap();
        let (input, out) = (folder.path().join("ids"), folder.path().join("logits"));
        write_ids(&input, "input_ids", &[1, 4], &[3, 4, 5, 6]);
        logits(model.dir(), &input, &out, option).good();
        fs::read(&out).unwrap()
    };
    let expected = logits(&quantized, &[]);
    for option in ["--load-in-4bit", "--load-in-4bit=nf4"] {
        assert!(logits(&plain, &[option]) == expected, "{option}");
    }
    assert!(logits(&plain, &[]) != expected);
    assert!(logits(&plain, &["--load-in-8bit"]) != expected);
}

#[test]
fn what_cannot_be_is_refused() {
    let model = model();
    for (keys, words) in [
        (
            "adapter: full, load_in_4bit: true",
            &["job.yaml:2", "`load_in_4bit` and `adapter: full`"][..],
        ),
        (
            "adapter: lora, load_in_4bit: true, load_in_8bit: true",
            &["both true"],
        ),
        (
            "adapter: lora, bnb_4bit_quant_type: nf4",
            &["`bnb_4bit_quant_type` has no effect without `load_in_4bit: true`"],
        ),
        (
            "adapter: lora, load_in_4bit: true, bnb_4bit_quant_type: fp4",
            &["one of nf4, q4_k"],
        ),
        (
            "adapter: lora, load_in_4bit: true, bnb_4bit_quant_type: q4_k",
            &[
                "q_proj.weight` cannot be quantised to Q4_K",
                "rows of 64 numbers",
            ],
        ),
    ] {
        job(&model, keys, &[]).refused(words);
    }
    let both = ["--load-in-4bit", "--load-in-8bit"];
    let ran = concord([&["generate", "--model", "x", "--prompt", "y"][..], &both].concat());
    assert_eq!(ran.code, Some(2), "{ran:#?}");
    let proof = concord(["verify", arg(model.dir()), "--load-in-8bit"]);
    proof.unshown(&["--load-in-8bit are for the receipt of an answer"]);
}
