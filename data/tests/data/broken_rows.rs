//! Texts and arrays of rows, broken: the message says file, line, and what would be right.

use std::fs;

use concord_data::{DatasetKind, DatasetSource};

use crate::broken::model;
use crate::fixtures::says;

/// A text that fills a sequence.
const GOOD: &str = r#"{"text": "abcdefghijklmnopqrstuvwxyz"}"#;

#[test]
fn texts_broken_in_ten_ways() {
    let (model, folder) = (model(), tempfile::tempdir().unwrap());
    let path = folder.path().join("rows.jsonl");
    let source = DatasetSource::new(&path, DatasetKind::Text);
    fs::write(&path, GOOD).unwrap();
    assert_eq!(model.load(&source, 16).unwrap().counts.rows, 1);
    let cases: [(&str, &[&str]); 13] = [
        (r#"{"text": null}"#, &["`text` is null, not a string"]),
        (r#"{"text": 7}"#, &["`text` is 7, not a string"]),
        (r#"{"text": ["a"]}"#, &["`text` is [\"a\"], not a string"]),
        (r#"{"text": {"a": 1}}"#, &["`text` is {", "not a string"]),
        (
            r#"{"content": "a"}"#,
            &["no field `text`", "field: content"],
        ),
        (r#"{"text": "a", "label": 1}"#, &["`label` is not used"]),
        (r#"{"text": "a\u0000"}"#, &["`text` has a NUL"]),
        (r#"{"text": "a", "text": "b"}"#, &["`text` is there twice"]),
        (r#"{"text": "\ud800"}"#, &["not a JSON object"]),
        (r#"{'text': 'a'}"#, &["not a JSON object"]),
        (r#"{"text": "a""#, &["a whole object on one line"]),
        (r#"["a"]"#, &["not a JSON object"]),
        (r#"{"messages": [1]}"#, &["type: chat_template"]),
    ];
    for (row, parts) in cases {
        // In the second of three rows.
        fs::write(&path, format!("{GOOD}\n{row}\n{GOOD}\n")).unwrap();
        let error = model.load(&source, 16).expect_err(row);
        says(&error, &["rows.jsonl, line 2: "]);
        says(&error, parts);
    }
}

#[test]
fn arrays_of_rows_broken_in_ten_ways() {
    let (model, folder) = (model(), tempfile::tempdir().unwrap());
    let path = folder.path().join("rows.json");
    let source = DatasetSource::new(&path, DatasetKind::AlpacaTurns);
    let row = r#"{"instruction": "a", "output": "b"}"#;
    let ends = "the rows of an array have a comma between two, and ] at the end";
    let cases = [
        (
            format!("[\n{row},\n"),
            "line 3: the array of rows is cut off",
        ),
        (format!("[\n{row}\n{row}]"), &*format!("line 3: {ends}")),
        (format!("[\n{row}\n}}"), &*format!("line 3: {ends}")),
        (
            format!("[\n{row}\n]\n{row}"),
            "line 4: there is more behind the end",
        ),
        (format!("[\n{row},\n]"), "line 3: not a JSON object"),
        (format!("[\n{row},\n7]"), "line 3: not a JSON object"),
        (format!("[\n{row},\nnull]"), "line 3: not a JSON object"),
        (format!("[\n{row},\n[{row}]]"), "line 3: not a JSON object"),
        (
            format!("[\n{row},\n{{\"output\": \"b\"}}]"),
            "line 3: there is no field `instruction`",
        ),
        (
            format!("[\n{row},\n{{\"instruction\": \"a\",\n\"output\": 1}}]"),
            "line 3: the field `output` is 1, not a string",
        ),
        (
            format!("[\n{row},\n{{\"instruction\": \"a\",\n\"output\": b}}]"),
            "1 lines below",
        ),
        ("[]".to_string(), "it is empty"),
    ];
    for (content, words) in &cases {
        fs::write(&path, content).unwrap();
        let error = model.load(&source, 64).expect_err(content);
        says(&error, &["rows.json", words]);
    }
}
