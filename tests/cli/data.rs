//! What a job learns of a data set, and what it says about it.

use std::fs;

use serde_json::Value;

use crate::program::{arg, concord};
use crate::tiny_model::TinyModel;

/// The objects of a job of one step on a data set, and what was on stderr.
fn train(model: &TinyModel, name: &str, data: &[u8], kind: &str) -> (Vec<Value>, String) {
    let (path, job) = (model.file(name), model.file("job.yaml"));
    fs::write(&path, data).unwrap();
    let text = format!(
        "{{base_model: {}, datasets: [{{path: {}, type: {kind}}}], max_steps: 1,\n\
         sequence_len: 8, learning_rate: 1e-3, lora_r: 1, output_dir: {}}}",
        model.dir().display(),
        path.display(),
        model.file("out").display()
    );
    fs::write(&job, text).unwrap();
    let ran = concord(["train", arg(&job), "--json", "--checkers", "0"]).good();
    (ran.objects(), ran.stderr)
}

fn event<'a>(objects: &'a [Value], name: &str) -> &'a Value {
    let found = objects.iter().find(|object| object["event"] == name);
    found.unwrap_or_else(|| panic!("no {name} in {objects:?}"))
}

/// The id of the job on these rows: a digest of the data, among others.
fn job(rows: &str) -> String {
    let (objects, _) = train(&TinyModel::new(), "a.jsonl", rows.as_bytes(), "instruct");
    event(&objects, "submitted")["job"].to_string()
}

#[test]
fn the_input_of_an_example_is_data() {
    let with = |input: &str| {
        format!(
            "{{\"instruction\": \"w3\", {input} \"output\": \"w4\"}}\n\
             {{\"instruction\": \"w5\", \"output\": \"w6\"}}\n"
        )
    };
    let plain = job(&with(""));
    assert_eq!(
        job(&with("\"input\": \"\",")),
        plain,
        "an empty input is none"
    );
    assert_eq!(
        job(&format!("\u{feff}{}", with(""))),
        plain,
        "a mark is no data"
    );
    let array = with("").trim_end().replace("}\n{", "},\n{");
    assert_eq!(
        job(&format!("[{array}]")),
        plain,
        "an array of the same rows"
    );
    let seven = job(&with("\"input\": \"w7\","));
    assert_ne!(seven, plain);
    assert_ne!(job(&with("\"input\": \"w8\",")), seven);
}

#[test]
fn what_is_lost_is_told_in_words_and_as_an_event() {
    let row = |asks: usize, answers: usize| {
        format!(
            "{{\"instruction\": \"{}\", \"output\": \"{}\"}}\n",
            "w3 ".repeat(asks),
            "w4 ".repeat(answers)
        )
    };
    let rows = [row(2, 2), row(2, 20), row(20, 2), row(3, 3)].concat();
    let (objects, stderr) = train(&TinyModel::new(), "a.jsonl", rows.as_bytes(), "instruct");
    let data = event(&objects, "data");
    assert_eq!(
        (&data["examples"], &data["sequences"]),
        (&4.into(), &3.into()),
        "{data}"
    );
    assert_eq!(
        (&data["truncated"], &data["skipped"]),
        (&1.into(), &1.into()),
        "{data}"
    );
    for words in [
        "a.jsonl: 4 examples, 3 sequences",
        "cut at the end: 1",
        "behind the instruction: 1",
        "larger sequence_len",
    ] {
        assert!(stderr.contains(words), "no {words:?} in {stderr}");
    }
    let (objects, stderr) = train(
        &TinyModel::new(),
        "a.txt",
        "w3 ".repeat(19).as_bytes(),
        "text",
    );
    let data = event(&objects, "data");
    assert_eq!(
        (&data["sequences"], &data["tail_tokens"]),
        (&2.into(), &3.into()),
        "{data}"
    );
    assert!(
        !stderr.contains("a.txt"),
        "a tail alone is no loss: {stderr}"
    );
}

#[test]
fn a_job_without_an_adapter_says_what_it_trains() {
    let (objects, _) = train(
        &TinyModel::new(),
        "a.txt",
        "w3 ".repeat(20).as_bytes(),
        "text",
    );
    let note = event(&objects, "note")["note"].to_string();
    assert!(
        note.contains("LoRA") && note.contains("`adapter: full`"),
        "{note}"
    );
}
