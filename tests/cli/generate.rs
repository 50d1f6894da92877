use std::fs;

use concord_models::weights::TensorFile;
use concord_text::TextTokenizer;
use serde_json::json;

use crate::program::{Ran, arg, concord, shared};
use crate::tiny_model::TinyModel;

fn generate(model: &TinyModel, more: &[&str]) -> Ran {
    concord([&["generate", "--model", arg(model.dir())], more].concat())
}

#[test]
fn greedy_text_is_that_of_transformers_and_a_line_on_stdout() {
    let Some(shared) = shared() else { return };
    let model = shared.join("models/tinystories-260k");
    let reference = shared.join("reference/tinystories-260k/logits.safetensors");
    let reference = TensorFile::open(&reference).unwrap();
    let ids = reference.load_i64("greedy_ids").unwrap();
    let ids: Vec<u32> = ids.into_iter().map(|id| id as u32).collect();
    let expected = TextTokenizer::open(&model)
        .unwrap()
        .decode(&ids, true)
        .unwrap();
    let args = [
        "generate",
        "--model",
        arg(&model),
        "--prompt",
        "Once upon a time",
    ];
    let greedy = ["--max-tokens", "64", "--temperature", "0"];
    let ran = concord([&args[..], &greedy].concat()).good();
    assert_eq!(
        (ran.stdout.as_str(), ran.stderr.as_str()),
        (format!("{expected}\n").as_str(), "")
    );
}

#[test]
fn an_adapter_changes_the_text() {
    let Some(shared) = shared() else { return };
    let model = shared.join("models/tinystories-260k");
    let adapter = shared.join("reference/train-lora/final");
    let args = [
        "generate",
        "--model",
        arg(&model),
        "--prompt",
        "ROMEO:",
        "--temperature",
        "0",
    ];
    let plain = concord(args).good();
    let tuned = concord([&args[..], &["--adapter", arg(&adapter)]].concat()).good();
    assert_ne!(plain.stdout, tuned.stdout);
}

#[test]
fn the_same_seed_gives_the_same_text_however_it_is_computed() {
    let model = TinyModel::new();
    let prompt = ["--prompt", "w3 w4", "--ignore-eos", "--seed", "5"];
    let run = |more: &[&str]| {
        generate(&model, &[&prompt[..], more].concat())
            .good()
            .stdout
    };
    let text = run(&[]);
    assert!(!text.is_empty());
    assert_eq!(run(&["--threads", "1"]), text);
    assert_eq!(run(&["--isa", "portable"]), text);
    assert_eq!(run(&["--device", "reference"]), text);
    let other = generate(
        &model,
        &["--prompt", "w3 w4", "--ignore-eos", "--seed", "6"],
    )
    .good();
    assert_ne!(other.stdout, text);
}

#[test]
fn objects_have_every_token_and_end_with_the_completion() {
    let model = TinyModel::new();
    let args = [
        "--prompt",
        "w3 w4 w5",
        "--max-tokens",
        "7",
        "--ignore-eos",
        "--json",
    ];
    let objects = generate(&model, &args).good().objects();
    let (last, tokens) = objects.split_last().unwrap();
    assert_eq!(tokens.len(), 7);
    let pieces: String = tokens
        .iter()
        .map(|token| token["text"].as_str().unwrap())
        .collect();
    assert!(
        tokens
            .iter()
            .all(|token| token["event"] == "token" && token["id"].is_u64())
    );
    assert_eq!(last["event"], "completion");
    assert_eq!(
        (&last["tokens"], &last["prompt_tokens"]),
        (&json!(7), &json!(3))
    );
    assert_eq!(
        (last["text"].as_str(), &last["finish"]),
        (Some(&*pieces), &json!("length"))
    );
    assert!(last["tokens_per_second"].as_f64().unwrap() > 0.0);
}

