//! A model, a text, and job files for them.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::running::{Ran, Running};
use crate::tiny_model::TinyModel;

/// Where jobs of a test live: model, data, job files, outputs.
pub struct Home {
    pub model: TinyModel,
    folder: tempfile::TempDir,
}

impl Home {
    pub fn new() -> Self {
        let home = Self {
            model: TinyModel::new(),
            folder: tempfile::tempdir().expect("a temporary folder"),
        };
        let text = "w3 w4 w5 w6 w7 w9 w12 w3 w4 w8 ".repeat(40);
        fs::write(home.path("data.txt"), text).expect("it can be written");
        home
    }

    /// A path within it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A LoRA job of so many steps into the folder `output`; `more` keys come last.
    pub fn job(&self, output: &str, steps: u32, more: &str) -> Job {
        self.job_into(&self.path(output), steps, more)
    }

    /// The same, with the output folder anywhere.
    pub fn job_into(&self, output: &Path, steps: u32, more: &str) -> Job {
        let quoted = |path: &Path| json!(path).to_string();
        let text = format!(
            "base_model: {}\ndatasets: [{{path: {}, type: text}}]\nmax_steps: {steps}\n\
             sequence_len: 16\nlearning_rate: 1e-2\nsave_steps: 5\noutput_dir: {}\n{more}\n",
            quoted(self.model.dir()),
            quoted(&self.path("data.txt")),
            quoted(output),
        );
        let number = fs::read_dir(self.folder.path())
            .expect("it is there")
            .count();
        let file = self.path(&format!("job-{number}.yaml"));
        fs::write(&file, text).expect("it can be written");
        Job {
            file: file.to_str().expect("UTF-8").to_string(),
            output: output.to_path_buf(),
        }
    }
}

/// A job file.
pub struct Job {
    pub file: String,
    pub output: PathBuf,
}

impl Job {
    /// Starts it on a pool of this machine.
    pub fn start(&self, more: &[&str]) -> Running {
        let command = ["--json", "train", &self.file, "--checkers", "0"];
        Running::start(&[&command, more].concat())
    }

    /// Runs it to its end.
    pub fn run(&self, more: &[&str]) -> Ran {
        self.start(more).end()
    }

    /// Names in its output folder.
    pub fn entries(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.output).expect("it is there");
        let name = |entry: fs::DirEntry| entry.file_name().to_string_lossy().into_owned();
        let mut names: Vec<String> = entries.map(|entry| name(entry.unwrap())).collect();
        names.sort();
        names
    }

    /// The lines of its log.
    pub fn log(&self) -> Vec<Value> {
        let text = fs::read_to_string(self.output.join("log.jsonl")).expect("there is a log");
        let objects = text
            .lines()
            .map(|line| serde_json::from_str(line).expect(line));
        objects.collect()
    }

    /// Asserts that the log has each of so many steps once, in order, and the result last.
    #[track_caller]
    pub fn log_is_whole(&self, steps: u64, result: &Value) {
        let mut log = self.log();
        let last = log.pop().expect("lines");
        assert_eq!(last["record_digest"], result["record_digest"], "{last}");
        let found: Vec<Option<u64>> = log.iter().map(|line| line["step"].as_u64()).collect();
        let expected: Vec<Option<u64>> = (1..=steps).map(Some).collect();
        assert_eq!(found, expected);
        let whole = |line: &Value| {
            let numbers = [
                "loss",
                "grad_norm",
                "learning_rate",
                "tokens",
                "micros",
                "time",
            ];
            numbers.iter().all(|key| line[key].is_number())
        };
        assert!(log.iter().all(whole), "{log:#?}");
    }
}
