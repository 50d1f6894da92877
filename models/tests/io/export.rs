//! Model folders that are written.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use concord_kernels::Tensor;
use concord_models::export::{ExportDtype, save_model, write_tensors};
use concord_models::weights::ModelFolder;
use concord_text::TextTokenizer;
use serde_json::Value;

use crate::fixtures::{SHARED_MODELS, config_json, says, shared, write_model};

fn all(model: &ModelFolder) -> BTreeMap<String, Tensor> {
    let names = model.config().tensors().into_iter().map(|spec| spec.name);
    names
        .map(|name| (name.clone(), model.load(&name).unwrap()))
        .collect()
}

#[test]
fn the_models_of_shared_come_out_as_they_went_in() {
    let Some(models) = shared("models") else {
        return;
    };
    for name in SHARED_MODELS {
        let base = ModelFolder::open(&models.join(name)).unwrap();
        let folder = tempfile::tempdir().unwrap();
        save_model(folder.path(), &base, &all(&base), None).unwrap();
        let back = ModelFolder::open(folder.path()).unwrap();
        assert_eq!(back.config(), base.config());
        for spec in base.config().tensors() {
            assert_eq!(back.dtype(&spec.name), base.dtype(&spec.name));
            assert!(back.bytes(&spec.name).unwrap() == base.bytes(&spec.name).unwrap());
        }
        TextTokenizer::open(folder.path())
            .unwrap()
            .check(back.config().vocab)
            .unwrap();
        let read = |folder: &Path, file: &str| fs::read(folder.join(file)).unwrap();
        assert_eq!(
            read(folder.path(), "config.json"),
            read(base.dir(), "config.json")
        );
        if base.files().count() == 1 {
            let file = "model.safetensors";
            assert!(
                read(folder.path(), file) == read(base.dir(), file),
                "{name}: the same bytes"
            );
        }
    }
}

#[test]
fn another_format_is_told_to_transformers() {
    let made = tempfile::tempdir().unwrap();
    let tensors = write_model(made.path(), &config_json());
    let base = ModelFolder::open(made.path()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    save_model(folder.path(), &base, &tensors, Some(ExportDtype::BF16)).unwrap();
    let text = fs::read(folder.path().join("config.json")).unwrap();
    let config: Value = serde_json::from_slice(&text).unwrap();
    assert_eq!(config["torch_dtype"], "bfloat16");
    let back = ModelFolder::open(folder.path()).unwrap();
    assert!(
        all(&back) == tensors,
        "the fixture's values are exact in bf16"
    );
    // Over an older export: the same bytes again, and nothing left over.
    save_model(folder.path(), &base, &tensors, Some(ExportDtype::BF16)).unwrap();
    assert_eq!(fs::read(folder.path().join("config.json")).unwrap(), text);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 4);
}

/// The result of a fine-tune is prompted as its base model is.
#[test]
fn chat_templates_go_along() {
    let made = tempfile::tempdir().unwrap();
    let tensors = write_model(made.path(), &config_json());
    let more = "additional_chat_templates";
    fs::create_dir(made.path().join(more)).unwrap();
    let tools = format!("{more}/tool_use.jinja");
    let templates = ["chat_template.jinja", "chat_template.json", &tools];
    for name in templates
        .into_iter()
        .chain(["additional_chat_templates/x.py"])
    {
        fs::write(made.path().join(name), name).unwrap();
    }
    let base = ModelFolder::open(made.path()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    save_model(folder.path(), &base, &tensors, None).unwrap();
    for name in templates {
        let text = fs::read_to_string(folder.path().join(name));
        assert_eq!(text.unwrap(), name);
    }
    assert_eq!(fs::read_dir(folder.path().join(more)).unwrap().count(), 1);
}

#[test]
fn what_is_no_model_is_not_written() {
    let made = tempfile::tempdir().unwrap();
    let tensors = write_model(made.path(), &config_json());
    let base = ModelFolder::open(made.path()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let save = |change: &dyn Fn(&mut BTreeMap<String, Tensor>), dtype| {
        let mut tensors = tensors.clone();
        change(&mut tensors);
        save_model(folder.path(), &base, &tensors, dtype).unwrap_err()
    };
    let name = "model.norm.weight";
    let error = save(&|tensors| drop(tensors.remove(name)), None);
    says(error, &["model.safetensors", name, "missing"]);
    let error = save(
        &|tensors| drop(tensors.insert(name.into(), Tensor::zeros(&[3]))),
        None,
    );
    says(error, &[name, "[3]", "[8]"]);
    let error = save(
        &|tensors| tensors.get_mut(name).unwrap().values_mut().unwrap()[2] = f32::NAN,
        None,
    );
    says(error, &[name, "element 2", "NaN"]);
    let big = |tensors: &mut BTreeMap<String, Tensor>| {
        tensors.get_mut(name).unwrap().values_mut().unwrap()[1] = 70_000.0;
    };
    says(
        save(&big, Some(ExportDtype::F16)),
        &[name, "F16", "element 1", "70000"],
    );
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

/// Not a test by itself: what [`a_full_disk_keeps_the_old_file`] runs in a process that may write
/// no more than 64 KiB to a file.
#[test]
#[ignore = "run by a_full_disk_keeps_the_old_file"]
fn write_too_much() {
    let folder = std::env::var("CONCORD_TEST_FOLDER").unwrap();
    let tensors = BTreeMap::from([("x".to_string(), Tensor::zeros(&[1 << 20]))]);
    let path = Path::new(&folder).join("model.safetensors");
    says(
        write_tensors(&path, &tensors, |_| ExportDtype::F32).unwrap_err(),
        &["cannot write", "model.safetensors"],
    );
}

#[cfg(unix)]
#[test]
fn a_full_disk_keeps_the_old_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    let old = BTreeMap::from([("x".to_string(), Tensor::zeros(&[16]))]);
    write_tensors(&path, &old, |_| ExportDtype::F32).unwrap();
    let before = fs::read(&path).unwrap();
    // A limit on the size of files fails a write half-way, as a full disk does, without a disk.
    let script = "trap '' XFSZ; ulimit -f 128; \
                  exec \"$0\" --exact export::write_too_much --ignored";
    let done = Command::new("sh")
        .args(["-c", script])
        .arg(std::env::current_exe().unwrap())
        .env("CONCORD_TEST_FOLDER", folder.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&done.stdout).into_owned();
    assert!(done.status.success() && said.contains("1 passed"), "{said}");
    assert_eq!(fs::read(&path).unwrap(), before);
    assert_eq!(
        fs::read_dir(folder.path()).unwrap().count(),
        1,
        "no half-written rest"
    );
}
