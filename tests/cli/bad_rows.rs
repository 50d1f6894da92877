//! Every shape of rows and every form of a file, broken in ten ways: the command line names file,
//! line and field, ends with 1, and writes nothing.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::json;

use crate::broken_forms::forms;
use crate::broken_shapes::{CHATML, SHAPES};
use crate::byte_tokenizer::write_tokenizer;
use crate::program::{Ran, arg};
use crate::tiny_model::TinyModel;

/// A model whose tokens are bytes, a data set, and a home and a folder for temporary files of its
/// own.
struct Place {
    model: TinyModel,
    around: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let model = TinyModel::new();
        write_tokenizer(model.dir());
        let config = json!({"bos_token": "<s>", "eos_token": "</s>", "chat_template": CHATML});
        model.write("tokenizer_config.json", &config);
        for (key, value) in [
            ("vocab_size", 300),
            ("bos_token_id", 256),
            ("eos_token_id", 257),
            ("max_position_embeddings", 256),
        ] {
            model.configure(key, json!(value));
        }
        model.write_weights(|_, _| {});
        let around = tempfile::tempdir().expect("a temporary folder");
        Self { model, around }
    }

    /// Runs a job on a file of the model's folder.
    fn train(&self, name: &str, kind: &str, sequence_len: u32, more: &[&str]) -> Ran {
        let job = self.model.file("job.yaml");
        let text = json!({
            "base_model": self.model.dir(), "max_steps": 1, "sequence_len": sequence_len,
            "learning_rate": 1e-3, "output_dir": self.model.file("out"),
            "datasets": [{"path": self.model.file(name), "type": kind}],
        });
        fs::write(&job, text.to_string()).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_concord"));
        for variable in ["TMPDIR", "HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME"] {
            command.env(variable, self.around.path());
        }
        command.args(["train", arg(&job)]).args(more);
        command.stdin(Stdio::null()).current_dir(self.around.path());
        let output = command.output().expect("the binary runs");
        Ran {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).expect("stdout is UTF-8"),
            stderr: String::from_utf8(output.stderr).expect("stderr is UTF-8"),
        }
    }

    /// Asserts that a job on a file of these bytes is refused in these words, and leaves nothing.
    fn refused(&self, name: &str, kind: &str, sequence_len: u32, bytes: &[u8], words: &[&str]) {
        fs::write(self.model.file(name), bytes).unwrap();
        let before = names(self.model.dir());
        let ran = self.train(name, kind, sequence_len, &[]);
        ran.refused(words);
        assert!(!ran.stderr.contains("panicked"), "{ran:#?}");
        let mut after = names(self.model.dir());
        after.retain(|name| !before.contains(name) && name != "job.yaml");
        assert!(after.is_empty(), "{after:?} beside the data");
        let around = names(self.around.path());
        assert!(around.is_empty(), "{around:?} at home");
    }
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).expect("it is there").flatten();
    let name = |entry: fs::DirEntry| entry.file_name().to_string_lossy().into_owned();
    entries.map(name).collect()
}

#[test]
fn every_shape_broken_in_ten_ways_leaves_nothing() {
    let place = Place::new();
    for shape in &SHAPES {
        let (kind, len) = (shape.kind.name(), shape.sequence_len());
        fs::write(place.model.file("rows.jsonl"), shape.good).unwrap();
        place.train("rows.jsonl", kind, len, &["--dry-run"]).good();
        assert!(shape.broken.len() >= 10, "{kind}");
        for (row, words) in shape.broken {
            let bytes = format!("{0}\n{row}\n{0}\n", shape.good);
            let words = [&["rows.jsonl, line 2: "], *words].concat();
            place.refused("rows.jsonl", kind, len, bytes.as_bytes(), &words);
        }
    }
}

#[test]
fn every_form_of_a_file_broken_in_ten_ways_leaves_nothing() {
    let place = Place::new();
    for form in forms() {
        let (name, kind) = (form.name, form.kind.name());
        fs::write(place.model.file(name), &form.good).unwrap();
        let good = place.train(name, kind, form.sequence_len, &["--dry-run"]);
        good.good();
        assert!(form.broken.len() >= 10, "{name}");
        for (bytes, words) in &form.broken {
            let words = [&[name], &words[..]].concat();
            place.refused(name, kind, form.sequence_len, bytes, &words);
        }
    }
}

/// A build without the feature says so; one with it looks into the file.
#[test]
fn a_file_of_columns_that_is_none_leaves_nothing() {
    let words = match cfg!(feature = "parquet") {
        true => ["rows.parquet", "not a usable .parquet file"],
        false => ["rows.parquet", "--features full"],
    };
    let place = Place::new();
    for bytes in [&b""[..], b"PAR1abc", b"{\"text\": \"a\"}"] {
        place.refused("rows.parquet", "completion", 64, bytes, &words);
    }
}

/// What is held out is named by the key that the job file has.
#[test]
fn a_file_of_tokens_has_nothing_to_hold_out() {
    let place = Place::new();
    let forms = forms();
    let tokens = forms.iter().find(|form| form.name == "tokens.safetensors");
    let tokens = tokens.expect("a file of tokens");
    fs::write(place.model.file(tokens.name), &tokens.good).unwrap();
    fs::write(place.model.file("held.jsonl"), "{\"input_ids\": [1, 2]}").unwrap();
    let held = format!(
        "test_datasets=[{{path: {}, type: tokens}}]",
        place.model.file("held.jsonl").display()
    );
    for (given, key) in [
        (&*held, "test_datasets: a file of tokens"),
        ("val_set_size=1", "val_set_size: a file of tokens"),
    ] {
        let ran = place.train(tokens.name, "tokens", 2, &["--set", given]);
        ran.refused(&[key, "input_ids"]);
    }
}
