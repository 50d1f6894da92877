//! The same questions and answers in every shape and every file give the same tokens.

use std::fs;
use std::io::Write;
use std::path::PathBuf;

use concord_data::{DatasetKind, DatasetSource, ExcessLength, Sequences};
use flate2::Compression;
use flate2::write::GzEncoder;
use ruzstd::encoding::{CompressionLevel, compress_to_vec};
use serde_json::{Value, json};

use crate::fixtures::{Model, says, shared, taught};

const CHATML: &str = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n\
                      {% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";

fn model() -> Model {
    let mut model = Model::bytes().with_template(CHATML);
    model.max_positions = 4_096;
    model
}

fn gzipped(bytes: &[u8]) -> Vec<u8> {
    let mut packer = GzEncoder::new(Vec::new(), Compression::default());
    packer.write_all(bytes).unwrap();
    packer.finish().unwrap()
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    compress_to_vec(bytes, CompressionLevel::Fastest)
}

/// A field of a .csv file.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('"', "\"\""))
}

/// Writes a file; a data set of it.
struct Files(tempfile::TempDir);

impl Files {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, bytes).unwrap();
        path
    }
}

/// A data set of questions and answers that become turns.
fn questions(path: PathBuf) -> DatasetSource {
    let mut source = DatasetSource::new(path, DatasetKind::AlpacaTurns);
    source.field_instruction = "question".to_string();
    source.field_output = "answer".to_string();
    source
}

fn lines(rows: &[Value]) -> String {
    rows.iter().map(|row| format!("{row}\n")).collect()
}

#[test]
fn every_shape_and_every_file_gives_the_same_tokens() {
    let Some(path) = shared("data/gsm8k-test.jsonl") else {
        return;
    };
    let text = fs::read_to_string(&path).unwrap();
    let rows: Vec<Value> = text
        .lines()
        .take(200)
        .map(|l| serde_json::from_str(l).unwrap())
        .collect();
    let files = Files::new();
    let load = |source: &DatasetSource| model().load(source, 2_048).unwrap();
    let pairs: Vec<(&str, &str)> = rows.iter().map(pair).collect();
    let mut found: Vec<(String, Sequences)> = Vec::new();
    for (kind, text) in of_shapes(&pairs) {
        let path = files.write(&format!("{}.jsonl", kind.name()), text.as_bytes());
        let loaded = load(&DatasetSource::new(path, kind));
        found.push((kind.name().to_string(), loaded));
    }
    let plain = lines(&rows);
    let halves = plain.split_at(plain.match_indices('\n').nth(99).unwrap().0 + 1);
    for (name, bytes) in of_files(&rows, &pairs, halves) {
        let path = files.write(name, &bytes);
        found.push((name.to_string(), load(&questions(path))));
    }
    // The same rows in two files, of a folder and of a pattern.
    let (half, rest) = halves;
    files.write("parts/b/part-2.jsonl", rest.as_bytes());
    files.write("parts/a/part-1.jsonl.gz", &gzipped(half.as_bytes()));
    files.write("parts/README.md", b"no data");
    files.write("parts/.cache/x.jsonl", b"no data");
    for path in ["parts", "parts/?/part-*"] {
        found.push((path.to_string(), load(&questions(files.path(path)))));
    }
    let (_, first) = &found[0];
    assert_eq!(first.counts.examples, 200);
    for (name, sequences) in &found {
        assert!(
            sequences == first,
            "{name}: {:?} and {:?}",
            sequences.counts,
            first.counts
        );
    }
}

/// Question and answer of a row of GSM8K.
fn pair(row: &Value) -> (&str, &str) {
    (
        row["question"].as_str().unwrap(),
        row["answer"].as_str().unwrap(),
    )
}

/// Rows of each shape whose turns are those of the pairs.
fn of_shapes(pairs: &[(&str, &str)]) -> [(DatasetKind, String); 4] {
    let shaped = |shape: &dyn Fn(&str, &str) -> Value| {
        let rows: Vec<Value> = pairs.iter().map(|(q, a)| shape(q, a)).collect();
        lines(&rows)
    };
    let said = |role: &str, text: &str| json!({ "role": role, "content": text });
    let from = |role: &str, text: &str| json!({ "from": role, "value": text });
    [
        (
            DatasetKind::ChatTemplate,
            shaped(&|q, a| json!({ "messages": [said("user", q), said("assistant", a)] })),
        ),
        (
            DatasetKind::ShareGpt,
            shaped(&|q, a| json!({ "conversations": [from("human", q), from("gpt", a)] })),
        ),
        (
            DatasetKind::PromptCompletion,
            shaped(&|q, a| {
                let answer = said("assistant", a);
                json!({ "prompt": [said("user", q)], "completion": [answer] })
            }),
        ),
        (
            DatasetKind::AlpacaTurns,
            shaped(&|q, a| json!({ "instruction": q, "input": "", "output": a })),
        ),
    ]
}

