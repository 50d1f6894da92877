//! `concord serve`, `chat` and `key`, as far as no pool is needed.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::program::{arg, concord, shared};

#[test]
fn a_preview_says_who_would_do_what() {
    let Some(shared) = shared() else { return };
    let model = shared.join("models/tinystories-260k");
    let ran = concord([
        "--json",
        "serve",
        "--model",
        arg(&model),
        "--workers",
        "2",
        "--stages",
        "2",
        "--preview",
    ]);
    let objects = ran.good().objects();
    assert_eq!(objects[0]["event"], "preview");
    let stages = objects[0]["pipelines"][0]["stages"].as_array().unwrap();
    assert_eq!(stages.len(), 2);
    assert_eq!((&stages[0][0], &stages[1][1]), (&0.into(), &5.into()));
    assert_eq!(stages[0][1], stages[1][0]);
    for figure in [
        "first_token_seconds",
        "tokens_per_second_one",
        "tokens_per_second_all",
    ] {
        assert!(objects[0][figure].as_f64().unwrap() > 0.0, "{figure}");
    }
}

#[test]
fn what_cannot_be_served_is_refused() {
    let Some(shared) = shared() else { return };
    let model = shared.join("models/tinystories-260k");
    let serve = |more: &[&str]| concord([&["serve", "--model", arg(&model)], more].concat());
    serve(&["--stages", "9"]).refused(&["--stages 9", "5 layers"]);
    serve(&["--audit-rate", "2"]).refused(&["--audit-rate 2", "from 0 to 1"]);
    serve(&["--max-model-len", "9999"]).refused(&["--max-model-len 9999", "512 positions"]);
    serve(&["--threads", "0"]).refused(&["--threads 0"]);
    serve(&["--device", "gpu"]).refused(&["unknown device 'gpu'"]);
    serve(&["--device", "cuda:first"]).refused(&["cuda:0 is the first card"]);
    serve(&["--adapter", "x=nowhere"]).refused(&["--adapter x", "nowhere"]);
}

#[test]
fn a_key_is_shown_once_and_its_digest_kept() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("keys");
    let new = |name: &str| concord(["key", name, "--concurrent", "4", "--file", arg(&file)]);
    let key = new("alice").good().stdout.trim().to_string();
    assert!(key.starts_with("ck-"), "{key}");
    new("bob").good();
    let lines = std::fs::read_to_string(&file).unwrap();
    assert_eq!(lines.lines().count(), 2);
    assert!(
        lines.starts_with("alice ") && lines.contains("concurrent=4"),
        "{lines}"
    );
    assert!(!lines.contains(&key), "the key itself is nowhere");
    new("two words").refused(&["'two words'"]);
}

/// The objects that a conversation of these lines gives, and what it says on stderr.
fn chat(model: &Path, lines: &str) -> (Vec<Value>, String) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_concord"))
        .args([
            "--json",
            "chat",
            "--seed",
            "1",
            "--max-tokens",
            "12",
            "--model",
            arg(model),
        ])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(lines.as_bytes())
        .unwrap();
    let output = child.wait_with_output().unwrap();
    let (stdout, stderr) = (output.stdout, String::from_utf8(output.stderr).unwrap());
    let stdout = String::from_utf8(stdout).unwrap();
    assert!(output.status.success(), "{stderr}");
    let objects = stdout
        .lines()
        .map(|line| serde_json::from_str(line).unwrap());
    (objects.collect(), stderr)
}

#[test]
fn a_conversation_over_a_pipe() {
    let Some(shared) = shared() else { return };
    let model = shared.join("models/tinystories-260k");
    let lines = "Once upon a time\n/nothing\n/retry\n/stats\n";
    let (answers, stderr) = chat(&model, lines);
    assert_eq!(answers.len(), 2, "{answers:?}");
    assert_eq!(answers[0]["tokens"], 12);
    assert_eq!(
        answers[0]["text"], answers[1]["text"],
        "the same seed, the same answer"
    );
    assert!(
        stderr.contains("there is no /nothing") && stderr.contains("tokens/s"),
        "{stderr}"
    );
}

/// The plain template has no special tokens: the tokenizer adds them, as in a server. A template of
/// the model's gets none beside its own.
#[test]
fn without_a_template_a_conversation_begins_as_a_text_does() {
    let Some(shared) = shared() else { return };
    let folder = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(shared.join("models/tinystories-260k")).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), folder.path().join(entry.file_name())).unwrap();
    }
    let path = folder.path().join("tokenizer_config.json");
    let text = std::fs::read(&path).unwrap();
    let mut config: Value = serde_json::from_slice(&text).unwrap();
    let mut tokens = |template: Value| {
        config["chat_template"] = template;
        std::fs::write(&path, config.to_string()).unwrap();
        let (answers, _) = chat(folder.path(), "Hello\n");
        answers[0]["prompt_tokens"].as_u64().unwrap()
    };
    let plain = "{% for message in messages %}{{ message.role }}: {{ message.content }}\n\
                 {% endfor %}{% if add_generation_prompt %}assistant:{% endif %}";
    assert_eq!(tokens(Value::Null), 1 + tokens(json!(plain)));
}
