//! Job files of other tools, and the options of `concord train` that read job files without running
//! them.

use std::fs;

use serde_json::{Value, json};

use crate::program::{Ran, arg, concord};
use crate::tiny_model::TinyModel;

/// A model with 200 words of text and a job file, which are in its folder.
struct Case(TinyModel);

impl Case {
    fn new() -> Self {
        let model = TinyModel::new();
        let words: Vec<String> = (0..200).map(|i| format!("w{}", 3 + i % 29)).collect();
        fs::write(model.file("a.txt"), words.join(" ")).unwrap();
        Self(model)
    }

    fn path(&self, name: &str) -> String {
        self.0.file(name).display().to_string()
    }

    /// Runs `concord train` on a job file.
    fn train(&self, text: &str, options: &[&str]) -> Ran {
        let job = self.0.file("job.yaml");
        fs::write(&job, text).unwrap();
        let args = ["train", arg(&job)]
            .into_iter()
            .chain(options.iter().copied());
        concord(args)
    }

    /// TRL's file: texts that are joined and cut, two passes.
    fn trl(&self) -> String {
        format!(
            "model_name_or_path: {}\ndataset_name: {}\npacking: true\npacking_strategy: wrapped\n\
             max_length: 8\nuse_peft: true\nlora_r: 2\nlora_alpha: 4\nlora_dropout: 0.0\n\
             lora_target_modules: all-linear\nlearning_rate: 1.0e-3\nlr_scheduler_type: cosine\n\
             warmup_ratio: 0.1\nnum_train_epochs: 2\nper_device_train_batch_size: 2\n\
             gradient_accumulation_steps: 2\ngradient_checkpointing: false\noutput_dir: {}\n\
             bf16: true\nlogging_steps: 5\nsave_strategy: \"no\"\n",
            self.0.dir().display(),
            self.path("a.txt"),
            self.path("out")
        )
    }

    /// The same in Concord's keys.
    fn own(&self) -> String {
        format!(
            "base_model: {}\ndatasets: [{{path: {}, type: text}}]\nadapter: lora\nlora_r: 2\n\
             lora_alpha: 4\nsequence_len: 8\nmicro_batch_size: 2\n\
             gradient_accumulation_steps: 2\nnum_epochs: 2\nlearning_rate: 1e-3\n\
             lr_scheduler: cosine_from_zero\nwarmup_ratio: 0.1\noutput_dir: {}\n",
            self.0.dir().display(),
            self.path("a.txt"),
            self.path("out")
        )
    }
}

fn event<'a>(objects: &'a [Value], name: &str) -> &'a Value {
    let found = objects.iter().find(|object| object["event"] == name);
    found.unwrap_or_else(|| panic!("no {name} in {objects:?}"))
}

#[test]
fn a_file_of_another_tool_is_the_job_in_concords_keys() {
    let case = Case::new();
    let dry = |text: &str, sets: &[&str]| {
        let mut options = vec!["--dry-run", "--json"];
        options.extend(sets.iter().flat_map(|set| ["--set", set]));
        let objects = case.train(text, &options).good().objects();
        event(&objects, "dry_run").clone()
    };
    let (theirs, ours) = (dry(&case.trl(), &[]), dry(&case.own(), &[]));
    // 25 sequences of 8 tokens, 13 batches of 2, 7 steps an epoch: 14 steps; Concord counts 13.
    assert_eq!((&theirs["steps"], &ours["steps"]), (&json!(14), &json!(13)));
    assert_eq!(theirs["warmup_steps"], 2);
    assert_eq!(theirs["tokens_per_step"], 32);
    assert!(theirs["memory_bytes"].as_u64() > Some(10_000), "{theirs}");
    let same = dry(&case.own(), &["num_epochs=null", "max_steps=14"]);
    assert_eq!(same["job"], theirs["job"], "one job, one id");
    assert!(!case.0.file("out").exists(), "a dry run leaves nothing");
    // And it runs.
    let ran = case
        .train(&case.trl(), &["--json", "--checkers", "0"])
        .good();
    let objects = ran.objects();
    assert_eq!(event(&objects, "submitted")["job"], theirs["job"]);
    assert_eq!(event(&objects, "result")["steps"], 14);
    let log = fs::read_to_string(case.0.file("out").join("log.jsonl")).unwrap();
    let rate = |line: &str| serde_json::from_str::<Value>(line).unwrap()["learning_rate"].as_f64();
    let rates: Vec<_> = log.lines().take(3).map(rate).collect();
    assert_eq!(rates[0], Some(0.0), "warm-up begins at rate 0: {rates:?}");
    assert!(rates[1] < rates[2], "{rates:?}");
}

