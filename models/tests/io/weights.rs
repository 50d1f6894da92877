//! Safetensors, whole and broken.

use std::fs;
use std::path::Path;

use concord_models::weights::{ModelFolder, TensorFile};
use serde_json::json;

use crate::fixtures::{
    SHARED_MODELS, config_json, config_with, raw_safetensors, says, shared, write_model,
};

#[test]
fn the_models_of_shared() {
    let Some(models) = shared("models") else {
        return;
    };
    for name in SHARED_MODELS {
        let folder = ModelFolder::open(&models.join(name)).unwrap();
        let mut elements = 0;
        for spec in folder.config().tensors() {
            let tensor = folder.load(&spec.name).unwrap();
            assert_eq!(tensor.shape(), spec.shape, "{name} {}", spec.name);
            elements += tensor.data().len();
        }
        if name == "tinystories-260k" {
            assert_eq!(elements, 260_032);
        }
        let head = folder.load("lm_head.weight").unwrap();
        let embed = folder.load("model.embed_tokens.weight").unwrap();
        assert_eq!(head == embed, folder.config().tie_embeddings, "{name}");
    }
}

#[test]
fn bf16_is_widened_by_its_bits() {
    let Some(models) = shared("models") else {
        return;
    };
    let folder = ModelFolder::open(&models.join("tiny-llama31")).unwrap();
    assert_eq!(folder.files().count(), 3);
    let name = "model.layers.2.mlp.up_proj.weight";
    let bytes = folder.bytes(name).unwrap();
    let tensor = folder.load(name).unwrap();
    assert_eq!(bytes.len(), tensor.data().len() * 2);
    for (pair, value) in bytes.chunks_exact(2).zip(tensor.data()) {
        let bits = u32::from(u16::from_le_bytes([pair[0], pair[1]])) << 16;
        assert_eq!(value.to_bits(), bits);
    }
}

#[test]
fn every_f16_is_exact() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.safetensors");
    // All finite half floats, by their definition: sign, 5 bits of exponent, 10 of fraction.
    let halves: Vec<u16> = (0..=u16::MAX)
        .filter(|bits| bits & 0x7C00 != 0x7C00)
        .collect();
    let header = format!(
        r#"{{"x":{{"dtype":"F16","shape":[{}],"data_offsets":[0,{}]}}}}"#,
        halves.len(),
        halves.len() * 2
    );
    let data: Vec<u8> = halves.iter().flat_map(|bits| bits.to_le_bytes()).collect();
    fs::write(&path, raw_safetensors(&header, &data)).unwrap();
    let tensor = TensorFile::open(&path).unwrap().load("x").unwrap();
    for (bits, value) in halves.iter().zip(tensor.data()) {
        let (exponent, fraction) = (i32::from(bits >> 10 & 31), f64::from(bits & 0x3FF));
        let size = match exponent {
            0 => fraction * f64::powi(2.0, -24),
            _ => (1024.0 + fraction) * f64::powi(2.0, exponent - 25),
        };
        assert_eq!(f64::from(value.abs()), size);
        assert_eq!(value.is_sign_negative(), bits >> 15 == 1);
    }
}

#[test]
fn a_file_cut_short_anywhere() {
    let folder = tempfile::tempdir().unwrap();
    write_model(folder.path(), &config_json());
    let path = folder.path().join("model.safetensors");
    let whole = fs::read(&path).unwrap();
    for length in (0..whole.len())
        .step_by(61)
        .chain([7, 8, 9, whole.len() - 1])
    {
        fs::write(&path, &whole[..length]).unwrap();
        let error = ModelFolder::open(folder.path()).unwrap_err();
        says(&error, &["model.safetensors"]);
        if length + 1 == whole.len() {
            says(error, &["cut short", "model.norm.weight"]);
        }
    }
    fs::write(&path, [whole.as_slice(), b"more"].concat()).unwrap();
    says(
        ModelFolder::open(folder.path()).unwrap_err(),
        &["more than its header accounts for"],
    );
    fs::remove_file(&path).unwrap();
    says(
        ModelFolder::open(folder.path()).unwrap_err(),
        &["no weights", "index.json"],
    );
}

