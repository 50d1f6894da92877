//! Data sets.

use std::fs;
use std::time::Instant;

use concord_data::{DataError, DatasetKind, DatasetSource, Grouping, Sequences};
use serde_json::Value;

use crate::fixtures::{Model, says, shared};

/// Loads the file `name` with `content` for the fixture's model; ids are bytes, 256 begins.
fn load(name: &str, content: &[u8], kind: DatasetKind, len: u32) -> Result<Sequences, DataError> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    fs::write(&path, content).unwrap();
    Model::bytes().load(&DatasetSource::new(path, kind), len)
}

#[test]
fn the_batches_of_the_reference() {
    let Some(model) = shared("models/tinystories-260k") else {
        return;
    };
    let Some(text) = shared("data/tinyshakespeare.txt") else {
        return;
    };
    let Some(batches) = shared("reference/train-lora/batches.safetensors") else {
        return;
    };
    let model = Model::open(&model);

    let source = DatasetSource::new(batches, DatasetKind::Tokens);
    let tokens = model.load(&source, 128).unwrap();
    assert_eq!(
        tokens.grouping,
        Some(Grouping {
            steps: 40,
            microbatches: 4,
            batch: 2
        })
    );
    assert_eq!(tokens.count(), 320);

    let start = Instant::now();
    let source = DatasetSource::new(text, DatasetKind::Text);
    let sequences = model.load(&source, 128).unwrap();
    println!("{} tokens in {:?}", sequences.tokens.len(), start.elapsed());
    // The reference took the text without the token that begins it.
    assert_eq!(sequences.tokens[0], 1);
    let count = tokens.tokens.len();
    assert!(
        sequences.tokens[1..=count] == tokens.tokens,
        "the same ids as transformers"
    );
    assert_eq!(sequences.mask_of(3), [&[0], [1; 127].as_slice()].concat());
    assert_eq!(sequences.mask_of(3), tokens.mask_of(3));
}

#[test]
fn gsm8k_predicts_answers_only() {
    let Some(model) = shared("models/tinystories-260k") else {
        return;
    };
    let Some(path) = shared("data/gsm8k-test.jsonl") else {
        return;
    };
    let model = Model::open(&model);
    let mut source = DatasetSource::new(&path, DatasetKind::Instruct);
    source.field_instruction = "question".to_string();
    source.field_output = "answer".to_string();
    let sequences = model.load(&source, 256).unwrap();
    let lines = fs::read_to_string(&path).unwrap().lines().count();
    assert_eq!(sequences.count() + sequences.counts.skipped as usize, lines);
    assert!(
        sequences.counts.truncated > 0,
        "this tokenizer makes long sequences"
    );
    let whole = (0..sequences.count())
        .find(|i| sequences.tokens_of(*i).len() < 256)
        .unwrap();
    let predicted: Vec<u32> = sequences
        .tokens_of(whole)
        .iter()
        .zip(sequences.mask_of(whole))
        .filter_map(|(id, mask)| (*mask == 1).then_some(*id))
        .collect();
    assert_eq!(predicted.last(), Some(&2), "the end is predicted");
    let answer = model.tokenizer.decode(&predicted, true).unwrap();
    let text = fs::read_to_string(&path).unwrap();
    let mut examples = text
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap());
    assert!(
        examples.any(|example| example["answer"] == answer.as_str()),
        "{answer}"
    );
}

#[test]
fn text_is_joined_and_cut() {
    let sequences = load("a.txt", b"abcdefghij", DatasetKind::Text, 4).unwrap();
    assert_eq!(sequences.tokens, [256, 97, 98, 99, 100, 101, 102, 103]);
    assert_eq!(sequences.loss_mask, [0, 1, 1, 1, 0, 1, 1, 1]);
    assert_eq!(
        (sequences.count(), sequences.tokens_of(2)),
        (2, [].as_slice())
    );
    assert_eq!((sequences.counts.examples, sequences.counts.tail), (1, 3));
    let lines = b"{\"text\": \"ab\"}\n\n{\"text\": \"cd\", \"url\": \"u\"}\n";
    let sequences = load("a.jsonl", lines, DatasetKind::Text, 3).unwrap();
    assert_eq!(sequences.tokens, [256, 97, 98, 257, 256, 99]);
    assert_eq!((sequences.counts.examples, sequences.counts.tail), (2, 1));
}

