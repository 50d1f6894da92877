//! Adapters whose updates are not all alike: a job, its proof, and what it is used for.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::program::{Ran, arg, concord};
use crate::tiny_model::TinyModel;

/// Ranks, scales and places of their own; the text is what peft has for a regular expression.
const KEYS: &str = "lora_r: 2, lora_alpha: 4, peft_use_rslora: true,\n\
     lora_target_modules: 'model\\.layers\\.\\d+\\.(self_attn|mlp)\\.(?!gate)[a-z]+_proj',\n\
     lora_exclude_modules: [layers.1.self_attn.k_proj],\n\
     lora_rank_pattern: {v_proj: 3}, lora_alpha_pattern: {layers.0.mlp.up_proj: 8}";

fn train(model: &TinyModel, name: &str, keys: &str, more: &[&str]) -> Ran {
    let data = model.file("data.txt");
    fs::write(&data, "w3 w4 w5 w6 w7 w9 w12 w3 w4 w8 ".repeat(20)).unwrap();
    let job = model.file(&format!("{name}.yaml"));
    let text = format!(
        "{{base_model: {}, datasets: [{{path: {}, type: text}}], max_steps: 3,\n\
         sequence_len: 16, learning_rate: 1e-2, gradient_accumulation_steps: 2,\n\
         output_dir: {}, adapter: lora, {keys}}}",
        model.dir().display(),
        data.display(),
        model.file(name).display()
    );
    fs::write(&job, text).unwrap();
    concord([&["train", arg(&job), "--json"], more].concat())
}

fn config(folder: &Path) -> Value {
    serde_json::from_slice(&fs::read(folder.join("adapter_config.json")).unwrap()).unwrap()
}

#[test]
fn updates_of_unlike_shapes_have_one_hash_a_proof_and_a_use() {
    let model = TinyModel::new();
    let two = ["--workers", "local:2", "--plan", "2x1"];
    let mut one = train(&model, "one", KEYS, &[]).good().objects();
    let mut cut = train(&model, "cut", KEYS, &two).good().objects();
    let (one, cut) = (one.pop().unwrap(), cut.pop().unwrap());
    for key in ["job", "record_digest", "loss"] {
        assert_eq!(one[key], cut[key], "{key}");
    }
    let out = model.file("one");
    let found = config(&out);
    let of_v = |layer: usize| format!("model.layers.{layer}.self_attn.v_proj");
    assert_eq!(found["rank_pattern"], json!({ of_v(0): 3, of_v(1): 3 }));
    let alphas = found["alpha_pattern"].as_object().unwrap();
    assert_eq!(
        alphas["model.layers.0.mlp.up_proj"],
        json!((8.0 * 2f64.sqrt()) as f32)
    );
    assert_eq!(alphas.len(), 3);
    let modules = found["target_modules"].as_array().unwrap();
    assert!(
        !modules.contains(&json!("model.layers.1.self_attn.k_proj")),
        "{modules:?}"
    );

    let verify = || concord(["verify", arg(&out.join("proof")), "--model", arg(&out)]);
    verify().unproven();
    let prompt = [
        "--prompt",
        "w3 w4",
        "--temperature",
        "0",
        "--max-tokens",
        "4",
    ];
    concord([&["generate", "--model", arg(&out)], &prompt[..]].concat()).good();
    // It is trained on without a word about its shape, and refused with another.
    let from = format!("initial_adapter: {}", out.display());
    train(&model, "next", &from, &[]).good();
    assert_eq!(
        config(&model.file("next"))["rank_pattern"],
        found["rank_pattern"]
    );
    let other = format!("{from}, lora_rank_pattern: {{v_proj: 4}}");
    train(&model, "other", &other, &[]).refused(&["lora_rank_pattern", "initial adapter"]);

    let path = out.join("adapter_config.json");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replace("v_proj\": 3", "v_proj\": 2")).unwrap();
    verify().refused(&["adapter_config.json", "`rank_pattern`"]);
}

/// The first of the two stages has nothing to train.
#[test]
fn a_stage_may_be_without_updates() {
    let model = TinyModel::new();
    let keys = "lora_r: 2, lora_target_modules: [q_proj], peft_layers_to_transform: 1";
    let two = ["--workers", "local:2", "--plan", "2x1"];
    let one = train(&model, "one", keys, &[])
        .good()
        .objects()
        .pop()
        .unwrap();
    let cut = train(&model, "cut", keys, &two)
        .good()
        .objects()
        .pop()
        .unwrap();
    for key in ["job", "record_digest", "loss"] {
        assert_eq!(one[key], cut[key], "{key}");
    }
    let modules = json!(["model.layers.1.self_attn.q_proj"]);
    assert_eq!(config(&model.file("one"))["target_modules"], modules);
}

#[test]
fn shapes_that_fit_nothing_are_refused_by_name() {
    let model = TinyModel::new();
    let layers = "peft_layers_to_transform: ";
    for (keys, what) in [
        (
            "lora_rank_pattern: {x_proj: 3}",
            "`lora_rank_pattern` has `x_proj`",
        ),
        ("lora_rank_pattern: {'(': 3}", "regular expression"),
        ("lora_rank_pattern: {q_proj: 0}", "whole numbers above 0"),
        (
            "lora_target_modules: '.*'",
            "`lora_target_modules` has .*, but it fits `model.embed",
        ),
        (
            "lora_target_modules: [layers.9.self_attn.q_proj]",
            "projections are q_proj",
        ),
        ("lora_target_modules: [q_porj]", "did you mean `q_proj`?"),
        ("lora_exclude_modules: '.*'", "selects no projection"),
        (&format!("{layers}[9]"), "layers 0 to"),
        (
            &format!("{layers}0, lora_target_modules: 'x'"),
            "takes no layers",
        ),
        ("peft_layers_pattern: h", "without layers_to_transform"),
    ] {
        train(&model, "refused", keys, &[]).refused(&[what]);
        assert!(!model.file("refused").join("adapter_config.json").exists());
    }
}

