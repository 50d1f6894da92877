//! What is allowed in an output folder, and what is refused.

use std::fs;
use std::path::{Path, PathBuf};

use concord_proto::Digest;
use serde_json::json;

use super::*;
use crate::support::job_file::ReadOptions;

/// A folder with an input for a job, and the job.
struct Case {
    home: tempfile::TempDir,
}

impl Case {
    fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        fs::create_dir(home.path().join("base")).unwrap();
        fs::write(home.path().join("data.txt"), "text").unwrap();
        Self { home }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    fn job(&self, output: &str, adapter: &str) -> JobFile {
        let path = |name: &str| json!(self.path(name)).to_string();
        let text = format!(
            "{{base_model: {}, datasets: [{{path: {}, type: text}}], max_steps: 1,\n\
             sequence_len: 8, learning_rate: 1e-3, adapter: {adapter}, output_dir: {}}}",
            path("base"),
            path("data.txt"),
            path(output)
        );
        let file = self.path("job.yaml");
        fs::write(&file, text).unwrap();
        JobFile::read(&file, &ReadOptions::default()).unwrap()
    }

    fn take(&self, output: &str, overwrite: bool) -> anyhow::Result<OutputDir> {
        OutputDir::take(&self.job(output, "lora"), overwrite)
    }

    #[track_caller]
    fn refused(&self, output: &str, words: &[&str]) {
        let error = format!("{:#}", self.take(output, false).unwrap_err());
        for word in words {
            assert!(error.contains(word), "no {word:?} in {error}");
        }
    }

    /// The folder "out" as a job leaves it.
    fn done(&self, job: u8) {
        let mut output_dir = self.take("out", false).unwrap();
        output_dir
            .hold(id(job), "first", AdapterKind::Lora)
            .unwrap();
        output_dir.settle().unwrap();
        let files = [
            "adapter_config.json".to_string(),
            "proof/job.spec".to_string(),
        ];
        output_dir.note_files(&files).unwrap();
        fs::create_dir(self.path("out/proof")).unwrap();
        for file in files {
            fs::write(self.path("out").join(file), "{}").unwrap();
        }
        fs::create_dir(self.path("out/.concord-state")).unwrap();
        output_dir.finish(&json!({ "loss": 1.5 })).unwrap();
        output_dir.forget_state().unwrap();
    }
}

fn id(job: u8) -> JobId {
    JobId(Digest([job; 32]))
}

fn entries(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

#[test]
fn what_cannot_be_an_output_folder_is_refused_and_left_as_it_was() {
    let case = Case::new();
    fs::write(case.path("file"), "mine").unwrap();
    case.refused("file", &["output_dir", "is a file"]);
    case.refused("file/below/it", &["output_dir", "file is a file"]);
    case.refused("base", &["is the folder of `base_model`"]);
    case.refused("new/../base", &["is the folder of `base_model`"]);
    case.refused(".", &["contains the folder of `base_model`"]);
    assert_eq!(entries(&case.path("base")), [""; 0]);
    assert_eq!(
        entries(case.home.path()),
        ["base", "data.txt", "file", "job.yaml"]
    );
    assert_eq!(fs::read(case.path("file")).unwrap(), b"mine");
}

#[test]
fn files_of_others_are_refused_by_name() {
    for name in [
        "config.json",
        "model-00001-of-00002.safetensors",
        "adapter_config.json",
        "proof",
    ] {
        let case = Case::new();
        fs::create_dir(case.path("out")).unwrap();
        fs::write(case.path("out").join(name), "theirs").unwrap();
        case.refused("out", &[name, "another output_dir"]);
        assert_eq!(entries(&case.path("out")), [name], "nothing is added");
        // They are never removed.
        assert!(case.take("out", true).is_err());
    }
    let case = Case::new();
    fs::create_dir(case.path("out")).unwrap();
    fs::write(case.path("out/notes.md"), "mine").unwrap();
    drop(case.take("out", false).unwrap());
    assert_eq!(entries(&case.path("out")), ["notes.md"]);
}

#[test]
fn a_job_that_nobody_took_on_leaves_nothing() {
    let case = Case::new();
    let mut output_dir = case.take("a/b/out", false).unwrap();
    assert_eq!(
        output_dir.hold(id(1), "x", AdapterKind::Lora).unwrap(),
        OutputStanding::ToDo
    );
    drop(output_dir);
    assert!(!case.path("a").exists());
}

#[test]
fn two_at_a_time_are_one_too_many() {
    let case = Case::new();
    let output_dir = case.take("out", false).unwrap();
    case.refused("out", &["is in use by another"]);
    assert!(case.path("out").is_dir(), "the first one still needs it");
    drop(output_dir);
    case.take("out", false).unwrap();
}

#[test]
fn a_job_comes_back_to_its_own_folder() {
    let case = Case::new();
    let mut output_dir = case.take("out", false).unwrap();
    output_dir.hold(id(1), "x", AdapterKind::Lora).unwrap();
    output_dir.settle().unwrap();
    fs::create_dir(case.path("out/.concord-state")).unwrap();
    drop(output_dir);
    let mut output_dir = case.take("out", false).unwrap();
    assert_eq!(
        output_dir.hold(id(1), "x", AdapterKind::Lora).unwrap(),
        OutputStanding::ToDo
    );
    assert!(
        case.path("out/.concord-state").is_dir(),
        "it goes on from there"
    );
    drop(output_dir);
    // The job has no steps, so another job may take the folder, and starts afresh.
    let mut output_dir = case.take("out", false).unwrap();
    assert_eq!(
        output_dir.hold(id(2), "x", AdapterKind::Lora).unwrap(),
        OutputStanding::ToDo
    );
    assert!(!case.path("out/.concord-state").exists());
    // With a step it is unfinished work, which is protected.
    let line = json!({ "event": "step", "step": 1, "record_digest": "00" });
    fs::write(case.path("out/log.jsonl"), format!("{line}\n")).unwrap();
    drop(output_dir);
    let mut output_dir = case.take("out", false).unwrap();
    let error = output_dir
        .hold(id(3), "y", AdapterKind::Lora)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("unfinished work") && error.contains("--overwrite"),
        "{error}"
    );
}

