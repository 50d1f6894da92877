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

/// A template whose turns end with the model's own end of a text.
const TURNS: &str = "{% for m in messages %}{{ m.role }} {{ m.content }}</s>{% endfor %}";

#[test]
fn a_conversation_is_trained_on_in_every_shape() {
    let chat = |kind: &str, row: &str| {
        let model = TinyModel::new();
        let tokens = serde_json::json!({
            "bos_token": "<s>", "eos_token": "</s>", "chat_template": TURNS,
        });
        model.write("tokenizer_config.json", &tokens);
        let (objects, stderr) = train(&model, "a.jsonl", row.as_bytes(), kind);
        assert!(!stderr.contains("template is not used"), "{stderr}");
        event(&objects, "submitted")["job"].to_string()
    };
    let messages = chat(
        "chat_template",
        concat!(
            r#"{"messages": [{"role": "user", "content": "w3"}, "#,
            r#"{"role": "assistant", "content": "w4"}]}"#
        ),
    );
    let sharegpt = chat(
        "sharegpt",
        r#"{"conversations": [{"from": "human", "value": "w3"}, {"from": "gpt", "value": "w4"}]}"#,
    );
    let turns = chat("alpaca_turns", r#"{"instruction": "w3", "output": "w4"}"#);
    assert_eq!(
        (&sharegpt, &turns),
        (&messages, &messages),
        "one job of three shapes"
    );
    let all = "alpaca_turns, train_on_inputs: true";
    assert_ne!(
        chat(all, r#"{"instruction": "w3", "output": "w4"}"#),
        messages
    );
}

#[test]
fn a_preview_shows_what_is_learnt() {
    let model = TinyModel::new();
    let data = model.file("a.jsonl");
    let rows = "{\"instruction\": \"w3\", \"output\": \"w4 w5\"}\n";
    fs::write(&data, rows.repeat(5)).unwrap();
    let preview = |more: &[&str]| {
        let args = ["data", "preview", arg(&data), "--model", arg(model.dir())];
        concord(args.into_iter().chain(more.iter().copied()))
    };
    let ran = preview(&["--type", "instruct", "-n", "2"]).good();
    assert_eq!(
        ran.stdout.matches("--- sequence").count(),
        2,
        "{}",
        ran.stdout
    );
    for words in ["5 rows", "5 examples", "\u{ab}", "learnt"] {
        assert!(ran.stdout.contains(words), "no {words:?} in {}", ran.stdout);
    }
    let objects = preview(&["--type", "instruct", "--json"]).good().objects();
    let sequence = event(&objects, "sequence");
    let len = |key: &str| sequence[key].as_array().unwrap().len();
    assert_eq!(len("loss_mask"), len("tokens"));
    let data_event = event(&objects, "data");
    assert_eq!(
        (&data_event["rows"], &data_event["sequences"]),
        (&5.into(), &5.into())
    );
    // Instructions are turns of a conversation where the model has a template for them.
    let ran = preview(&[]).good();
    assert!(ran.stdout.contains("`type: instruct`"), "{ran:?}");
    let job = model.file("job.yaml");
    let text = format!(
        "{{base_model: {}, datasets: [{{path: {}, type: instruct, max_samples: 2}}],\n\
         max_steps: 1, sequence_len: 8, learning_rate: 1e-3, output_dir: x}}",
        model.dir().display(),
        data.display()
    );
    fs::write(&job, text).unwrap();
    let objects = concord(["data", "preview", arg(&job), "--json"])
        .good()
        .objects();
    assert_eq!(event(&objects, "data")["rows"], 2);
}

/// A job refuses texts that do not fill a sequence; what they are can be seen all the same.
#[test]
fn a_preview_shows_short_texts_and_what_a_job_holds_out() {
    let model = TinyModel::new();
    let (data, job) = (model.file("a.txt"), model.file("job.yaml"));
    fs::write(&data, "w3 w4 w5").unwrap();
    let args = ["data", "preview", arg(&data), "--model", arg(model.dir())];
    let ran = concord(args).good();
    for words in [
        "its 3 tokens are shown as one sequence",
        "w3",
        "1 sequence of at most 3",
    ] {
        assert!(ran.stdout.contains(words), "no {words:?} in {}", ran.stdout);
    }
    let rows = model.file("a.jsonl");
    let row = "{\"instruction\": \"w3\", \"output\": \"w4 w5\"}\n";
    fs::write(&rows, row.repeat(5)).unwrap();
    let text = format!(
        "{{base_model: {}, datasets: [{{path: {}, type: instruct}}], sample_packing: true,\n\
         val_set_size: 0.3, max_steps: 1, sequence_len: 8, learning_rate: 1e-3, output_dir: x}}",
        model.dir().display(),
        rows.display()
    );
    fs::write(&job, text).unwrap();
    let ran = concord(["data", "preview", arg(&job)]).good();
    for words in ["val_set_size: 2 of these 5", "sample_packing"] {
        assert!(ran.stdout.contains(words), "no {words:?} in {}", ran.stdout);
    }
}

/// The template ends answers with a word that is no control token of the model.
#[test]
fn a_new_job_file_has_a_type_that_the_model_can_learn() {
    let model = TinyModel::new();
    let template = "{% for m in messages %}{{ m.content }} w9 {% endfor %}";
    let tokens = serde_json::json!({
        "bos_token": "<s>", "eos_token": "</s>", "chat_template": template,
    });
    model.write("tokenizer_config.json", &tokens);
    let (data, job) = (model.file("a.jsonl"), model.file("job.yaml"));
    fs::write(&data, "{\"instruction\": \"w3\", \"output\": \"w4\"}\n").unwrap();
    let args = ["init", arg(model.dir()), arg(&data), "--output", arg(&job)];
    let ran = concord(args).good();
    assert!(ran.stdout.contains("not `type: alpaca_turns`"), "{ran:?}");
    let text = fs::read_to_string(&job).unwrap();
    assert!(text.contains("type: instruct"), "{text}");
    let args = ["data", "preview", arg(&data), "--model", arg(model.dir())];
    let ran = concord(args).good();
    assert!(ran.stdout.contains("read as `type: instruct`"), "{ran:?}");
    assert!(ran.stdout.contains("no control token"), "{ran:?}");
}

#[test]
fn the_longest_example_can_decide_the_length() {
    let model = TinyModel::new();
    let (path, job) = (model.file("a.jsonl"), model.file("job.yaml"));
    fs::write(
        &path,
        "{\"text\": \"w3 w4\"}\n{\"text\": \"w3 w4 w5 w6\"}\n",
    )
    .unwrap();
    let text = format!(
        "{{base_model: {}, datasets: [{{path: {}, type: completion}}], max_steps: 1,\n\
         sequence_len: longest, learning_rate: 1e-3, lora_r: 1, output_dir: {}}}",
        model.dir().display(),
        path.display(),
        model.file("out").display()
    );
    fs::write(&job, text).unwrap();
    let objects = concord(["data", "preview", arg(&job), "--json"])
        .good()
        .objects();
    let data = event(&objects, "data");
    assert_eq!(data["sequence_len"], data["longest"], "{data}");
    assert_eq!(data["truncated"], 0);
    // A key from outside, as with `concord train`.
    let set = "sequence_len=3";
    let objects = concord(["data", "preview", arg(&job), "--set", set, "--json"])
        .good()
        .objects();
    assert_eq!(event(&objects, "data")["sequence_len"], 3);
    concord([
        "data",
        "preview",
        arg(&path),
        "--model",
        arg(model.dir()),
        "--set",
        set,
    ])
    .refused(&["--set and --tool belong to a job file"]);
}
