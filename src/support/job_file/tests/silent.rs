//! Nothing in a job file is silently ignored: every key and value is read as it is meant, or
//! refused.

use super::*;

#[test]
fn a_key_that_is_there_has_a_value() {
    // Every key of the table, in its section.
    for key in &known::KEYS {
        for nothing in ["", " ~", " null"] {
            let line = match key.section {
                Section::Job => format!("{}:{nothing}", key.name),
                Section::Dataset => format!("datasets:\n  - {}:{nothing}", key.name),
                Section::Precision => format!("precision:\n  {}:{nothing}", key.name),
            };
            let top = line.split(':').next().unwrap();
            let error = refusal(top, &line);
            let expected = format!("{}` has no value, but must be {}", key.name, key.allowed);
            assert!(error.contains(&expected), "{line}\n gives {error}");
        }
    }
    assert_eq!(
        refusal("adapter", "adapter:"),
        "job.yaml:14: `adapter` has no value, but must be one of lora, qlora, full; write \
         `adapter: full` to train every weight"
    );
}

#[test]
fn evaluations_after_no_steps_are_refused() {
    let of = |steps: &str| with("", &format!("val_set_size: 2\neval_steps: {steps}"));
    for none in ["0", "0.0", "-0.0"] {
        let error = of(none).unwrap_err().to_string();
        assert!(error.contains("`eval_steps: 0` says nothing"), "{error}");
    }
    assert!(of("1").is_ok() && of("0.5").is_ok());
}

#[test]
fn a_file_without_an_adapter_says_so() {
    assert!(with("adapter", "").unwrap().adapter_is_assumed);
    assert!(!parse(JOB).unwrap().adapter_is_assumed);
}

#[test]
fn a_yaml_that_two_readers_would_read_differently_is_refused() {
    let cases = [
        // A key twice, however it is quoted.
        ("", "lora_r: 5", "lora_r"),
        ("", "\"lora_r\": 5", "lora_r"),
        (
            "datasets",
            "datasets: [{path: a, path: b, type: text}]",
            "path",
        ),
        // Booleans and numbers of YAML 1.1.
        (
            "shuffle",
            "shuffle: yes",
            "`shuffle` is \"yes\", but must be true or false",
        ),
        (
            "shuffle",
            "shuffle: off",
            "`shuffle` is \"off\", but must be true or false",
        ),
        (
            "max_steps",
            "max_steps: 1_000",
            "`max_steps` is \"1_000\", but must be",
        ),
        ("max_steps", "max_steps: 0100", "but must be a whole number"),
        (
            "max_steps",
            "max_steps: \"0100\"",
            "but must be a whole number",
        ),
        (
            "max_steps",
            "max_steps: 1:30",
            "`max_steps` is \"1:30\", but must be",
        ),
        (
            "max_steps",
            "max_steps: 1,000",
            "`max_steps` is \"1,000\", but must be",
        ),
        ("seed", "seed: \"007\"", "but must be a whole number"),
        ("max_steps", "max_steps: inf", "but must be a whole number"),
        // Structures.
        ("", "<<: {lora_alpha: 3}", "merge keys are not read"),
        ("", "7: x", "the key 7 is not a word"),
        ("", "null: x", "is not a word"),
        ("", "---\nlora_alpha: 3", "several YAML documents"),
        ("", "\tlora_alpha: 3", "not valid YAML"),
        (
            "output_dir",
            "output_dir: !secret x",
            "`output_dir` has a tag of YAML",
        ),
        (
            "datasets",
            "datasets: [!a {path: a, type: text}]",
            "`datasets` has a tag of YAML",
        ),
    ];
    for (without, more, expected) in cases {
        let error = refusal(without, more);
        assert!(error.contains(expected), "{more}\n gives {error}");
        assert!(error.starts_with("job.yaml"), "{error}");
    }
}

