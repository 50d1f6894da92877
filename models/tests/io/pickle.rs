//! Files of torch.save: the numbers that torch has, and no code that runs.

use std::fs;
use std::path::{Path, PathBuf};

use concord_models::weights::{ModelFolder, TensorFile};
use serde_json::json;

use crate::fixtures::says;

/// What `pickles/make_pickles.py` wrote.
fn file(name: &str) -> PathBuf {
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/io/pickles");
    own.join(name)
}

/// A folder with the configuration, and one file of weights.
fn folder(name: &str, bytes: &[u8]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::copy(file("config.json"), folder.path().join("config.json")).unwrap();
    fs::write(folder.path().join(name), bytes).unwrap();
    folder
}

#[track_caller]
fn has_the_numbers_of_torch(folder: &Path) {
    let model = ModelFolder::open(folder).unwrap();
    assert!(model.config().tie_embeddings);
    let expected = TensorFile::open(&file("expected.safetensors")).unwrap();
    for spec in model.config().tensors() {
        let name = &spec.name;
        assert_eq!(
            model.bytes(name).unwrap(),
            expected.bytes(name).unwrap(),
            "{name}"
        );
        assert_eq!(model.dtype(name), expected.dtype(name), "{name}");
        assert_eq!(
            model.load(name).unwrap(),
            expected.load(name).unwrap(),
            "{name}"
        );
        let form = model.stored_form(name).unwrap();
        assert_eq!(
            &fs::read(form.file.unwrap()).unwrap()[form.place.unwrap()],
            expected.bytes(name).unwrap()
        );
    }
}

#[test]
fn the_numbers_are_those_of_torch_in_every_layout() {
    for written in ["pytorch_model.bin", "legacy.bin"] {
        let bytes = fs::read(file(written)).unwrap();
        has_the_numbers_of_torch(folder("pytorch_model.bin", &bytes).path());
        has_the_numbers_of_torch(folder("model.pth", &bytes).path());
        let sharded = folder("pytorch_model-00001-of-00001.bin", &bytes);
        let names = TensorFile::open_pickle(&file(written)).unwrap();
        let map = names
            .names()
            .map(|name| (name.to_string(), json!("pytorch_model-00001-of-00001.bin")));
        let index = json!({"weight_map": map.collect::<serde_json::Map<_, _>>()});
        let path = sharded.path().join("pytorch_model.bin.index.json");
        fs::write(path, index.to_string()).unwrap();
        has_the_numbers_of_torch(sharded.path());
    }
}

#[test]
fn safetensors_come_first() {
    let folder = folder("pytorch_model.bin", b"no pickle at all");
    says(
        ModelFolder::open(folder.path()).unwrap_err(),
        &["pytorch_model.bin", "torch.save"],
    );
    fs::copy(
        file("expected.safetensors"),
        folder.path().join("model.safetensors"),
    )
    .unwrap();
    has_the_numbers_of_torch(folder.path());
}

/// The bytes with some replaced.
fn replaced(bytes: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let at = bytes.windows(from.len()).position(|some| some == from);
    let at = at.expect("it has these bytes");
    [&bytes[..at], to, &bytes[at + from.len()..]].concat()
}

#[test]
fn what_is_no_dictionary_of_tensors_is_refused_by_name() {
    let legacy = fs::read(file("legacy.bin")).unwrap();
    let whole = fs::read(file("pytorch_model.bin")).unwrap();
    let rebuild = b"ctorch._utils\n_rebuild_tensor_v2\n";
    let name = "model.layers.0.self_attn.q_proj.weight";
    for (bytes, parts) in [
        (
            replaced(&legacy, rebuild, b"cposix\nsystem\n"),
            ["`posix.system`", "could run code"],
        ),
        (
            replaced(&legacy, rebuild, b"c__builtin__\neval\n"),
            ["`__builtin__.eval`", "safetensors"],
        ),
        // NEWOBJ, which makes an object of a class.
        (
            replaced(
                &legacy,
                b"torch\nHalfStorage\n",
                b"torch\nHalfStorage\n)\x81",
            ),
            ["step 0x81", "safetensors"],
        ),
        (fs::read(file("turned.bin")).unwrap(), [name, "strides"]),
        (
            fs::read(file("checkpoint.bin")).unwrap(),
            ["`state_dict`", "checkpoint of training"],
        ),
        (
            replaced(&whole, b"little", b"big..."),
            ["order of bytes", "save_pretrained"],
        ),
        // A storage with fewer numbers than its tensors need.
        (
            replaced(&legacy, b"K\xa0N", b"K\x01N"),
            ["model.embed_tokens.weight", "beyond"],
        ),
        (b"PK\x05\x06".to_vec(), ["cut short", "download"]),
        (
            b"\x80\x02}.".to_vec(),
            ["not one of torch.save", "safetensors"],
        ),
    ] {
        let folder = folder("pytorch_model.bin", &bytes);
        let error = ModelFolder::open(folder.path()).unwrap_err();
        says(error, &[&["pytorch_model.bin"][..], &parts].concat());
    }
}

#[test]
fn files_cut_short_anywhere_are_refused() {
    for name in ["pytorch_model.bin", "legacy.bin"] {
        let whole = fs::read(file(name)).unwrap();
        for length in (0..whole.len()).step_by(5) {
            let folder = folder("pytorch_model.bin", &whole[..length]);
            let error = ModelFolder::open(folder.path()).unwrap_err().to_string();
            assert!(error.contains("pytorch_model.bin"), "{error}");
        }
    }
}

/// A pickle may hold itself, and say a number a thousand times: neither takes more than its bytes.
#[test]
fn values_in_circles_and_in_heaps() {
    let legacy = fs::read(file("legacy.bin")).unwrap();
    let begin = legacy
        .windows(2)
        .position(|two| two == b"\x80\x02")
        .unwrap();
    assert_eq!(begin, 0);
    // Magic, version, machine: the state is the fourth pickle.
    let state = |body: &[u8]| {
        let mut third = legacy
            .windows(3)
            .enumerate()
            .filter(|(_, some)| some == b".\x80\x02");
        let (at, _) = third.nth(2).unwrap();
        [&legacy[..=at], b"\x80\x02", body, b".\x80\x02]q\x00."].concat()
    };
    let circle = state(b"]q\x00h\x00a");
    let nested = state(&[&b"N"[..], &b"\x85".repeat(1 << 16)].concat());
    let heap = state(&b"N".repeat((1 << 22) + 1));
    for (bytes, part) in [
        (circle, "no dictionary"),
        (nested, "no dictionary"),
        (heap, "steps"),
    ] {
        let folder = folder("pytorch_model.bin", &bytes);
        says(ModelFolder::open(folder.path()).unwrap_err(), &[part]);
    }
}

#[test]
fn a_pointer_of_git_lfs_is_named() {
    let pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n";
    for name in ["model.safetensors", "pytorch_model.bin", "model.gguf"] {
        let folder = folder(name, pointer);
        let error = ModelFolder::open(folder.path()).unwrap_err();
        says(error, &[name, "git lfs pull"]);
    }
}