#[test]
fn a_flipped_byte_of_the_header_never_panics() {
    let folder = tempfile::tempdir().unwrap();
    write_model(folder.path(), &config_json());
    let path = folder.path().join("model.safetensors");
    let whole = fs::read(&path).unwrap();
    let header = 8 + u64::from_le_bytes(whole[..8].try_into().unwrap()) as usize;
    for place in 0..header {
        let mut bytes = whole.clone();
        bytes[place] ^= 1 << (place % 8);
        fs::write(&path, &bytes).unwrap();
        if let Ok(model) = ModelFolder::open(folder.path()) {
            let names = model.config().tensors();
            names
                .iter()
                .for_each(|spec| assert!(model.load(&spec.name).is_ok()));
        }
    }
}

#[test]
fn headers_that_lie() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.safetensors");
    let table: [(&str, usize, &[&str]); 5] = [
        (
            r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},
                "b":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}}"#,
            12,
            &["`b`", "overlaps"],
        ),
        (
            r#"{"a":{"dtype":"F32","shape":[3],"data_offsets":[0,8]}}"#,
            8,
            &["number of bytes"],
        ),
        (
            r#"{"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,8]}}"#,
            8,
            &["overflow"],
        ),
        (
            r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#,
            4,
            &["`a`", "cut short"],
        ),
        ("not json", 4, &["JSON"]),
    ];
    for (header, data, parts) in table {
        fs::write(&path, raw_safetensors(header, &vec![0; data])).unwrap();
        let error = TensorFile::open(&path).unwrap_err();
        says(&error, &["x.safetensors"]);
        says(error, parts);
    }
}

#[test]
fn tensors_that_do_not_fit_the_config() {
    let folder = tempfile::tempdir().unwrap();
    write_model(folder.path(), &config_json());
    let open_with = |config: serde_json::Value| {
        fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
        ModelFolder::open(folder.path()).unwrap_err()
    };
    let error = open_with(config_with(json!({"intermediate_size": 14})));
    says(
        error,
        &[
            "model.safetensors",
            "model.layers.0.mlp.gate_proj.weight",
            "[12, 8]",
            "[14, 8]",
        ],
    );
    let error = open_with(config_with(json!({"num_hidden_layers": 3})));
    says(
        error,
        &[
            "model.safetensors",
            "`model.layers.2.input_layernorm.weight` is missing",
        ],
    );
}

#[test]
fn numbers_that_are_no_weights() {
    let folder = tempfile::tempdir().unwrap();
    let tensors = write_model(folder.path(), &config_json());
    let path = folder.path().join("model.safetensors");
    let whole = fs::read(&path).unwrap();
    let name = "model.layers.1.self_attn.k_proj.weight";
    let needle = tensors[name].data();
    let needle: Vec<u8> = needle.iter().flat_map(|v| v.to_le_bytes()).collect();
    let at = whole
        .windows(needle.len())
        .position(|bytes| bytes == needle)
        .unwrap();
    for (bad, word) in [(f32::NAN, "NaN"), (f32::NEG_INFINITY, "-inf")] {
        let mut bytes = whole.clone();
        bytes[at + 5 * 4..at + 6 * 4].copy_from_slice(&bad.to_le_bytes());
        fs::write(&path, &bytes).unwrap();
        let model = ModelFolder::open(folder.path()).unwrap();
        says(
            model.load(name).unwrap_err(),
            &["model.safetensors", name, "element 5", word],
        );
        assert!(model.load("model.norm.weight").is_ok());
    }
    let text = String::from_utf8_lossy(&whole).into_owned();
    assert!(text.contains("F32"));
    let at = whole.windows(3).position(|bytes| bytes == b"F32").unwrap();
    let mut bytes = whole;
    bytes[at..at + 3].copy_from_slice(b"I32");
    fs::write(&path, &bytes).unwrap();
    says(
        ModelFolder::open(folder.path()).unwrap_err(),
        &["lm_head.weight", "I32", "BF16"],
    );
}

