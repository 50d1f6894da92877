//! Tied heads and heads of their own, and tensors that a model would not use.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use concord_kernels::Tensor;
use concord_models::config::DecoderConfig;
use concord_models::export::{ExportDtype, save_model, write_tensors};
use concord_models::weights::ModelFolder;
use serde_json::{Value, json};

use crate::fixtures::{config_json, config_with, says, write_model};

const EMBED: &str = "model.embed_tokens.weight";
const HEAD: &str = "lm_head.weight";

/// Writes a model whose configuration is changed, and then its tensors.
fn write(
    folder: &Path,
    change: Value,
    tensors: impl FnOnce(&mut BTreeMap<String, Tensor>),
) -> Result<ModelFolder, concord_models::ModelError> {
    let mut all = write_model(folder, &config_json());
    tensors(&mut all);
    fs::write(folder.join("config.json"), config_with(change).to_string()).unwrap();
    let dtype = |name: &str| match name == HEAD {
        true => ExportDtype::BF16,
        false => ExportDtype::F32,
    };
    write_tensors(&folder.join("model.safetensors"), &all, dtype).unwrap();
    ModelFolder::open(folder)
}

fn tied() -> Value {
    json!({"tie_word_embeddings": true})
}

#[test]
fn a_head_of_its_own_is_used_whatever_the_configuration_says() {
    let folder = tempfile::tempdir().unwrap();
    let model = write(folder.path(), tied(), |_| {}).unwrap();
    assert!(!model.config().tie_embeddings);
    let (head, embed) = (model.load(HEAD).unwrap(), model.load(EMBED).unwrap());
    assert_ne!(head, embed);
    assert!(
        model
            .config()
            .tensors()
            .iter()
            .any(|spec| spec.name == HEAD)
    );

    // A worker, which gets only the text of the configuration, comes to the same model.
    let text = fs::read_to_string(folder.path().join("config.json")).unwrap();
    let expected = text.replace(
        r#""tie_word_embeddings":true"#,
        r#""tie_word_embeddings":false"#,
    );
    assert_ne!(text, expected);
    assert_eq!(model.config_json(), expected);
    assert_eq!(
        &DecoderConfig::from_json(model.config_json()).unwrap(),
        model.config()
    );

    // So does a reader of the exported model.
    for dtype in [None, Some(ExportDtype::F32), Some(ExportDtype::BF16)] {
        let out = tempfile::tempdir().unwrap();
        let names = model.config().tensors().into_iter().map(|spec| spec.name);
        let tensors = names.map(|name| (name.clone(), model.load(&name).unwrap()));
        save_model(out.path(), &model, &tensors.collect(), dtype).unwrap();
        let back = ModelFolder::open(out.path()).unwrap();
        assert_eq!(back.config(), model.config());
        assert_eq!(back.load(HEAD).unwrap(), head);
        let written = fs::read(out.path().join("config.json")).unwrap();
        let written: Value = serde_json::from_slice(&written).unwrap();
        assert_eq!(written["tie_word_embeddings"], false);
    }
}

#[test]
fn one_bit_of_difference_is_a_head_of_its_own_and_none_is_not() {
    let folder = tempfile::tempdir().unwrap();
    // The fixture's values are exact in bf16, the format of the head here.
    let equal = |tensors: &mut BTreeMap<String, Tensor>| {
        let embed = tensors[EMBED].clone();
        tensors.insert(HEAD.to_string(), embed);
    };
    let model = write(folder.path(), tied(), equal).unwrap();
    assert!(model.config().tie_embeddings);
    let text = fs::read_to_string(folder.path().join("config.json")).unwrap();
    assert_eq!(model.config_json(), text);
    assert_eq!(model.load(HEAD).unwrap(), model.load(EMBED).unwrap());

    let last = |tensors: &mut BTreeMap<String, Tensor>| {
        equal(tensors);
        let head = tensors.get_mut(HEAD).unwrap().values_mut().unwrap();
        let last = head.last_mut().unwrap();
        *last += 1.0;
    };
    assert!(
        !write(folder.path(), tied(), last)
            .unwrap()
            .config()
            .tie_embeddings
    );
    // Zeros of another sign are equal, as for torch.
    let zeros = |tensors: &mut BTreeMap<String, Tensor>| {
        tensors.get_mut(EMBED).unwrap().values_mut().unwrap()[3] = 0.0;
        equal(tensors);
        tensors.get_mut(HEAD).unwrap().values_mut().unwrap()[3] = -0.0;
    };
    assert!(
        write(folder.path(), tied(), zeros)
            .unwrap()
            .config()
            .tie_embeddings
    );
    let narrow = |tensors: &mut BTreeMap<String, Tensor>| {
        tensors.insert(HEAD.to_string(), Tensor::zeros(&[3, 8]));
    };
    says(
        write(folder.path(), tied(), narrow).unwrap_err(),
        &[HEAD, "[3, 8]", "[300, 8]"],
    );
}