#[test]
fn instructions_are_as_long_as_they_are_or_cut() {
    let lines = br#"{"instruction": "a", "output": "b"}
{"instruction": "a", "output": "bcdef"}
{"instruction": "abcd", "output": "e"}
{"instruction": "abc", "output": "e"}"#;
    let sequences = load("a.jsonl", lines, DatasetKind::Instruct, 6).unwrap();
    assert_eq!(sequences.count(), 3);
    assert_eq!(sequences.tokens_of(0), [256, 97, 10, 98, 257]);
    assert_eq!(sequences.mask_of(0), [0, 0, 0, 1, 1]);
    assert_eq!(sequences.tokens_of(1), [256, 97, 10, 98, 99, 100]);
    assert_eq!(sequences.mask_of(1), [0, 0, 0, 1, 1, 1]);
    assert_eq!(sequences.tokens_of(2), [256, 97, 98, 99, 10, 101]);
    assert_eq!(sequences.mask_of(2), [0, 0, 0, 0, 0, 1]);
    assert_eq!(
        (sequences.counts.truncated, sequences.counts.skipped),
        (2, 1)
    );
    assert_eq!((sequences.counts.examples, sequences.counts.tail), (4, 0));
    let error = load("a.jsonl", lines, DatasetKind::Instruct, 3).unwrap_err();
    says(
        error,
        &["a.jsonl", "all 4 instructions", "sequence_len = 3"],
    );
}

/// File, content, kind, sequence_len, and what the message says.
type Unusable = (
    &'static str,
    &'static [u8],
    DatasetKind,
    u32,
    &'static [&'static str],
);

const UNUSABLE: &[Unusable] = &[
    ("a.txt", b"", DatasetKind::Text, 4, &["a.txt", "empty"]),
    (
        "a.jsonl",
        b"\n \n",
        DatasetKind::Text,
        4,
        &["a.jsonl", "empty"],
    ),
    (
        "a.jsonl",
        b"",
        DatasetKind::Instruct,
        4,
        &["a.jsonl", "empty"],
    ),
    (
        "a.txt",
        b"ab",
        DatasetKind::Text,
        4,
        &["3 tokens do not fill one sequence of 4"],
    ),
    (
        "a.txt",
        b"ab\xFFcd",
        DatasetKind::Text,
        4,
        &["a.txt", "not UTF-8", "byte 2"],
    ),
    (
        "a.jsonl",
        b"{\"text\": \"a\"}\nhello\n",
        DatasetKind::Text,
        4,
        &["a.jsonl", "line 2", "not a JSON"],
    ),
    (
        "a.jsonl",
        b"{\"text\": \"a\"}\n\n[1]\n",
        DatasetKind::Text,
        4,
        &["line 3", "not a JSON object"],
    ),
    (
        "a.jsonl",
        b"{\"text\": \"a\"}\n{\"x\": 1}",
        DatasetKind::Text,
        4,
        &["line 2", "`text`", "there are x"],
    ),
    (
        "a.jsonl",
        b"{\"text\": 7}",
        DatasetKind::Text,
        4,
        &["line 1", "`text` is 7, not a string"],
    ),
    (
        "a.jsonl",
        b"{\"instruction\": \"a\"}",
        DatasetKind::Instruct,
        4,
        &["line 1", "`output`"],
    ),
    ("a.jsonl", b"\xff\xfe{\0", DatasetKind::Text, 4, &["UTF-16"]),
    (
        "a.jsonl",
        b"{\"text\": \"a\xFF\"}",
        DatasetKind::Text,
        4,
        &["line 1", "not a JSON object"],
    ),
    (
        "a.txt",
        b"abcdef",
        DatasetKind::Text,
        65,
        &["sequence_len is 65", "64 positions"],
    ),
];

#[test]
fn data_that_cannot_be_used() {
    use DatasetKind::{Instruct, Text};
    for &(name, content, kind, len, parts) in UNUSABLE {
        says(load(name, content, kind, len).unwrap_err(), parts);
    }
    says(
        load("a.txt", b"abc", Text, 1).unwrap_err(),
        &["sequence_len is 1", "at least 2"],
    );
    let folder = tempfile::tempdir().unwrap();
    for (name, kind) in [("no.txt", Text), ("no.jsonl", Instruct)] {
        let source = DatasetSource::new(folder.path().join(name), kind);
        says(
            Model::bytes().load(&source, 4).unwrap_err(),
            &["cannot read", name],
        );
    }
    says(
        "txet".parse::<DatasetKind>().unwrap_err(),
        &["`txet`", "did you mean `text`?"],
    );
}