#[test]
fn the_test_split_of_another_tools_file_is_evaluated() {
    let case = Case::new();
    let sets = case.0.file("sets");
    fs::create_dir(&sets).unwrap();
    let words = |count: usize| (0..count).map(|i| format!("w{} ", 3 + i % 29)).collect();
    let [train, test]: [String; 2] = [words(200), words(40)];
    fs::write(sets.join("train.txt"), train.trim()).unwrap();
    fs::write(sets.join("test.txt"), test.trim()).unwrap();
    let dir = sets.display();
    let theirs = case
        .trl()
        .replace(&case.path("a.txt"), &dir.to_string())
        .replace("bf16: true", "bf16: true\neval_strategy: epoch");
    let ours = case.own().replace("num_epochs: 2", "max_steps: 14");
    let ours = ours.replace(&format!("{{path: {}", case.path("a.txt")), "{path: SETS");
    let ours =
        format!("{ours}test_datasets: [{{path: SETS, type: text, split: test}}]\neval_steps: 7\n");
    let ours = ours.replace("SETS", &dir.to_string());
    let ours = ours.replace(
        "type: text}]\nadapter",
        "type: text, split: train}]\nadapter",
    );
    let id = |text: &str| {
        let objects = case.train(text, &["--dry-run", "--json"]).good().objects();
        event(&objects, "dry_run")["job"].clone()
    };
    assert_eq!(id(&theirs), id(&ours));
    let told = case.train(&theirs, &["--explain"]).good().stdout;
    for words in ["test_datasets[0].split", "7", "1 times an epoch"] {
        assert!(told.contains(words), "no {words} in\n{told}");
    }
    let job = case.0.file("job.yaml");
    let shown = concord(["data", "preview", arg(&job), "-n", "1"])
        .good()
        .stdout;
    let (learnt, tested) = shown.split_once("held out, and evaluated:").unwrap();
    assert!(
        learnt.contains("200 tokens") && tested.contains("40 tokens"),
        "{shown}"
    );
    case.train(&theirs, &["--json", "--checkers", "0"]).good();
    let log = fs::read_to_string(case.0.file("out").join("log.jsonl")).unwrap();
    let lines = log
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap());
    let steps: Vec<Value> = lines
        .filter(|line| line["event"] == "evaluation")
        .map(|line| line["step"].clone())
        .collect();
    assert_eq!(steps, [7, 14]);
}

#[test]
fn without_warm_up_all_curves_begin_alike() {
    let case = Case::new();
    let id = |curve: &str| {
        let text = case.own().replace("warmup_ratio: 0.1\n", "");
        let text = text.replace("cosine_from_zero", curve);
        let objects = case.train(&text, &["--dry-run", "--json"]).good().objects();
        event(&objects, "dry_run")["job"].to_string()
    };
    for (theirs, ours) in [
        ("cosine_from_zero", "cosine"),
        ("linear_from_zero", "linear"),
        ("constant_with_warmup", "constant"),
    ] {
        assert_eq!(id(theirs), id(ours), "{theirs}");
    }
    assert_ne!(id("inverse_sqrt"), id("constant"));
}

