//! What a `config.json` says of experts, and what is refused.

use std::path::Path;

use concord_models::config::{DecoderConfig, Projection};
use concord_models::weights::ModelFolder;

fn family(name: &str) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/families");
    std::fs::read_to_string(folder.join(name).join("config.json")).unwrap()
}

/// The file of a family with another value of a key.
fn with(name: &str, key: &str, value: serde_json::Value) -> String {
    let mut object: serde_json::Value = serde_json::from_str(&family(name)).unwrap();
    object[key] = value;
    object.to_string()
}

fn refused(name: &str, key: &str, value: serde_json::Value) -> String {
    let text = with(name, key, value);
    DecoderConfig::from_json(&text).unwrap_err().to_string()
}

#[test]
fn layers_without_experts_are_those_of_transformers() {
    let config = DecoderConfig::from_json(&family("qwen2_moe")).unwrap();
    let has = |layer| config.experts_of(layer).is_some();
    assert_eq!([has(0), has(1), has(2)], [true, false, true]);
    let config = DecoderConfig::from_json(&family("qwen3_moe")).unwrap();
    let has = |layer| config.experts_of(layer).is_some();
    assert_eq!([has(0), has(1), has(2), has(3)], [false, true, false, true]);
    assert!(config.experts_of(1).unwrap().normalised);
}

#[test]
fn the_number_of_experts_has_two_names() {
    let text = with("mixtral", "num_experts", 5.into());
    assert_eq!(
        DecoderConfig::from_json(&text)
            .unwrap()
            .experts
            .unwrap()
            .count,
        5
    );
    let error = refused("mixtral", "num_experts", 6.into());
    assert!(error.contains("num_local_experts is 5"), "{error}");
}

#[test]
fn what_makes_no_sense_is_refused_by_name() {
    let error = refused("mixtral", "num_experts_per_tok", 6.into());
    assert!(error.contains("`num_experts_per_tok` is 6"), "{error}");
    let error = refused("qwen3_moe", "decoder_sparse_step", 0.into());
    assert!(error.contains("`decoder_sparse_step` is 0"), "{error}");
    let error = refused("qwen2_moe", "mlp_only_layers", "1".into());
    assert!(error.contains("`mlp_only_layers`"), "{error}");
    let error = refused("gpt_oss", "num_local_experts", (1 << 20).into());
    assert!(error.contains("`num_local_experts`"), "{error}");
    let error = refused("mixtral", "moe_intermediate_size", 8.into());
    assert!(error.contains("`moe_intermediate_size`"), "{error}");
}

#[test]
fn a_loss_for_even_loads_is_refused_in_training() {
    let folder = tempfile::tempdir().unwrap();
    let check = |text: String| {
        std::fs::write(folder.path().join("config.json"), text).unwrap();
        DecoderConfig::check_training(folder.path()).map_err(|error| error.to_string())
    };
    assert_eq!(check(family("mixtral")), Ok(()));
    let error = check(with("mixtral", "output_router_logits", true.into())).unwrap_err();
    assert!(error.contains("`output_router_logits`"), "{error}");
    let error = check(with("mixtral", "router_jitter_noise", 0.1.into())).unwrap_err();
    assert!(error.contains("`router_jitter_noise`"), "{error}");
}

#[test]
fn adapters_are_on_the_matrices_of_every_expert() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/families/mixtral");
    let folder = ModelFolder::open(&folder).unwrap();
    let matrices = folder.config().layer_matrices(1);
    // Four of attention, three of each of five experts.
    assert_eq!(matrices.len(), 4 + 3 * 5);
    let last = matrices.last().unwrap();
    assert_eq!(
        (last.projection, last.module.as_str()),
        (
            Projection::Down,
            "model.layers.1.block_sparse_moe.experts.4.w2"
        )
    );
    let config = DecoderConfig::from_json(&family("gpt_oss")).unwrap();
    assert_eq!(
        config.projections(),
        Projection::ALL[..5]
            .iter()
            .copied()
            .filter(|p| *p != Projection::Qkv)
            .collect::<Vec<_>>()
    );
}
