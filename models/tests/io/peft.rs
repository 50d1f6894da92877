//! PEFT adapters.

use std::fs;
use std::path::Path;

use concord_models::config::{DecoderConfig, LoraSpec, UpdateShape};
use concord_models::peft::{Adapter, Projection};
use serde_json::{Value, json};

use crate::fixtures::{config_json, says, shared, tensors};

#[test]
fn the_adapters_of_the_reference() {
    let Some(reference) = shared("reference/train-lora") else {
        return;
    };
    let Some(model) = shared("models/tinystories-260k") else {
        return;
    };
    let config = DecoderConfig::from_folder(&model).unwrap();
    for name in ["initial", "final"] {
        let theirs = reference.join(name);
        let adapter = Adapter::open(&theirs, &config).unwrap();
        let whole = LoraSpec::uniform(8, 16.0, config.projections());
        assert_eq!(adapter.lora, whole);
        assert_eq!(adapter.tensors.len(), 5 * 7 * 2);

        let folder = tempfile::tempdir().unwrap();
        adapter
            .save(folder.path(), &config, "models/tinystories-260k")
            .unwrap();
        assert_eq!(Adapter::open(folder.path(), &config).unwrap(), adapter);
        let read = |folder: &Path, file: &str| fs::read(folder.join(file)).unwrap();
        let weights = "adapter_model.safetensors";
        assert!(
            read(folder.path(), weights) == read(&theirs, weights),
            "PEFT's own bytes"
        );
        let keys = |folder: &Path| -> Value {
            serde_json::from_slice(&read(folder, "adapter_config.json")).unwrap()
        };
        let (ours, theirs) = (keys(folder.path()), keys(&theirs));
        for (key, value) in ours.as_object().unwrap() {
            if key != "target_modules" {
                assert_eq!(theirs.get(key), Some(value), "{key}");
            }
        }
    }
}

/// An adapter for the fixture's model.
fn adapter(config: &DecoderConfig) -> Adapter {
    let lora = LoraSpec::uniform(2, 2.5, [Projection::Q, Projection::Down]);
    of_spec(config, lora)
}

fn of_spec(config: &DecoderConfig, lora: LoraSpec) -> Adapter {
    let values = &tensors(config)["model.embed_tokens.weight"];
    let make = |(name, shape): (String, Vec<usize>)| {
        let data = values.data()[..shape.iter().product::<usize>()].to_vec();
        (name, concord_kernels::Tensor::new(&shape, data).unwrap())
    };
    let tensors = Adapter::shapes(config, &lora).into_iter().map(make);
    Adapter {
        tensors: tensors.collect(),
        lora,
    }
}

fn saved() -> (tempfile::TempDir, DecoderConfig, Adapter) {
    let config = DecoderConfig::from_json(&config_json().to_string()).unwrap();
    let adapter = adapter(&config);
    let folder = tempfile::tempdir().unwrap();
    adapter.save(folder.path(), &config, "owner/base").unwrap();
    (folder, config, adapter)
}

#[test]
fn an_adapter_comes_back_and_its_bytes_are_fixed() {
    let (folder, config, adapter) = saved();
    assert_eq!(Adapter::open(folder.path(), &config).unwrap(), adapter);
    let read = || {
        ["adapter_config.json", "adapter_model.safetensors"]
            .map(|file| fs::read(folder.path().join(file)).unwrap())
    };
    let first = read();
    adapter.save(folder.path(), &config, "owner/base").unwrap();
    assert_eq!(first, read());
    assert_eq!(
        fs::read_dir(folder.path()).unwrap().count(),
        2,
        "nothing else is left"
    );
    assert_eq!(
        Adapter::key_a(&config, 1, Projection::Q),
        "base_model.model.model.layers.1.self_attn.q_proj.lora_A.weight"
    );
}

/// A word of what the refusal of an option says to do.
fn remedy_of(option: &str) -> &'static str {
    match option {
        "peft_type" => "take a LoRA adapter",
        "task_type" => "CAUSAL_LM",
        _ => "merge_and_unload",
    }
}