#[test]
fn a_file_of_another_tool_is_refused_in_one_answer() {
    let case = Case::new();
    let text = case
        .trl()
        .replace(
            "lora_dropout: 0.0",
            "lora_dropout: 0.1\nlora_task_type: SEQ_CLS",
        )
        .replace("lora_r: 2", "lora_r: 0")
        .replace("bf16: true", "bf16: true\neval_strategy: epoch\nmystery: 3");
    case.train(&text, &[]).refused(&[
        "job.yaml is a job file of TRL, by `model_name_or_path`",
        "job.yaml:10: `lora_task_type` is \"SEQ_CLS\"; ",
        "`mystery` is 3: no such key of TRL is known",
        // Values out of range are told with them.
        "job.yaml:7: `lora_r` is 0, but must be a whole number from 1 to 4096",
        "as options: --set lora_task_type=null",
    ]);
    let sets = [
        "lora_task_type=null",
        "eval_strategy=null",
        "mystery=null",
        "lora_r=2",
    ];
    let mut options = vec!["--dry-run"];
    options.extend(sets.iter().flat_map(|set| ["--set", set]));
    case.train(&text, &options).good();
    let odd = ["--set", "lora_r"];
    case.train(&text, &odd)
        .refused(&["--set lora_r: write key=value"]);
    // The tool may be named.
    case.train(&text, &["--tool", "axolotl"])
        .refused(&["job file of Axolotl, by --tool"]);
}

#[test]
fn other_tokens_than_the_tokenizers_are_refused() {
    let case = Case::new();
    let with = |token: &str| format!("{}eos_token: {token}\n", case.trl());
    case.train(&with("</s>"), &["--dry-run"]).good();
    let ran = case.train(&with("<|im_end|>"), &["--dry-run"]);
    // Whose file it is was said before the tokenizer was read.
    let words = "error: `eos_token` is \"<|im_end|>\", and the model's tokenizer has \"</s>\"";
    assert!(
        ran.code == Some(1) && ran.stderr.contains(words),
        "{ran:#?}"
    );
}

#[test]
fn explain_says_where_each_value_comes_from() {
    let case = Case::new();
    let ran = case
        .train(&case.trl(), &["--explain", "--set", "seed=7"])
        .good();
    for words in [
        "is a job file of TRL (by `model_name_or_path`",
        "line 5, `max_length`",
        "TRL's default, `max_grad_norm`",
        "--set, `seed`",
        "Concord's default",
        "line 19: `bf16`: ",
        "note: one device is assumed",
    ] {
        assert!(
            ran.stdout.contains(words),
            "no {words:?} in\n{}",
            ran.stdout
        );
    }
    let objects = case
        .train(&case.trl(), &["--explain", "--json"])
        .good()
        .objects();
    assert_eq!(event(&objects, "job_file")["tool"], "trl");
    let rate = objects
        .iter()
        .find(|object| object["key"] == "learning_rate")
        .unwrap();
    assert_eq!(rate["their_key"], "learning_rate");
    assert!(!case.0.file("out").exists());
}

#[test]
fn init_writes_a_job_file_that_runs() {
    let case = Case::new();
    let new = case.0.file("new.yaml");
    let args = [
        "init",
        arg(case.0.dir()),
        &case.path("a.txt"),
        "--output",
        arg(&new),
    ];
    let ran = concord(args).good();
    assert!(ran.stdout.contains("new.yaml is written"), "{}", ran.stdout);
    concord(["train", arg(&new), "--dry-run"]).good();
    concord(args).refused(&["is there already"]);
    let rows = case.0.file("b.jsonl");
    fs::write(&rows, "{\"chosen\": 1}").unwrap();
    let other = case.0.file("other.yaml");
    let args = ["init", "m", arg(&rows), "--output", arg(&other)];
    concord(args).refused(&["b.jsonl", "preferences are not trained on"]);
    assert!(!other.exists());
}

#[test]
fn the_schema_has_every_key() {
    let schema: Value =
        serde_json::from_str(&concord(["train", "--schema"]).good().stdout).unwrap();
    for object in concord(["train", "--keys", "--json"]).good().objects() {
        let key = object["key"].as_str().unwrap();
        let pointer = match key.split_once("[].").or(key.split_once('.')) {
            Some(("datasets", key)) => format!("/properties/datasets/items/properties/{key}"),
            Some((outer, key)) => format!("/properties/{outer}/properties/{key}"),
            None => format!("/properties/{key}"),
        };
        assert!(schema.pointer(&pointer).is_some(), "{key}");
    }
}