/// A server of a model with an adapter beside it.
fn beside(model: &TinyModel, adapter: &Path) -> Ran {
    let adapter = format!("mine={}", adapter.display());
    let base = [
        "serve",
        "--model",
        arg(model.dir()),
        "--listen",
        "127.0.0.1:0",
    ];
    concord([&base[..], &["--adapter", &adapter]].concat())
}

/// Copies of the ends and of norms are trained beside the adapter, and come out with it.
#[test]
fn modules_are_trained_whole_beside_an_adapter() {
    let model = TinyModel::new();
    let keys = "lora_r: 2, lora_target_modules: [q_proj, o_proj],\n\
                lora_modules_to_save: [lm_head, embed_tokens, norm, layers.1.mlp.up_proj]";
    let two = ["--workers", "local:2", "--plan", "2x1"];
    let mut one = train(&model, "one", keys, &[]).good().objects();
    let mut cut = train(&model, "cut", keys, &two).good().objects();
    let (one, cut) = (one.pop().unwrap(), cut.pop().unwrap());
    for key in ["job", "record_digest", "loss"] {
        assert_eq!(one[key], cut[key], "{key}");
    }
    let out = model.file("one");
    let saved = config(&out)["modules_to_save"].clone();
    // As in PEFT, `norm` is the end of three names.
    assert_eq!(saved.as_array().unwrap().len(), 3 + 2 * 2 + 1, "{saved}");
    concord(["verify", arg(&out.join("proof")), "--model", arg(&out)]).unproven();
    let prompt = [
        "--prompt",
        "w3 w4",
        "--temperature",
        "0",
        "--max-tokens",
        "4",
    ];
    concord([&["generate", "--model", arg(&out)], &prompt[..]].concat()).good();
    let from = format!("initial_adapter: {}", out.display());
    train(&model, "next", &from, &[]).good();
    assert_eq!(config(&model.file("next"))["modules_to_save"], saved);
    concord(["serve", "--model", arg(&out), "--listen", "127.0.0.1:0"])
        .refused(&["modules_to_save", "merge"]);
    beside(&model, &out).refused(&["modules_to_save", "concord merge"]);
    let none = "lora_modules_to_save: [score]";
    train(&model, "refused", none, &[]).refused(&["`lora_modules_to_save` has score", "lm_head"]);
}

/// DoRA with all that it can be used with: one hash, a proof, and each way to use what comes out.
#[test]
fn trained_magnitudes_have_one_hash_a_proof_and_a_use() {
    let model = TinyModel::new();
    let keys = "lora_r: 2, peft_use_dora: true, peft_use_rslora: true, lora_dropout: 0.2,\n\
                weight_decay: 0.1";
    let two = ["--workers", "local:2", "--plan", "2x1"];
    let mut one = train(&model, "one", keys, &[]).good().objects();
    let mut cut = train(&model, "cut", keys, &two).good().objects();
    let (one, cut) = (one.pop().unwrap(), cut.pop().unwrap());
    for key in ["job", "record_digest", "loss"] {
        assert_eq!(one[key], cut[key], "{key}");
    }
    let lora = keys.replace("peft_use_dora: true, ", "");
    let mut lora = train(&model, "lora", &lora, &[]).good().objects();
    assert_ne!(lora.pop().unwrap()["loss"], one["loss"]);

    let out = model.file("one");
    assert_eq!(config(&out)["use_dora"], true);
    let verify = || concord(["verify", arg(&out.join("proof")), "--model", arg(&out)]);
    verify().unproven();
    let prompt = [
        "--prompt",
        "w3 w4",
        "--temperature",
        "0",
        "--max-tokens",
        "4",
    ];
    let generate = |folder: &Path| {
        let folder = ["generate", "--model", arg(folder), "--json"];
        concord([&folder[..], &prompt[..]].concat()).good();
    };
    generate(&out);
    let merged = model.file("merged");
    concord(["merge", arg(&out), "-o", arg(&merged)]).good();
    generate(&merged);
    let from = format!("initial_adapter: {}", out.display());
    train(&model, "next", &from, &[]).good();
    assert_eq!(config(&model.file("next"))["use_dora"], true);
    let other = format!("{from}, lora_r: 2, peft_use_dora: false");
    train(&model, "other", &other, &[]).refused(&["peft_use_dora", "initial adapter"]);
    concord(["serve", "--model", arg(&out), "--listen", "127.0.0.1:0"])
        .refused(&["DoRA", "concord merge"]);
    beside(&model, &out).refused(&["DoRA", "concord merge"]);

    let path = out.join("adapter_config.json");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(
        &path,
        text.replace("\"use_dora\": true", "\"use_dora\": false"),
    )
    .unwrap();
    verify().refused(&["adapter_config.json", "`use_dora`"]);
}