/// Splits the model of `folder` into two shards with an index.
fn shard(folder: &Path) -> serde_json::Value {
    let tensors = write_model(folder, &config_json());
    fs::remove_file(folder.join("model.safetensors")).unwrap();
    let mut map = serde_json::Map::new();
    let mut shards = [
        std::collections::BTreeMap::new(),
        std::collections::BTreeMap::new(),
    ];
    for (index, (name, tensor)) in tensors.into_iter().enumerate() {
        map.insert(name.clone(), format!("s{}.safetensors", index % 2).into());
        shards[index % 2].insert(name, tensor);
    }
    for (index, shard) in shards.iter().enumerate() {
        let path = folder.join(format!("s{index}.safetensors"));
        let dtype = |_: &str| concord_models::export::ExportDtype::BF16;
        concord_models::export::write_tensors(&path, shard, dtype).unwrap();
    }
    json!({ "weight_map": map })
}

#[test]
fn shards_and_their_index() {
    let folder = tempfile::tempdir().unwrap();
    let index = shard(folder.path());
    let path = folder.path().join("model.safetensors.index.json");
    let open_with = |index: &serde_json::Value| {
        fs::write(&path, index.to_string()).unwrap();
        ModelFolder::open(folder.path())
    };
    let model = open_with(&index).unwrap();
    let expected = crate::fixtures::tensors(model.config());
    for (name, tensor) in &expected {
        assert_eq!(&model.load(name).unwrap(), tensor, "{name}");
    }

    let name = "model.norm.weight";
    let mut lying = index.clone();
    let home = index["weight_map"][name].as_str().unwrap();
    let other = if home == "s0.safetensors" {
        "s1.safetensors"
    } else {
        "s0.safetensors"
    };
    lying["weight_map"][name] = other.into();
    says(open_with(&lying).unwrap_err(), &[other, name, "missing"]);

    let mut lacking = index.clone();
    lacking["weight_map"].as_object_mut().unwrap().remove(name);
    // Its shard has it all the same, and transformers reads all that shards have.
    assert_eq!(
        open_with(&lacking).unwrap().load(name).unwrap(),
        expected[name]
    );
    let mut unknown = index.clone();
    unknown["weight_maps"] = json!({});
    says(
        open_with(&unknown).unwrap_err(),
        &["index.json", "`weight_maps`"],
    );
    let twice = index.to_string().replacen(
        &format!("\"{name}\":\"{home}\""),
        &format!("\"{name}\":\"{home}\",\"{name}\":\"{other}\""),
        1,
    );
    fs::write(&path, twice).unwrap();
    let error = ModelFolder::open(folder.path()).unwrap_err();
    says(error, &["index.json", name, "is there twice"]);

    for outside in ["../s0.safetensors", "/etc/passwd", ".."] {
        let mut escaping = index.clone();
        escaping["weight_map"][name] = outside.into();
        says(
            open_with(&escaping).unwrap_err(),
            &["index.json", outside, "same folder"],
        );
    }
    says(
        open_with(&json!({"weight_map": 3})).unwrap_err(),
        &["index.json", "`weight_map` is 3", "an object"],
    );
    fs::remove_file(folder.path().join("s1.safetensors")).unwrap();
    says(open_with(&index).unwrap_err(), &["read", "s1.safetensors"]);
}

#[test]
fn a_tensor_in_two_shards() {
    let folder = tempfile::tempdir().unwrap();
    let index = shard(folder.path());
    let path = folder.path().join("model.safetensors.index.json");
    fs::write(&path, index.to_string()).unwrap();
    let whole = ModelFolder::open(folder.path()).unwrap();
    let home = |name: &str| index["weight_map"][name].as_str().unwrap().to_string();
    let name = "model.norm.weight";
    let other = ["s0.safetensors", "s1.safetensors"];
    let other = other
        .into_iter()
        .find(|shard| *shard != home(name))
        .unwrap();
    let names = whole.config().tensors().into_iter().map(|spec| spec.name);
    let inside = names.filter(|one| one == name || home(one) == other);
    let tensors = inside.map(|name| (name.clone(), whole.load(&name).unwrap()));
    let dtype = |_: &str| concord_models::export::ExportDtype::BF16;
    let tensors = tensors.collect();
    concord_models::export::write_tensors(&folder.path().join(other), &tensors, dtype).unwrap();
    let error = ModelFolder::open(folder.path()).unwrap_err();
    says(error, &[other, name, &home(name), "left over"]);
}
