//! Data sets that cannot be trained on: each is refused before any pool is started.

use std::fs;
use std::path::PathBuf;

use crate::program::{Ran, arg, concord};
use crate::tiny_model::TinyModel;

/// A job on a tiny model, with a data file.
struct Job {
    model: TinyModel,
    data: PathBuf,
}

impl Job {
    fn new(data: &str, content: &[u8]) -> Self {
        let model = TinyModel::new();
        let data = model.file(data);
        fs::write(&data, content).unwrap();
        Self { model, data }
    }

    fn train(&self, kind: &str, sequence_len: u32) -> Ran {
        let job = self.model.file("job.yaml");
        let (model, data) = (self.model.dir().display(), self.data.display());
        let out = self.model.file("out");
        let text = format!(
            "{{base_model: {model}, datasets: [{{path: {data}, type: {kind}}}], max_steps: 1,\n\
             sequence_len: {sequence_len}, learning_rate: 1e-3, output_dir: {}}}",
            out.display()
        );
        fs::write(&job, text).unwrap();
        let ran = concord(["train", arg(&job)]);
        assert!(!out.exists(), "a refused job writes nothing");
        ran
    }
}

#[test]
fn an_empty_or_missing_file() {
    let job = Job::new("a.txt", b"");
    job.train("text", 8).refused(&["a.txt", "it is empty"]);
    fs::remove_file(&job.data).unwrap();
    job.train("text", 8).refused(&["cannot read", "a.txt"]);
}

#[test]
fn a_file_that_is_no_text() {
    Job::new("a.txt", b"w3 \xff")
        .train("text", 8)
        .refused(&["a.txt", "not UTF-8", "byte 3"]);
}

#[test]
fn a_text_that_is_too_short() {
    let job = Job::new("a.txt", b"w3 w4 w5");
    job.train("text", 8)
        .refused(&["a.txt", "3 tokens", "one sequence of 8"]);
}

#[test]
fn a_line_that_is_not_json_is_named() {
    let lines = b"{\"instruction\": \"w3\", \"output\": \"w4\"}\n\n{\"instruction\": w3}\n";
    let job = Job::new("a.jsonl", lines);
    job.train("instruct", 8)
        .refused(&["a.jsonl", "3", "not a JSON object"]);
}

#[test]
fn a_field_that_is_missing_is_named() {
    let job = Job::new("a.jsonl", b"{\"question\": \"w3\", \"output\": \"w4\"}\n");
    job.train("instruct", 8).refused(&[
        "a.jsonl",
        "1",
        "`instruction`",
        "set `field_instruction: question`",
    ]);
}

#[test]
fn a_field_that_would_be_left_out_is_named() {
    let lines = b"{\"instruction\": \"w3\", \"context\": \"w4\", \"output\": \"w5\"}\n";
    Job::new("a.jsonl", lines).train("instruct", 8).refused(&[
        "a.jsonl, line 1",
        "`context`",
        "set `field_input: context`",
    ]);
}

#[test]
fn most_examples_without_room() {
    let row = |words: usize| {
        format!(
            "{{\"instruction\": \"{}\", \"output\": \"w4\"}}\n",
            "w3 ".repeat(words)
        )
    };
    let lines = [row(2), row(40), row(30)].concat();
    Job::new("a.jsonl", lines.as_bytes())
        .train("instruct", 8)
        .refused(&["2 of 3 instructions", "sequence_len = 8", "42 tokens"]);
}

#[test]
fn a_text_of_utf_16() {
    Job::new("a.txt", b"\xff\xfew\x003\0")
        .train("text", 8)
        .refused(&["a.txt", "UTF-16", "UTF-8"]);
}

#[test]
fn a_sequence_longer_than_the_model() {
    let job = Job::new("a.txt", "w3 ".repeat(200).as_bytes());
    job.train("text", 65).refused(&["65", "64"]);
}