#[test]
fn a_yaml_that_all_readers_read_alike_is_read() {
    let anchors = "seed: &n 3\nsave_steps: *n";
    let job = with("seed", anchors).unwrap();
    assert_eq!((job.seed, steps(&job).save), (3, 3));
    let job = with("max_steps", "max_steps: \"100\"").unwrap();
    assert_eq!(steps(&job).steps, 100);
    assert_eq!(with("seed", "seed: \"7\"").unwrap().seed, 7);
    assert_eq!(with("seed", "seed: 0").unwrap().seed, 0);
    let zero = with("", "weight_decay: -0.0").unwrap().weight_decay;
    assert_eq!(zero.to_bits(), 0.0_f32.to_bits());
    assert_eq!(parse(&format!("---\n{JOB}")).unwrap(), parse(JOB).unwrap());
    let windows = JOB.replace('\n', "\r\n");
    assert_eq!(parse(&windows).unwrap(), parse(JOB).unwrap());
}

#[test]
fn marks_of_editors_are_no_part_of_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("job.yaml");
    let read = |bytes: &[u8]| {
        std::fs::write(&path, bytes).unwrap();
        JobFile::read(&path, &ReadOptions::default())
    };
    let marked = [b"\xef\xbb\xbf", JOB.as_bytes()].concat();
    assert_eq!(read(&marked).unwrap(), parse(JOB).unwrap());
    let wide = JOB.encode_utf16().flat_map(u16::to_le_bytes);
    let wide: Vec<u8> = [0xff, 0xfe].into_iter().chain(wide).collect();
    let error = format!("{:#}", read(&wide).unwrap_err());
    assert!(
        error.contains("job.yaml") && error.contains("UTF-16"),
        "{error}"
    );
    let error = format!("{:#}", read(b"base_model: \xe4").unwrap_err());
    assert!(error.contains("byte 12 begins no character"), "{error}");
}

#[test]
fn a_key_in_another_place_is_told_where_it_belongs() {
    let cases = [
        (
            "",
            "type: text",
            "`type`: it belongs into an entry of `datasets`",
        ),
        (
            "",
            "field_output: a",
            "`field_output`: it belongs into an entry of `datasets`",
        ),
        ("", "weights: 8", "`weights`: it belongs into `precision`"),
        (
            "datasets",
            "datasets: [{path: a, type: text, sequence_len: 8}]",
            "`datasets[0].sequence_len`: it belongs into the top level of the file",
        ),
        (
            "",
            "precision: {recompute: true}",
            "it belongs into the top level of the file",
        ),
        (
            "",
            "model_name_or_path: m",
            "`model_name_or_path`: set `base_model`",
        ),
        ("", "packing: true", "set `sample_packing`"),
        (
            "datasets",
            "datasets: {path: a, type: text}",
            "must be a list of mappings",
        ),
        (
            "datasets",
            "datasets: [a.txt]",
            "must be a list of mappings",
        ),
    ];
    for (without, more, expected) in cases {
        let error = refusal(without, more);
        assert!(error.contains(expected), "{more}\n gives {error}");
    }
}

#[test]
fn data_sets_of_other_tools_are_refused_with_what_to_write() {
    let cases = [
        (
            "path: a, type: instruction",
            "input_output, tokens; rows of an instruction",
        ),
        ("path: a, type: alpaca:chat", "styles of a type"),
        ("path: a, type: alpaca_chat.load_qa", "`type: alpaca_turns`"),
        ("path: a, type: pretrain", "are `type: text`"),
        ("path: a, type: chatml.intel", "`type: chat_template`"),
        ("path: a, type: sharegpt.load_role", "styles of a type"),
        (
            "path: [a, b], type: text",
            "`datasets[0].path` is [\"a\",\"b\"], but must be a path",
        ),
        ("path: a", "the key `datasets[0].type` is missing"),
        (
            "path: a, type: {field: x}",
            "must be one of text, completion, instruct",
        ),
        // Keys that would change nothing.
        (
            "path: a.txt, type: text, field: body",
            "`datasets[0].field` has no effect on a file",
        ),
        (
            "path: a, type: instruct, field: b",
            "`datasets[0].field` has no effect with `type: in",
        ),
        (
            "path: a.jsonl, type: text, field_output: b",
            "has no effect with `type: text`",
        ),
        (
            "path: a.safetensors, type: tokens, ignore_fields: [b]",
            "has no effect on a file without rows",
        ),
        // Fields that are named twice.
        (
            "path: a, type: instruct, field_output: input",
            "`input` is named twice",
        ),
        (
            "path: a, type: instruct, ignore_fields: [output]",
            "`output`, which is read",
        ),
    ];
    for (entry, expected) in cases {
        let error = refusal("datasets", &format!("datasets: [{{{entry}}}]"));
        assert!(error.contains(expected), "{entry}\n gives {error}");
    }
    let entry = "{path: A.JSONL, type: text, field: body, ignore_fields: [a]}";
    let job = with("datasets", &format!("datasets: [{entry}]")).unwrap();
    assert_eq!(
        (&*job.datasets[0].field, job.datasets[0].ignore_fields.len()),
        ("body", 1)
    );
}