#[test]
fn a_tied_model_with_one_of_the_two_and_an_untied_one_without_a_head() {
    let folder = tempfile::tempdir().unwrap();
    let only = |gone: &'static str| {
        move |tensors: &mut BTreeMap<String, Tensor>| drop(tensors.remove(gone))
    };
    let model = write(folder.path(), tied(), only(EMBED)).unwrap();
    assert!(model.config().tie_embeddings);
    let head = model.load(HEAD).unwrap();
    assert_eq!(model.load(EMBED).unwrap(), head);
    assert_eq!(model.dtype(EMBED), model.dtype(HEAD));
    let model = write(folder.path(), tied(), only(HEAD)).unwrap();
    assert_eq!(model.load(HEAD).unwrap(), model.load(EMBED).unwrap());
    let error = write(folder.path(), json!({}), only(HEAD)).unwrap_err();
    says(
        error,
        &[
            "model.safetensors",
            "`lm_head.weight` is missing",
            "tie_word_embeddings true",
        ],
    );
}

#[test]
fn tensors_that_would_not_be_used_are_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let with = |names: &[&str]| {
        write(folder.path(), json!({}), |tensors| {
            for name in names {
                tensors.insert((*name).to_string(), Tensor::zeros(&[4]));
            }
        })
    };
    for (name, reason) in [
        ("model.layers.0.self_attn.q_proj.bias", "attention_bias"),
        ("model.layers.1.mlp.up_proj.bias", "mlp_bias"),
        (
            "model.layers.0.self_attn.q_norm.weight",
            "no norms on q and k",
        ),
        (
            "model.layers.2.input_layernorm.weight",
            "num_hidden_layers = 2",
        ),
        ("model.layers.0.mlp.up_proj.lora_A.weight", "adapter"),
        ("model.layers.0.mlp.up_proj.qweight", "quantization_config"),
        (
            "model.layers.0.mlp.up_proj.weight_scale_inv",
            "quantization_config",
        ),
        ("lm_head.bias", "no such bias"),
        ("score.weight", "no such part"),
        ("model.vision.patch.weight", "no such part"),
    ] {
        let error = with(&[name]).unwrap_err();
        says(
            error,
            &["model.safetensors: 1 of its", &format!("`{name}`"), reason],
        );
    }
    says(with(&["a", "b"]).unwrap_err(), &["2 of its tensors", "`a`"]);
    // Old files keep the frequencies of RoPE in each layer.
    with(&["model.layers.0.self_attn.rotary_emb.inv_freq"]).unwrap();
}

#[test]
fn names_without_the_prefix_of_the_whole_model() {
    let folder = tempfile::tempdir().unwrap();
    let bare = |tensors: &mut BTreeMap<String, Tensor>| {
        tensors.remove(HEAD);
        *tensors = std::mem::take(tensors)
            .into_iter()
            .map(|(name, tensor)| (name.strip_prefix("model.").unwrap().to_string(), tensor))
            .collect();
    };
    let model = write(folder.path(), tied(), bare).unwrap();
    let whole =
        crate::fixtures::tensors(&DecoderConfig::from_json(&config_json().to_string()).unwrap());
    for spec in model.config().tensors() {
        assert_eq!(
            model.load(&spec.name).unwrap(),
            whole[&spec.name],
            "{}",
            spec.name
        );
    }
}

#[test]
fn folders_with_weights_of_another_format() {
    let folder = tempfile::tempdir().unwrap();
    write_model(folder.path(), &config_json());
    fs::remove_file(folder.path().join("model.safetensors")).unwrap();
    for (name, word) in [
        ("consolidated.safetensors", "rename it"),
        ("training_args.bin", "save_pretrained"),
    ] {
        fs::write(folder.path().join(name), "x").unwrap();
        says(
            ModelFolder::open(folder.path()).unwrap_err(),
            &["no weights", name, word],
        );
    }
}
