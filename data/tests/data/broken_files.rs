//! Tables and packed files, broken: the message says file, line, and what would be right.

use std::fs;

use concord_data::{DatasetKind, DatasetSource};

use crate::broken::model;
use crate::fixtures::says;

#[test]
fn tables_broken_in_ten_ways() {
    let (model, folder) = (model(), tempfile::tempdir().unwrap());
    let path = folder.path().join("rows.csv");
    let source = DatasetSource::new(&path, DatasetKind::AlpacaTurns);
    let cases: [(&[u8], &[&str]); 12] = [
        (
            b"instruction,output\n\"a\"\r\"b,c\n",
            &["line 2", "behind the closing quote"],
        ),
        (
            b"instruction,output\na,b\nc\n",
            &["line 3", "it has 1 fields", "names 2"],
        ),
        (
            b"instruction,output\na,b,c\n",
            &["line 2", "it has 3 fields"],
        ),
        (
            b"instruction,output\n\"a,b\n",
            &["line 2", "no closing one"],
        ),
        (
            b"instruction,output\n\"a\"x,b\n",
            &["line 2", "behind the closing quote"],
        ),
        (
            b"instruction,instruction\na,b\n",
            &["line 1", "`instruction` is there twice"],
        ),
        (b"instruction,\na,b\n", &["line 1", "field 2 has no name"]),
        (b"instruction,output\na,\xff\n", &["line 2", "not UTF-8"]),
        (
            b"instruction,output\n\"a\n\n\",b\nc,\n",
            &["line 5", "`output` is empty"],
        ),
        (b"instruction,output\n", &["it is empty"]),
        (b"a,b\n", &["it is empty"]),
        (b"a,b\n1,2\n", &["line 2", "no field `instruction`", "a, b"]),
    ];
    for (content, parts) in cases {
        fs::write(&path, content).unwrap();
        let error = model.load(&source, 64).unwrap_err();
        says(&error, &["rows.csv"]);
        says(&error, parts);
    }
    // What a spreadsheet writes: quotes only where they are needed, a mark in front, no last end.
    fs::write(
        &path,
        "\u{feff}instruction,output\r\n5\" disk,\"a \"\"b\"\", c\"",
    )
    .unwrap();
    assert_eq!(model.load(&source, 64).unwrap().counts.rows, 1);
}

#[test]
fn files_that_break_off_or_are_packed_wrongly() {
    let (model, folder) = (model(), tempfile::tempdir().unwrap());
    let row = r#"{"text": "abc"}"#;
    for (name, content, part) in [
        ("a.jsonl.gz", row.as_bytes(), "cannot read"),
        ("b.jsonl.zst", row.as_bytes(), "cannot read"),
        (
            "c.jsonl.zst",
            &[0x28, 0xb5, 0x2f, 0xfd, 0x04],
            "cannot read",
        ),
        (
            "d.jsonl.gz",
            &[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3, 1, 2],
            "cannot read",
        ),
        ("e.jsonl", b"\xff\xfe{\0", "UTF-16"),
    ] {
        let path = folder.path().join(name);
        fs::write(&path, content).unwrap();
        let source = DatasetSource::new(path, DatasetKind::Completion);
        says(model.load(&source, 64).unwrap_err(), &[name, part]);
    }
}