#[test]
fn options_that_change_the_result_are_refused_by_name() {
    let (folder, config, _) = saved();
    let path = folder.path().join("adapter_config.json");
    let good: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    let with = |key: &str, value: &Value| {
        let mut changed = good.clone();
        changed[key] = value.clone();
        fs::write(&path, changed.to_string()).unwrap();
        Adapter::open(folder.path(), &config)
    };
    for (key, value) in [
        ("use_dora", json!("yes")),
        ("lora_bias", json!(true)),
        ("fan_in_fan_out", json!(true)),
        ("bias", json!("all")),
        ("peft_type", json!("IA3")),
        ("init_lora_weights", json!("pissa")),
        ("task_type", json!("SEQ_CLS")),
        ("init_lora_weights", json!("pissa_niter_4")),
        ("init_lora_weights", json!("olora")),
        ("trainable_token_indices", json!([1])),
        ("target_parameters", json!(["x"])),
        ("use_qalora", json!(true)),
        ("alora_invocation_tokens", json!([5])),
        ("layer_replication", json!([[0, 1]])),
        ("an_option_of_tomorrow", json!(1.5)),
    ] {
        let error = with(key, &value).unwrap_err();
        says(
            error,
            &[
                "adapter_config.json",
                key,
                &value.to_string(),
                "not supported: ",
                remedy_of(key),
            ],
        );
    }
    for (key, value) in [
        ("lora_dropout", json!(0.1)),
        ("init_lora_weights", json!("gaussian")),
        ("init_lora_weights", json!("orthogonal")),
        ("exclude_modules", json!(["lm_head", "vision.k_proj"])),
        ("task_type", Value::Null),
        ("peft_version", json!("9.9")),
        ("an_option_of_tomorrow", json!({})),
    ] {
        with(key, &value).unwrap();
    }
    says(with("r", &json!(0)).unwrap_err(), &["`r` is 0"]);
    says(
        with("lora_alpha", &json!("x")).unwrap_err(),
        &["`lora_alpha`", "above 0"],
    );
    let error = with("target_modules", &json!(["q_proj", "down_porj"])).unwrap_err();
    says(error, &["down_porj", "did you mean `down_proj`?"]);
}

