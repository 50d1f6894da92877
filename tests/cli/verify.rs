//! A job from beginning to end on a pool of this machine, and what its proof is worth.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use concord_verify::training::bundle::FILES;
use serde_json::Value;
use tempfile::TempDir;

use crate::program::{Ran, arg, concord};
use crate::tiny_model::TinyModel;

/// The folder of a job that was done once for all tests.
static JOB: LazyLock<Job> = LazyLock::new(Job::done);

struct Job {
    model: TinyModel,
    result: Value,
}

impl Job {
    fn done() -> Self {
        let model = TinyModel::new();
        let data = model.file("data.txt");
        fs::write(&data, "w3 w4 w5 w6 w7 w9 w12 w3 w4 w8 ".repeat(20)).unwrap();
        let job = model.file("job.yaml");
        let (dir, data) = (model.dir().display(), data.display());
        let text = format!(
            "{{base_model: {dir}, datasets: [{{path: {data}, type: text}}], max_steps: 3,\n\
             sequence_len: 16, learning_rate: 1e-2, lora_r: 2, gradient_accumulation_steps: 3,\n\
             output_dir: {dir}/out}}"
        );
        fs::write(&job, text).unwrap();
        let mut objects = concord(["train", arg(&job), "--json"]).good().objects();
        let result = objects.pop().unwrap();
        Self { model, result }
    }

    fn out(&self) -> PathBuf {
        self.model.file("out")
    }

    /// A copy of what the job wrote.
    fn copy(&self) -> TempDir {
        let folder = tempfile::tempdir().unwrap();
        copy(&self.out(), folder.path());
        folder
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

fn verify(folder: &Path, more: &[&str]) -> Ran {
    concord([&["verify", arg(&folder.join("proof"))], more].concat())
}

#[test]
fn a_job_is_done_and_its_proof_holds() {
    let (job, out) = (&*JOB, JOB.out());
    assert_eq!(
        (&job.result["event"], &job.result["steps"]),
        (&"result".into(), &3.into())
    );
    assert!(job.result["loss"].as_f64().unwrap() > 0.0);
    let hash = job.result["record_digest"].as_str().unwrap();
    let ran = verify(&out, &["--model", arg(&out)]).unproven();
    for word in [
        "not proven",
        "not shown",
        hash,
        "steps       3",
        "convicted   nobody",
        "weights     28 tensors",
    ] {
        assert!(ran.stdout.contains(word), "no {word:?} in\n{}", ran.stdout);
    }
    let mut object = verify(&out, &["--json"]).unproven().objects();
    // The last one is the error.
    let object = object.swap_remove(0);
    assert_eq!(
        (&object["event"], &object["record_digest"]),
        (&"unproven".into(), &hash.into())
    );
    assert_eq!(object["tensors_checked"], Value::Null);
    let tuned = concord(["generate", "--model", arg(&out), "--prompt", "w3 w4"]).good();
    assert!(!tuned.stdout.is_empty());
}

#[test]
fn a_flipped_byte_in_any_file_is_found_and_the_file_is_named() {
    for name in FILES {
        let folder = JOB.copy();
        let path = folder.path().join("proof").join(name);
        let bytes = fs::read(&path).unwrap();
        // Nothing of this job is void.
        let last = bytes.len().checked_sub(1);
        assert_eq!(last.is_none(), name == "claims.void", "{name}");
        for at in last.into_iter().flat_map(|last| [0, last / 2, last]) {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1;
            fs::write(&path, flipped).unwrap();
            let objects = verify(folder.path(), &["--json"]).objects();
            assert_eq!(
                objects[0]["event"], "refuted",
                "{name}, byte {at}: {objects:?}"
            );
            assert_eq!(objects[0]["file"], name, "byte {at}: {objects:?}");
            assert!(!objects[0]["statement"].as_str().unwrap().is_empty());
            verify(folder.path(), &[]).refused(&["not proven", name]);
        }
        fs::remove_file(&path).unwrap();
        verify(folder.path(), &[]).refused(&[name, "missing"]);
    }
}

#[test]
fn weights_that_were_not_trained_are_found() {
    let folder = JOB.copy();
    let check = || verify(folder.path(), &["--model", arg(folder.path())]);
    let weights = folder.path().join("adapter_model.safetensors");
    let bytes = fs::read(&weights).unwrap();
    let mut flipped = bytes.clone();
    // The lowest bit of the last number.
    let end = flipped.len();
    flipped[end - 4] ^= 1;
    fs::write(&weights, flipped).unwrap();
    check().refused(&[
        "adapter_model.safetensors",
        "is not the one that was trained",
    ]);
    fs::write(&weights, bytes).unwrap();
    check().unproven();

    let config = folder.path().join("adapter_config.json");
    let text = fs::read_to_string(&config).unwrap();
    fs::write(
        &config,
        text.replace("\"lora_alpha\": 16", "\"lora_alpha\": 32"),
    )
    .unwrap();
    check().refused(&[
        "adapter_config.json",
        "`lora_alpha` is 32, but 16 was trained",
    ]);
    fs::write(&config, text.replace("\"q_proj\"", "\"x_proj\"")).unwrap();
    check().refused(&["adapter_config.json", "`target_modules`"]);
}

#[test]
fn a_folder_of_two_kinds_is_refused() {
    let check = |folder: &Path| verify(folder, &["--model", arg(folder)]);
    for name in ["config.json", "model.safetensors"] {
        let folder = JOB.copy();
        fs::copy(JOB.model.file(name), folder.path().join(name)).unwrap();
        check(folder.path()).refused(&["trained an adapter", "a full model as well", name]);
    }
}

/// An adapter is computed with the model that it names.
#[test]
fn another_base_model_is_found() {
    let folder = JOB.copy();
    let check = || verify(folder.path(), &["--model", arg(folder.path())]);
    assert!(check().unproven().stdout.contains("as it was trained on"));
    let other = TinyModel::new();
    other.write_weights(|_, values| values[0] += 1.0);
    let config = folder.path().join("adapter_config.json");
    let text = fs::read_to_string(&config).unwrap();
    let (was, is) = (JOB.model.dir(), other.dir());
    fs::write(&config, text.replace(arg(was), arg(is))).unwrap();
    check().refused(&["base_model_name_or_path", arg(is), "not the model"]);
    drop(other);
    let ran = check().unproven();
    assert!(ran.stdout.contains("not compared"), "{}", ran.stdout);
}

#[test]
fn a_folder_that_is_no_proof() {
    let empty = tempfile::tempdir().unwrap();
    verify(empty.path(), &[]).unshown(&["proof", "no such file or folder"]);
    fs::create_dir(empty.path().join("proof")).unwrap();
    verify(empty.path(), &[]).refused(&["job.spec", "missing"]);
    let outer = concord(["verify", arg(empty.path())]);
    outer.unshown(&["did you mean", "proof"]);
}