/// The same rows in files of every form, and in two halves packed one after another.
fn of_files(
    rows: &[Value],
    pairs: &[(&str, &str)],
    (half, rest): (&str, &str),
) -> [(&'static str, Vec<u8>); 11] {
    let plain = lines(rows);
    let array = Value::from(rows.to_vec()).to_string();
    let pretty = serde_json::to_string_pretty(rows).unwrap();
    let table = |separator: &str| {
        let row = |(q, a): &(&str, &str)| format!("{}{separator}{}\r\n", quoted(q), quoted(a));
        format!(
            "question{separator}answer\r\n{}",
            pairs.iter().map(row).collect::<String>()
        )
    };
    let two_frames = [zstd(half.as_bytes()), zstd(rest.as_bytes())].concat();
    let two_members = [gzipped(half.as_bytes()), gzipped(rest.as_bytes())].concat();
    [
        ("a.jsonl", plain.clone().into_bytes()),
        ("a.data", plain.clone().into_bytes()),
        ("a.json", array.into_bytes()),
        ("pretty.json", pretty.into_bytes()),
        ("a.csv", table(",").into_bytes()),
        ("marked.csv", format!("\u{feff}{}", table(",")).into_bytes()),
        ("a.tsv", table("\t").into_bytes()),
        ("a.jsonl.gz", gzipped(plain.as_bytes())),
        ("two.jsonl.gz", two_members),
        ("two.jsonl.zst", two_frames),
        ("a.csv.zst", zstd(table(",").as_bytes())),
    ]
}

#[cfg(feature = "parquet")]
#[test]
fn files_of_columns_hold_the_same_rows() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/parquet");
    let load = |source: &DatasetSource| model().load(source, 64);
    let mut flat = questions(folder.join("flat.parquet"));
    flat.ignore_fields = vec!["score".to_string()];
    let flat = load(&flat).unwrap();
    assert_eq!(flat.counts.rows, 5);
    let zstd = load(&questions(folder.join("flat-zstd.parquet"))).unwrap();
    let talks = DatasetSource::new(folder.join("messages.parquet"), DatasetKind::ChatTemplate);
    assert_eq!(zstd, flat);
    assert_eq!(load(&talks).unwrap(), flat);
    let row = json!({ "question": "thr\u{e9}e?", "answer": "3" });
    let change = |source: &mut DatasetSource| {
        source.field_instruction = "question".to_string();
        source.field_output = "answer".to_string();
    };
    let parts = taught(&model(), DatasetKind::AlpacaTurns, &[row], change).unwrap();
    assert_eq!(parts, ["3<|im_end|>"]);
    let bytes = DatasetSource::new(folder.join("bytes.parquet"), DatasetKind::Completion);
    says(
        load(&bytes).unwrap_err(),
        &["bytes.parquet, row 1", "`text` is bytes"],
    );
    let mut lacks = DatasetSource::new(folder.join("flat.parquet"), DatasetKind::Completion);
    lacks.field = "body".to_string();
    says(load(&lacks).unwrap_err(), &["row 1", "no field `body`"]);
    let files = Files::new();
    for (name, bytes) in [
        ("cut.parquet", &b"PAR1abc"[..]),
        ("no.parquet", b""),
        ("a.parquet", b"x"),
    ] {
        let source = questions(files.write(name, bytes));
        says(
            load(&source).unwrap_err(),
            &[name, "not a usable .parquet file"],
        );
    }
}

#[test]
fn kinds_without_turns_are_learnt_as_they_are_written() {
    let learnt =
        |kind: DatasetKind, row: Value| taught(&model(), kind, &[row], |_| {}).unwrap().join("|");
    let asks = |input: &str| json!({ "instruction": "I", "input": input, "output": "O" });
    assert_eq!(learnt(DatasetKind::Alpaca, asks("")), "O</s>");
    let whole = |row: Value| {
        let change = |source: &mut DatasetSource| source.train_on_inputs = true;
        taught(&model(), DatasetKind::Alpaca, &[row], change)
            .unwrap()
            .concat()
    };
    assert_eq!(
        whole(asks("N")),
        "Below is an instruction that describes a task, paired with an input that provides \
         further context. Write a response that appropriately completes the request.\n\n\
         ### Instruction:\nI\n\n### Input:\nN\n\n### Response:\nO</s>"
    );
    assert_eq!(
        whole(asks("")),
        "Below is an instruction that describes a task. Write a response that appropriately \
         completes the request.\n\n### Instruction:\nI\n\n### Response:\nO</s>"
    );
    let text = json!({ "prompt": "2+2=", "completion": "4" });
    assert_eq!(learnt(DatasetKind::PromptCompletion, text), "4</s>");
    let ended = json!({ "prompt": "2+2=", "completion": "4</s>" });
    assert_eq!(learnt(DatasetKind::PromptCompletion, ended), "4</s>");
    assert_eq!(
        learnt(DatasetKind::Completion, json!({ "text": "abc" })),
        "abc</s>"
    );
    let segments = json!({ "segments": [{"text": "<s>ab", "label": false},
        {"text": "cd", "label": true}, {"text": "e", "label": false},
        {"text": "</s>", "label": true}] });
    assert_eq!(learnt(DatasetKind::InputOutput, segments), "cd|</s>");
    let ids = json!({ "input_ids": [97, 98, 99], "labels": [-100, -100, 99],
        "attention_mask": [1, 1, 1] });
    assert_eq!(learnt(DatasetKind::Tokens, ids), "c");
    let turns = json!({ "instruction": "I", "input": "N", "output": "O", "system": "S",
        "history": [["Q", "A"]] });
    assert_eq!(
        learnt(DatasetKind::AlpacaTurns, turns),
        "A<|im_end|>|O<|im_end|>"
    );
}