#[test]
fn options_that_are_used() {
    let (folder, config, adapter) = saved();
    let path = folder.path().join("adapter_config.json");
    let good: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    let with = |changes: &[(&str, Value)]| {
        let mut changed = good.clone();
        for (key, value) in changes {
            changed[*key] = value.clone();
        }
        fs::write(&path, changed.to_string()).unwrap();
        Adapter::open(folder.path(), &config)
    };
    // PEFT: alpha / sqrt(r), where others scale by alpha / r.
    let stable = with(&[("use_rslora", json!(true)), ("lora_alpha", json!(3))]).unwrap();
    let scale = stable.lora.common.scale();
    assert!((scale - 3.0 / 2f32.sqrt()).abs() < 1e-6, "{scale}");
    assert_eq!(stable.tensors, adapter.tensors);
    // The tensors of the other five are looked for.
    let error = with(&[("target_modules", json!("all-linear"))]).unwrap_err();
    says(
        error,
        &["adapter_model.safetensors", "gate_proj", "missing"],
    );
    fs::write(&path, r#"{"r": 8, "r": 2}"#).unwrap();
    let error = Adapter::open(folder.path(), &config).unwrap_err();
    says(error, &["adapter_config.json", "`r` is there twice"]);
}

#[test]
fn weights_that_do_not_fit() {
    let (folder, config, adapter) = saved();
    let with = |change: &dyn Fn(&mut Adapter)| {
        let mut changed = adapter.clone();
        change(&mut changed);
        changed.save(folder.path(), &config, "owner/base").unwrap();
        Adapter::open(folder.path(), &config).unwrap_err()
    };
    let key = Adapter::key_b(&config, 1, Projection::Down);
    let error = with(&|adapter| {
        adapter.tensors.remove(&key);
    });
    says(error, &["adapter_model.safetensors", &key, "missing"]);
    says(
        with(&|adapter| adapter.lora.common.rank = 3),
        &["adapter_model.safetensors", "[2, 12]", "[3, 12]"],
    );
    let error = with(&|adapter| adapter.lora.targets = [Projection::Q].into());
    says(error, &["down_proj", "belongs to no target"]);
    for part in ["lora_magnitude_vector.weight", "lora_B.bias"] {
        let strange = format!("base_model.model.model.layers.0.self_attn.q_proj.{part}");
        let error = with(&|adapter| {
            let bias = concord_kernels::Tensor::zeros(&[8]);
            adapter.tensors.insert(strange.clone(), bias);
        });
        says(error, &["adapter_model.safetensors", &strange, "no target"]);
    }
    fs::remove_file(folder.path().join("adapter_model.safetensors")).unwrap();
    says(
        Adapter::open(folder.path(), &config).unwrap_err(),
        &["read", "adapter_model"],
    );
    fs::write(folder.path().join("adapter_model.bin"), "x").unwrap();
    says(
        Adapter::open(folder.path(), &config).unwrap_err(),
        &["adapter_model.bin", "torch.save", "download"],
    );
}

/// As PEFT writes them for "all-linear".
#[test]
fn targets_may_be_whole_names_of_modules() {
    let (folder, config, adapter) = saved();
    let path = folder.path().join("adapter_config.json");
    let with = |names: &[String]| {
        let text = fs::read(&path).unwrap();
        let mut file: serde_json::Value = serde_json::from_slice(&text).unwrap();
        file["target_modules"] = serde_json::json!(names);
        fs::write(&path, file.to_string()).unwrap();
        Adapter::open(folder.path(), &config)
    };
    let whole = |layer: usize| {
        let of_layer = |target: &Projection| config.module_path(layer, *target);
        adapter
            .lora
            .targets
            .iter()
            .map(of_layer)
            .collect::<Vec<_>>()
    };
    let all = [whole(0), whole(1)].concat();
    assert_eq!(with(&all).unwrap(), adapter);
    // Then the tensors of the other layer belong to no target.
    says(
        with(&whole(0)).unwrap_err(),
        &[
            "adapter_model.safetensors",
            "layers.1.",
            "belongs to no target",
        ],
    );
    says(
        with(&["qkv_proj".to_string()]).unwrap_err(),
        &["target_modules", "this model's projections are q_proj"],
    );
}

/// Another rank in one layer, another scale of one matrix, and a matrix without an update.
#[test]
fn an_adapter_whose_updates_differ_comes_back_as_peft_names_them() {
    let (_, config, plain) = saved();
    let mut lora = plain.lora.clone();
    let name = |layer, projection| config.module_path(layer, projection);
    let shape = |rank, alpha| Some(UpdateShape { rank, alpha });
    lora.targets.insert(Projection::V);
    lora.saved = ["model.norm".to_string(), name(1, Projection::O)].into();
    lora.others = [
        (name(0, Projection::Q), shape(3, 2.5)),
        (name(1, Projection::V), shape(2, 8.0)),
        (name(0, Projection::Down), None),
    ]
    .into();
    assert!(lora.is_canonical(&config));
    let adapter = of_spec(&config, lora);
    let folder = tempfile::tempdir().unwrap();
    adapter.save(folder.path(), &config, "owner/base").unwrap();
    let path = folder.path().join("adapter_config.json");
    let file: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    assert_eq!(file["rank_pattern"], json!({ name(0, Projection::Q): 3 }));
    assert_eq!(file["alpha_pattern"], json!({ name(1, Projection::V): 8 }));
    assert_eq!(
        file["modules_to_save"],
        json!(["model.layers.1.self_attn.o_proj", "model.norm"])
    );
    let modules = file["target_modules"].as_array().unwrap();
    assert_eq!(modules.len(), 5);
    assert!(!modules.contains(&json!(name(0, Projection::Down))));
    assert_eq!(Adapter::open(folder.path(), &config).unwrap(), adapter);
}

#[test]
fn an_adapter_of_another_model_and_one_that_peft_would_cut_are_noted() {
    let folder = tempfile::tempdir().unwrap();
    let write = |base: serde_json::Value| {
        let config = json!({"peft_type": "LORA", "base_model_name_or_path": base});
        let path = folder.path().join("adapter_config.json");
        fs::write(path, config.to_string()).unwrap();
    };
    let note = |model: &str| Adapter::base_note(folder.path(), Path::new(model)).unwrap();
    write(json!("owner/Tiny-1B"));
    for own in [
        "models/tiny-1b",
        "cache/models--owner--Tiny-1B/snapshots/0a1b",
        "files/tiny-1b-Q4_K_M.gguf",
    ] {
        assert_eq!(note(own), None, "{own}");
    }
    let other = note("models/other").unwrap();
    for part in ["owner/Tiny-1B", "models/other", "base_model_name_or_path"] {
        assert!(other.contains(part), "{other}");
    }
    for nothing in [serde_json::Value::Null, json!("")] {
        write(nothing);
        assert_eq!(note("models/other"), None);
    }
    let families = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/families");
    let config = |name: &str| DecoderConfig::from_folder(&families.join(name)).unwrap();
    let peft_note = |name: &str, targets: &[Projection]| Adapter::peft_note(&config(name), targets);
    let qwen = peft_note("qwen2_moe", &[Projection::Q, Projection::Up]).unwrap();
    assert!(
        qwen.contains("PEFT") && qwen.contains("passes over"),
        "{qwen}"
    );
    assert_eq!(peft_note("qwen2_moe", &[Projection::Q]), None);
    assert_eq!(peft_note("gpt_oss", &[Projection::Q]), None);
    assert_eq!(peft_note("olmo2", &[Projection::Up]), None);
}

/// As PEFT on transformers 5 makes it of a Qwen2-MoE: the shared expert alone is left as modules.
#[test]
fn an_adapter_without_the_experts_is_refused_with_the_reason() {
    let families = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/families/qwen2_moe");
    let config = DecoderConfig::from_folder(&families).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let adapter = Adapter::open(&families.join("adapter"), &config).unwrap();
    adapter.save(folder.path(), &config, "base").unwrap();
    let mut tensors = adapter.tensors;
    tensors.retain(|name, _| !name.contains(".experts."));
    let path = folder.path().join("adapter_model.safetensors");
    concord_models::export::write_tensors(&path, &tensors, |_| {
        concord_models::export::ExportDtype::F32
    })
    .unwrap();
    says(
        Adapter::open(folder.path(), &config).unwrap_err(),
        &[
            "adapter_model.safetensors",
            ".experts.0.",
            "one tensor",
            "merge",
        ],
    );
}
