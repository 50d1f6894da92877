//! Job files that are refused. Every rule has a unit test; here it is tested that the command
//! tells.

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
    train("adapter: dora\n").refused(&["job.yaml:1: `adapter` is \"dora\", but must be one of"]);
    train("max_steps: [\n").refused(&["job.yaml: not valid YAML"]);
    train("").refused(&["the job file is empty"]);
}

#[test]
fn a_file_that_is_missing() {
    concord(["train", "/no/such/job.yaml"]).refused(&["cannot read the job file", "/no/such"]);
}

#[test]
fn a_mark_in_front_of_the_file_is_skipped() {
    train("\u{feff}base_model: m\nlora_rr: 8\n").refused(&["job.yaml:2: unknown key `lora_rr`"]);
}

#[test]
fn a_path_of_the_home_directory_makes_no_folder_of_that_name() {
    let (folder, home) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let job = folder.path().join("job.yaml");
    let text = |base: &str| {
        format!(
            "{{base_model: {base}, datasets: [{{path: ~/a.txt, type: text}}], max_steps: 1,\n\
             sequence_len: 8, learning_rate: 1e-3, output_dir: ~/out}}"
        )
    };
    let train = |base: &str| {
        fs::write(&job, text(base)).unwrap();
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_concord"))
            .args(["train", arg(&job)])
            .env("HOME", home.path())
            .current_dir(folder.path())
            .output()
            .unwrap();
        assert!(!folder.path().join("~").exists(), "a folder of the name ~");
        String::from_utf8(output.stderr).unwrap()
    };
    // The model is looked for in the home directory.
    let error = train("~/no-such-model");
    assert!(
        error.contains(arg(&home.path().join("no-such-model"))),
        "{error}"
    );
    let error = train("~nobody-here/m");
    assert!(
        error.contains("the home of nobody-here is not looked up"),
        "{error}"
    );
    let error = train("$HOME/m");
    assert!(
        error.contains("variables such as $HOME are not expanded"),
        "{error}"
    );
}

#[test]
fn every_key_is_on_a_page() {
    let page = concord(["train", "--keys"]).good().stdout;
    let objects = concord(["train", "--keys", "--json"]).good().objects();
    assert!(objects.len() > 30, "{}", objects.len());
    for object in &objects {
        let key = object["key"].as_str().unwrap();
        assert!(page.contains(&format!("{key}\n    ")), "{key}");
        assert!(page.contains(object["meaning"].as_str().unwrap()), "{key}");
        assert!(page.contains(object["allowed"].as_str().unwrap()), "{key}");
    }
    let named = |name: &str| objects.iter().find(|object| object["key"] == name).unwrap();
    assert_eq!(named("sequence_len")["needed"], true);
    assert_eq!(named("adapter")["default"], "lora");
    assert_eq!(named("datasets[].field_input")["default"], "input");
    // Alone, or with a job file: not both.
    assert_eq!(concord(["train", "--keys", "job.yaml"]).code, Some(2));
    assert_eq!(concord(["train"]).code, Some(2));
}

#[test]
fn the_examples_need_nothing_but_the_repository_and_the_demo() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut count = 0;
    for entry in fs::read_dir(root.join("examples")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|ending| ending != "yaml") {
            continue;
        }
        let text = fs::read_to_string(&path).unwrap();
        assert!(!text.contains(".."), "{} points outside", path.display());
        let data = text
            .split("path: ")
            .nth(1)
            .and_then(|rest| rest.split([',', '\n']).next());
        let data = root.join(data.expect("a data set"));
        assert!(data.is_file(), "{} is not there", data.display());
        // Sound up to the model, which `concord demo --keep demo` makes.
        let without = text.replace("demo/tuned-1", "/no/such/model");
        assert_ne!(text, without, "{}", path.display());
        train(&without).refused(&["/no/such/model"]);
        count += 1;
    }
    assert_eq!(count, 2);
}
