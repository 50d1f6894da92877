//! The canonical text of a configuration.

use std::path::Path;

use concord_models::config::DecoderConfig;

use crate::fixtures::config_json;

/// The configurations of all families that have a reference.
fn all() -> Vec<DecoderConfig> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/families");
    let entries = std::fs::read_dir(folder).unwrap();
    let folders = entries.map(|entry| entry.unwrap().path());
    let with_config = folders.filter(|path| path.join("config.json").is_file());
    with_config
        .map(|path| DecoderConfig::from_folder(&path).unwrap())
        .collect()
}

#[test]
fn every_family_comes_back_from_it() {
    let all = all();
    assert!(all.len() >= 20, "{}", all.len());
    for config in all {
        let text = config.canonical();
        let back = DecoderConfig::from_canonical(&text).unwrap();
        let expected = DecoderConfig {
            // The first family with parts of these names.
            family: back.family,
            bos: None,
            eos: Vec::new(),
            ..config
        };
        assert_eq!(back, expected, "{text}");
        assert_eq!(back.canonical(), text);
    }
}

#[test]
fn what_is_beyond_a_bound_is_refused() {
    let text = DecoderConfig::from_json(&config_json().to_string())
        .unwrap()
        .canonical();
    for (from, to) in [
        ("\"hidden\":8", "\"hidden\":0"),
        ("\"hidden\":8", "\"hidden\":1000000000000"),
        ("\"kv_heads\":2", "\"kv_heads\":3"),
        ("\"head_dim\":2", "\"head_dim\":5"),
        ("\"layers\":2", "\"layers\":900"),
        ("\"sliding_window\":[null,null]", "\"sliding_window\":[]"),
        ("\"unrotated\":[]", "\"unrotated\":[77]"),
        ("\"norm_eps\":", "\"norm_eps\":-"),
        ("\"rotary_dim\":null", "\"rotary_dim\":100000"),
        ("\"attention_scale\":null", "\"attention_scale\":0.0"),
        ("\"theta\":", "\"theta\":-"),
        ("\"vocab\":300", "\"vocab\":\"many\""),
    ] {
        let changed = text.replacen(from, to, 1);
        assert_ne!(changed, text, "{from}");
        let error = DecoderConfig::from_canonical(&changed).unwrap_err();
        assert!(error.to_string().contains("`config`"), "{error}");
    }
    // Another text for the same configuration.
    for other in [format!(" {text}"), text.replacen('{', r#"{"more":1,"#, 1)] {
        assert!(DecoderConfig::from_canonical(&other).is_err());
    }
}