#[test]
fn a_result_is_told_again_replaced_when_asked_and_never_mixed() {
    let case = Case::new();
    case.done(1);
    let all = [
        ".concord-job.json",
        ".concord-lock",
        "adapter_config.json",
        "proof",
    ];
    assert_eq!(entries(&case.path("out")), all);
    let hold = |job: u8, overwrite: bool| {
        let mut output_dir = case.take("out", overwrite)?;
        output_dir.hold(id(job), "second", AdapterKind::Lora)
    };
    assert_eq!(
        hold(1, false).unwrap(),
        OutputStanding::Done(json!({ "loss": 1.5 }))
    );
    let error = hold(2, false).unwrap_err().to_string();
    for word in [
        "result of another job",
        "LoRA",
        "`first`",
        "01010101",
        "--overwrite",
    ] {
        assert!(error.contains(word), "no {word:?} in {error}");
    }
    let other_kind = OutputDir::take(&case.job("out", "full"), false).unwrap_err();
    assert!(other_kind.to_string().contains("result of another job"));
    // Files of others stay, also with --overwrite.
    fs::write(case.path("out/proof/mine"), "mine").unwrap();
    assert!(hold(2, true).unwrap_err().to_string().contains("proof"));
    assert_eq!(entries(&case.path("out/proof")), ["job.spec", "mine"]);
    fs::remove_file(case.path("out/proof/mine")).unwrap();
    assert_eq!(hold(2, true).unwrap(), OutputStanding::ToDo);
    assert_eq!(
        entries(&case.path("out")),
        all,
        "a job that no coordinator has taken on replaces nothing"
    );
    let mut output_dir = case.take("out", true).unwrap();
    output_dir.hold(id(2), "second", AdapterKind::Lora).unwrap();
    output_dir.settle().unwrap();
    assert!(output_dir.replaces());
    let waiting = [".concord-job.json", ".concord-lock", ".concord-replaced"];
    assert_eq!(entries(&case.path("out")), waiting);
    drop(output_dir);
    assert_eq!(entries(&case.path("out")), waiting, "it may yet be wanted");
    let mut output_dir = case.take("out", false).unwrap();
    output_dir.hold(id(2), "second", AdapterKind::Lora).unwrap();
    output_dir.finish(&json!({})).unwrap();
    assert_eq!(entries(&case.path("out")), waiting[..2]);
}

#[test]
fn what_a_killed_process_had_put_aside_is_put_back() {
    let case = Case::new();
    case.done(1);
    let before = entries(&case.path("out"));
    let aside = case.path("out/.concord-replaced");
    // Killed before the mark was moved, and after that.
    for files in [
        &["adapter_config.json"][..],
        &["proof/job.spec", Mark::FILE],
    ] {
        for file in files {
            let to = aside.join(file);
            fs::create_dir_all(to.parent().unwrap()).unwrap();
            fs::rename(case.path("out").join(file), to).unwrap();
        }
        drop(case.take("out", false).unwrap());
        assert_eq!(entries(&case.path("out")), before, "{files:?}");
        assert!(case.path("out/proof/job.spec").is_file());
    }
}

