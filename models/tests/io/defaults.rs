//! Defaults for keys that a file leaves out. `transformers/defaults.json`, written by the script
//! beside it, holds what the classes of transformers make of files that have only sizes.

use concord_kernels::ops::Activation;
use concord_models::config::{DecoderConfig, Family};
use serde_json::{Value, json};

const DEFAULTS: &str = include_str!("transformers/defaults.json");

#[test]
fn every_family_has_the_defaults_of_transformers() {
    let all: Value = serde_json::from_str(DEFAULTS).unwrap();
    let families = all["families"].as_object().unwrap();
    assert_eq!(families.len(), Family::ALL.len());
    for (model_type, facts) in families {
        let mut file = all["sizes"].clone();
        file["model_type"] = json!(model_type);
        let config = DecoderConfig::from_json(&file.to_string()).unwrap();
        assert_eq!(config.family.architecture(), facts["architecture"]);
        let eos: Vec<u32> = config.eos.clone();
        let bos: Vec<u32> = config.bos.into_iter().collect();
        let ours = json!({
            "positions": config.max_positions, "kv_heads": config.kv_heads,
            "head_dim": config.head_dim, "tied": config.tie_embeddings, "bos": bos, "eos": eos,
            "windows": config.sliding_window, "activation": name(config.activation),
            "experts": config.experts.as_ref().map(|experts| {
                json!([experts.count, experts.chosen, experts.intermediate, experts.normalised])
            }),
        });
        for (key, ours) in ours.as_object().unwrap() {
            let theirs = match facts[key].as_str() {
                // The same function by an older name.
                Some("gelu_new") => json!("gelu_pytorch_tanh"),
                _ => facts[key].clone(),
            };
            assert_eq!(*ours, theirs, "{model_type}: {key}");
        }
        let eps = facts["eps"].as_f64().unwrap() as f32;
        assert_eq!(config.norm_eps, eps, "{model_type}");
        let rotated = config.rotary_dim.unwrap_or(config.head_dim);
        for (kind, theta) in facts["thetas"].as_object().unwrap() {
            let rope = match (kind.as_str(), &config.local_rope) {
                ("sliding_attention", Some(local)) => local,
                _ => &config.rope,
            };
            assert_eq!(json!(rope.theta), *theta, "{model_type}: {kind}");
            assert_eq!(json!(rotated), facts["rotated"][kind], "{model_type}");
        }
        for (flag, is_on) in facts["flags"].as_object().unwrap() {
            let ours = match flag.as_str() {
                "mlp_bias" => config.mlp_bias,
                "attention_out_bias" => config.o_bias,
                _ => config.qkv_bias,
            };
            assert_eq!(json!(ours), *is_on, "{model_type}: {flag}");
        }
    }
}

fn name(activation: Activation) -> &'static str {
    match activation {
        // What the file of a gpt-oss says is not looked at.
        Activation::Silu | Activation::ClampedSwiglu { .. } => "silu",
        Activation::Gelu => "gelu",
        Activation::GeluTanh => "gelu_pytorch_tanh",
        Activation::ReluSquared => "relu2",
        other => panic!("no family has {other:?}"),
    }
}