#[test]
fn long_examples_are_cut_left_out_split_or_refused() {
    let rows = ["ab", "abcdefghij", "abc"].map(|text| json!({ "text": text }));
    let files = Files::new();
    let path = files.write("a.jsonl", lines(&rows).as_bytes());
    let load = |excess: ExcessLength, len: u32| {
        let mut source = DatasetSource::new(&path, DatasetKind::Completion);
        source.excess_length = excess;
        model().load(&source, len)
    };
    let counts = |excess: ExcessLength| load(excess, 5).unwrap().counts;
    let cut = counts(ExcessLength::Truncate);
    assert_eq!((cut.sequences, cut.truncated, cut.longest), (3, 1, 12));
    // A text is an answer without a question.
    assert_eq!(counts(ExcessLength::ShortenTurns), cut);
    let dropped = counts(ExcessLength::Drop);
    assert_eq!((dropped.sequences, dropped.dropped), (2, 1));
    let split = load(ExcessLength::Split, 5).unwrap();
    assert_eq!((split.counts.sequences, split.counts.split), (5, 1));
    assert_eq!(split.tokens_of(3), [106, 257]);
    assert_eq!(split.mask_of(3), [0, 1]);
    let error = load(ExcessLength::Error, 5).unwrap_err();
    says(
        error,
        &["a.jsonl, line 2", "12 tokens", "sequence_len is 5"],
    );
    let error = load(ExcessLength::Drop, 3).unwrap_err();
    says(
        error,
        &[
            "a.jsonl",
            "are longer than sequence_len = 3",
            "raise sequence_len",
        ],
    );
    let mut first = DatasetSource::new(&path, DatasetKind::Completion);
    first.max_samples = Some(1);
    assert_eq!(model().load(&first, 5).unwrap().counts.rows, 1);
}

#[test]
fn files_of_other_splits_are_not_trained_on() {
    let files = Files::new();
    let row = json!({ "text": "abc" }).to_string();
    for name in [
        "data/train-00000-of-00001.jsonl",
        "data/test-00000-of-00001.jsonl",
    ] {
        files.write(name, row.as_bytes());
    }
    let mut source = DatasetSource::new(files.path("data"), DatasetKind::Completion);
    let error = model().load(&source, 8).unwrap_err();
    says(error, &["several splits", "test-00000", "split: train"]);
    source.split = Some("train".parse().unwrap());
    assert_eq!(model().load(&source, 8).unwrap().counts.rows, 1);
    files.write("data/notes.docx", b"x");
    says(
        model().load(&source, 8).unwrap_err(),
        &["notes.docx", "are not read"],
    );
    files.write("more/a.bin", b"x");
    let source = DatasetSource::new(files.path("more"), DatasetKind::Completion);
    says(
        model().load(&source, 8).unwrap_err(),
        &["a.bin", "by a pattern"],
    );
    let source = DatasetSource::new(files.path("no*"), DatasetKind::Completion);
    says(
        model().load(&source, 8).unwrap_err(),
        &["no*", "no file has a name of this pattern"],
    );
}

#[test]
fn a_file_is_guessed_by_its_fields() {
    let files = Files::new();
    let rows = [
        (
            json!({ "messages": [{"role": "user", "content": "a"}] }),
            DatasetKind::ChatTemplate,
        ),
        (
            json!({ "conversations": [{"from": "human", "value": "a"}] }),
            DatasetKind::ShareGpt,
        ),
        (
            json!({ "prompt": "a", "completion": "b" }),
            DatasetKind::PromptCompletion,
        ),
        (
            json!({ "question": "a", "answer": "b" }),
            DatasetKind::AlpacaTurns,
        ),
        (json!({ "text": "a" }), DatasetKind::Text),
        (json!({ "input_ids": [1] }), DatasetKind::Tokens),
    ];
    for (row, kind) in rows {
        let path = files.write("a.jsonl", row.to_string().as_bytes());
        assert_eq!(
            concord_data::guess(&path, true).unwrap().kind,
            kind,
            "{row}"
        );
    }
    let path = files.write("a.jsonl", b"{\"x\": 1}");
    says(
        concord_data::guess(&path, true).unwrap_err(),
        &["line 1", "x", "name its `type`"],
    );
}