#[test]
fn paths_are_whole_or_refused() {
    let home = std::env::var("HOME").expect("the tests have a home");
    let home = home.trim_end_matches('/');
    let lines = "base_model: ~/m\ninitial_adapter: ~/a\noutput_dir: ~/o\n\
                 datasets: [{path: ~/d.txt, type: text}]";
    let kept: String = JOB
        .lines()
        .filter(|line| {
            !["base_model", "datasets", "output_dir"]
                .iter()
                .any(|key| line.starts_with(key))
        })
        .map(|line| format!("{line}\n"))
        .collect();
    let job = parse(&format!("{kept}{lines}")).unwrap();
    assert_eq!(job.base_model, format!("{home}/m"));
    assert_eq!(job.initial_adapter, Some(format!("{home}/a").into()));
    assert_eq!(job.output_dir, PathBuf::from(format!("{home}/o")));
    assert_eq!(job.datasets[0].path, PathBuf::from(format!("{home}/d.txt")));
    for key in ["base_model", "output_dir", "initial_adapter"] {
        let error = refusal(key, &format!("{key}: ~nobody-here/x"));
        assert!(
            error.contains(&format!("`{key}`: ~nobody-here/x: the home of")),
            "{error}"
        );
        let error = refusal(key, &format!("{key}: $HOME/x"));
        assert!(error.contains("such as $HOME are not expanded"), "{error}");
    }
    let error = refusal("datasets", "datasets: [{path: ~nobody-here/x, type: text}]");
    assert!(error.contains("`datasets[0].path`"), "{error}");
}

#[test]
fn the_table_of_keys_is_whole() {
    for key in &known::KEYS {
        assert!(!key.meaning.is_empty(), "{}", key.name);
        let same = known::KEYS.iter().filter(|other| other.name == key.name);
        assert_eq!(same.count(), 1, "{}: one key, one place", key.name);
    }
    // The defaults in the table's texts are the actual ones.
    let means = |name: &str| {
        let key = known::KEYS.iter().find(|key| key.name == name).unwrap();
        match key.absent {
            known::Absent::Means(words) => words,
            other => panic!("{name}: {other:?}"),
        }
    };
    assert!(means("lora_r").starts_with(&format!("{},", lora::LORA_R)));
    assert!(means("lora_alpha").starts_with(&format!("{},", lora::LORA_ALPHA)));
    let kinds = known::KEYS.iter().find(|key| key.name == "type").unwrap();
    let names = DatasetKind::ALL.map(DatasetKind::name).join(", ");
    assert_eq!(kinds.allowed.to_string(), format!("one of {names}"));
    let targets = known::KEYS
        .iter()
        .find(|key| key.name == "lora_target_modules")
        .unwrap();
    for target in concord_models::golden::tiny_llama().projections() {
        assert!(targets.meaning.contains(target.name()), "{}", target.name());
    }
    for (word, curve) in [
        ("cosine", ScheduleKind::Cosine),
        ("linear", ScheduleKind::Linear),
        ("constant", ScheduleKind::Constant),
    ] {
        let job = with("lr_scheduler", &format!("lr_scheduler: {word}")).unwrap();
        assert_eq!(job.rates.curve, curve);
    }
}

#[test]
fn trackers_are_refused_with_what_there_is_in_their_place() {
    for more in [
        "report_to: wandb",
        "report_to: trackio",
        "wandb_project: mine",
        "run_name: a",
    ] {
        let error = refusal("", more);
        let words = ["log.jsonl", "report_to: tensorboard", "wandb sync"];
        assert!(words.iter().all(|word| error.contains(word)), "{error}");
    }
}