#[test]
fn a_text_ends_at_its_end_token_or_at_the_last_position() {
    let model = TinyModel::new();
    let greedy = [
        "--prompt",
        "w3",
        "--temperature",
        "0",
        "--max-tokens",
        "100",
        "--json",
    ];
    let ignoring = [&greedy[..], &["--ignore-eos"]].concat();
    let objects = generate(&model, &ignoring).good().objects();
    let first = objects[0]["id"].clone();
    let last = objects.last().unwrap();
    // 64 positions, of which the prompt has one.
    assert_eq!(
        (&last["tokens"], &last["finish"]),
        (&json!(63), &json!("positions"))
    );
    model.configure("eos_token_id", first);
    let objects = generate(&model, &greedy).good().objects();
    assert_eq!(
        (&objects[0]["tokens"], &objects[0]["finish"]),
        (&json!(0), &json!("stop"))
    );
    let objects = generate(&model, &ignoring).good().objects();
    assert_eq!(objects.last().unwrap()["tokens"], 63);
}

#[test]
fn a_prompt_may_come_from_a_file() {
    let model = TinyModel::new();
    let file = model.file("prompt.txt");
    fs::write(&file, "w3 w4").unwrap();
    let more = ["--temperature", "0", "--max-tokens", "9"];
    let from_file = generate(
        &model,
        &[&["--prompt-file", arg(&file)], &more[..]].concat(),
    )
    .good();
    let direct = generate(&model, &[&["--prompt", "w3 w4"], &more[..]].concat()).good();
    assert_eq!(from_file.stdout, direct.stdout);
    let missing = model.file("missing.txt");
    let ran = generate(&model, &["--prompt-file", arg(&missing)]);
    ran.refused(&["cannot read the prompt file", "missing.txt"]);
}

#[test]
fn bad_options_are_refused_with_what_is_allowed() {
    let model = TinyModel::new();
    let long = vec!["w3"; 64].join(" ");
    let cases: [(&[&str], &[&str]); 7] = [
        (
            &["--prompt", &long],
            &["64 tokens", "64 positions", "shorten it to 63"],
        ),
        (&["--prompt", ""], &["the prompt has no tokens"]),
        (
            &["--prompt", "a", "--temperature", "-1"],
            &["--temperature -1: a number, 0 or more"],
        ),
        (
            &["--prompt", "a", "--temperature", "nan"],
            &["--temperature NaN"],
        ),
        (
            &["--prompt", "a", "--top-p", "0"],
            &["--top-p 0: a share above 0, at most 1"],
        ),
        (
            &["--prompt", "a", "--threads", "0"],
            &["at least one thread"],
        ),
        (
            &["--prompt", "a", "--device", "gpu"],
            &["unknown device 'gpu': cpu, cuda, cuda:N, auto or reference"],
        ),
    ];
    for (args, words) in cases {
        generate(&model, args).refused(words);
    }
    assert_eq!(generate(&model, &[]).code, Some(2), "no prompt");
    let both = ["--prompt", "a", "--prompt-file", "b"];
    assert_eq!(generate(&model, &both).code, Some(2), "two prompts");
}

#[test]
fn an_adapter_folder_finds_its_base_model_or_says_what_is_missing() {
    let model = TinyModel::new();
    let folder = tempfile::tempdir().unwrap();
    let write = |config: serde_json::Value| {
        fs::write(
            folder.path().join("adapter_config.json"),
            config.to_string(),
        )
        .unwrap();
    };
    let run = || concord(["generate", "--model", arg(folder.path()), "--prompt", "w3"]);
    write(json!({ "peft_type": "LORA" }));
    run().refused(&["names no base model", "--adapter"]);
    write(json!({ "base_model_name_or_path": "/no/such/model" }));
    run().refused(&["/no/such/model", "adapter_config.json"]);
    write(
        json!({ "base_model_name_or_path": model.dir(), "peft_type": "LORA", "r": 2,
        "lora_alpha": 4, "target_modules": ["q_proj"] }),
    );
    run().refused(&["adapter_model.safetensors"]);
}