#[test]
fn a_mark_that_leads_out_of_the_folder_is_refused() {
    for file in ["../data.txt", "/etc/passwd", "a/../../data.txt", ""] {
        let case = Case::new();
        case.done(1);
        let path = case.path("out").join(Mark::FILE);
        let text = fs::read_to_string(&path).unwrap();
        let text = text.replace("\"adapter_config.json\"", &json!(file).to_string());
        fs::write(&path, text).unwrap();
        let error = case.take("out", true).unwrap_err().to_string();
        assert!(error.contains("names"), "{file}: {error}");
        assert!(case.path("data.txt").exists());
    }
    let case = Case::new();
    case.done(1);
    let path = case.path("out").join(Mark::FILE);
    for (text, word) in [("{", "damaged"), ("{\"version\": 2}", "another release")] {
        fs::write(&path, text).unwrap();
        let error = format!("{:#}", case.take("out", true).unwrap_err());
        assert!(error.contains(word), "{error}");
        assert!(case.path("out/proof").is_dir());
    }
}

#[test]
fn a_dry_look_refuses_what_the_run_refuses() {
    let case = Case::new();
    let look = |output: &str| {
        let refused = OutputDir::look(&case.job(output, "lora")).unwrap_err();
        assert_eq!(
            format!("{refused:#}"),
            format!("{:#}", case.take(output, false).unwrap_err())
        );
    };
    look("base");
    look("data.txt");
    fs::create_dir(case.path("out")).unwrap();
    fs::write(case.path("out/config.json"), "theirs").unwrap();
    look("out");
    OutputDir::look(&case.job("new/out", "lora")).unwrap();
    assert!(!case.path("new").exists());
}

#[cfg(unix)]
#[test]
fn no_link_leads_out_of_the_folder() {
    use std::os::unix::fs::symlink;

    // A result whose mark and links are made by others, and the files of the user beside it.
    for (link, at) in [
        ("proof", "proof"),
        ("log.jsonl", "log.jsonl"),
        (".concord-lock", ".concord-lock"),
        (".concord-state", ".concord-state"),
        (".concord-replaced", ".concord-replaced"),
        ("checkpoint-1/config.json", "checkpoint-1"),
        ("runs", "runs"),
    ] {
        let case = Case::new();
        case.done(1);
        let out = case.path("out");
        let _ = fs::remove_dir_all(out.join("proof"));
        let _ = fs::remove_file(out.join(".concord-lock"));
        let mark = out.join(Mark::FILE);
        let text = fs::read_to_string(&mark).unwrap();
        let listed = "\"runs/events.out.tfevents.0.1\"";
        let text = text.replace("\"adapter_config.json\"", listed);
        fs::write(&mark, text).unwrap();
        fs::create_dir(case.path("mine")).unwrap();
        for file in ["job.spec", "events.out.tfevents.0.1", "other"] {
            fs::write(case.path("mine").join(file), "precious").unwrap();
        }
        if let Some(parent) = Path::new(link).parent() {
            fs::create_dir_all(out.join(parent)).unwrap();
        }
        symlink(case.path("mine"), out.join(link)).unwrap();
        for overwrite in [false, true] {
            let error = case.take("out", overwrite).unwrap_err().to_string();
            assert!(error.contains("is a link") && error.contains(at), "{error}");
        }
        let mine = ["events.out.tfevents.0.1", "job.spec", "other"];
        assert_eq!(entries(&case.path("mine")), mine, "{link}");
    }
}

#[test]
fn a_mark_of_others_names_only_files_of_a_result() {
    for (replaced, by) in [
        ("\"adapter_config.json\"", "\"sub/.bashrc\""),
        ("\"proof/job.spec\"", "\"proof/mine\""),
    ] {
        let case = Case::new();
        case.done(1);
        let aside = case.path("out/.concord-replaced");
        fs::create_dir_all(aside.join("sub")).unwrap();
        fs::write(aside.join("sub/.bashrc"), "theirs").unwrap();
        let mark = fs::read_to_string(case.path("out").join(Mark::FILE)).unwrap();
        fs::write(aside.join(Mark::FILE), mark.replace(replaced, by)).unwrap();
        let error = case.take("out", true).unwrap_err().to_string();
        assert!(error.contains("no file of a result"), "{error}");
        assert!(!case.path("out/sub").exists());
    }
    let case = Case::new();
    case.done(1);
    let path = case.path("out").join(Mark::FILE);
    let mark = fs::read_to_string(&path).unwrap();
    let id = id(1).to_string();
    fs::write(&path, mark.replace(&id, "\u{20ac}\u{20ac}\u{20ac}\u{20ac}")).unwrap();
    let error = case.take("out", false).unwrap_err().to_string();
    assert!(error.contains("no id of a job"), "{error}");
}
