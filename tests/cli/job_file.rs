//! Job files that are refused. Every rule has a unit test; here is that the command says it.

use std::fs;
use std::path::Path;

use crate::program::{Ran, arg, concord};

fn train(text: &str) -> Ran {
    let folder = tempfile::tempdir().unwrap();
    let job = folder.path().join("job.yaml");
    fs::write(&job, text).unwrap();
    concord(["train", arg(&job)])
}

#[test]
fn a_mistake_is_named_with_its_line() {
    train("base_model: m\nlora_rr: 8\n")
        .refused(&["job.yaml:2: unknown key `lora_rr`: did you mean `lora_r`?"]);
    train("base_model: m\n").refused(&["job.yaml: the key `datasets` is missing"]);
    train("adapter: qlora\n").refused(&["job.yaml:1: `adapter` is \"qlora\", but must be one of"]);
    train("max_steps: [\n").refused(&["job.yaml: not valid YAML"]);
    train("").refused(&["the job file is empty"]);
}

#[test]
fn a_file_that_is_missing() {
    concord(["train", "/no/such/job.yaml"]).refused(&["cannot read the job file", "/no/such"]);
}

#[test]
fn the_examples_are_sound_up_to_their_data() {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let mut count = 0;
    for entry in fs::read_dir(&examples).unwrap() {
        let text = fs::read_to_string(entry.unwrap().path()).unwrap();
        let without = text.replace("../shared/models", "/no/such/models");
        assert_ne!(text, without, "the examples use the models of shared");
        train(&without).refused(&["/no/such/models"]);
        count += 1;
    }
    assert_eq!(count, 2);
}
