//! Every shape and every form of a file, broken in ten ways: the message says file, line, field,
//! and what would be right.

use std::fs;

use concord_data::{DatasetKind, DatasetSource};

use crate::broken_forms::forms;
use crate::broken_shapes::{CHATML, SHAPES};
use crate::fixtures::{Model, says};

pub fn model() -> Model {
    let mut model = Model::bytes().with_template(CHATML);
    model.max_positions = 256;
    model
}

#[test]
fn every_shape_broken_in_ten_ways() {
    let (model, folder) = (model(), tempfile::tempdir().unwrap());
    let path = folder.path().join("rows.jsonl");
    for shape in &SHAPES {
        let source = DatasetSource::new(&path, shape.kind);
        let (kind, len) = (shape.kind.name(), shape.sequence_len());
        fs::write(&path, shape.good).unwrap();
        let good = model.load(&source, len);
        assert!(good.is_ok(), "{kind}: {good:?}");
        assert!(shape.broken.len() >= 10, "{kind}");
        for (row, parts) in shape.broken {
            // In the second of three rows.
            fs::write(&path, format!("{0}\n{row}\n{0}\n", shape.good)).unwrap();
            let error = model.load(&source, len).expect_err(row);
            says(&error, &["rows.jsonl, line 2: "]);
            says(&error, parts);
        }
    }
}

#[test]
fn every_form_of_a_file_broken_in_ten_ways() {
    let (model, folder) = (model(), tempfile::tempdir().unwrap());
    for form in forms() {
        let path = folder.path().join(form.name);
        let source = DatasetSource::new(&path, form.kind);
        fs::write(&path, &form.good).unwrap();
        let good = model.load(&source, form.sequence_len);
        assert!(good.is_ok(), "{}: {good:?}", form.name);
        assert!(form.broken.len() >= 10, "{}", form.name);
        for (content, parts) in &form.broken {
            fs::write(&path, content).unwrap();
            let shown = String::from_utf8_lossy(content);
            let error = model.load(&source, form.sequence_len).expect_err(&shown);
            says(&error, &[form.name]);
            says(&error, parts);
        }
    }
}

/// Files of columns that pyarrow has written (`parquet/make_parquet.py`), by their names.
#[cfg(feature = "parquet")]
#[test]
fn files_of_columns_broken_in_ten_ways() {
    const NO_FILE: &str = "not a usable .parquet file";
    let broken: [(&str, &[&str]); 13] = [
        ("missing", &["row 1", "no field `output`"]),
        ("null", &["row 2", "`output` is null, not a string"]),
        ("number", &["row 1", "`output` is 1, not a string"]),
        ("empty-text", &["row 2", "`output` is empty"]),
        ("bytes", &["row 1", "`output` is bytes", "keep texts"]),
        ("list", &["row 1", "`output` is [\"c\"], not a string"]),
        ("map", &["row 1", "`output` is a map", "keep texts"]),
        ("unused", &["row 1", "`label` is not used"]),
        ("nul", &["row 2", "`output` has a NUL"]),
        ("twice", &["row 1", "`output` is there twice"]),
        ("no-rows", &["it is empty"]),
        ("cut", &[NO_FILE]),
        ("tail", &[NO_FILE]),
    ];
    let folder = std::path::PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let folder = folder.join("tests/data/parquet/broken");
    for (name, parts) in broken {
        let file = format!("{name}.parquet");
        let source = DatasetSource::new(folder.join(&file), DatasetKind::AlpacaTurns);
        let error = model().load(&source, 64).expect_err(name);
        says(&error, &[&file]);
        says(&error, parts);
    }
}

/// What a spreadsheet writes: quotes only where they are needed, a mark in front, no last end.
#[test]
fn a_table_of_a_spreadsheet_is_read() {
    let (model, folder) = (model(), tempfile::tempdir().unwrap());
    let path = folder.path().join("rows.csv");
    let text = "\u{feff}instruction,output\r\n5\" disk,\"a \"\"b\"\", c\"";
    fs::write(&path, text).unwrap();
    let source = DatasetSource::new(&path, DatasetKind::AlpacaTurns);
    assert_eq!(model.load(&source, 64).unwrap().counts.rows, 1);
}

/// Numbers that depend on the seed alone.
struct Draw(u64);

impl Draw {
    fn below(&mut self, most: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % most.max(1)
    }
}

/// Files whose bytes are changed at random are read or refused, and nothing panics.
#[test]
fn changed_rows_do_not_panic() {
    let (model, folder) = (model(), tempfile::tempdir().unwrap());
    let mut draw = Draw(7);
    let pool: Vec<&str> = SHAPES
        .iter()
        .flat_map(|shape| shape.broken.iter().map(|(row, _)| *row))
        .collect();
    let bits: [&[u8]; 12] = [
        b"\"",
        b"{",
        b"}",
        b"[",
        b"]",
        b",",
        b"\n",
        b"\\",
        b"\xff",
        b"\0",
        b"\xef\xbb\xbf",
        b"null",
    ];
    let names = [
        "a.jsonl",
        "a.json",
        "a.csv",
        "a.tsv",
        "a.jsonl.gz",
        "a.csv.zst",
        "a.txt",
    ];
    let (mut read, mut refused) = (0, 0);
    for _ in 0..2_000 {
        let shape = &SHAPES[draw.below(SHAPES.len())];
        let mut bytes = Vec::new();
        for _ in 0..=draw.below(3) {
            let row = match draw.below(4) {
                0 => pool[draw.below(pool.len())],
                _ => shape.good,
            };
            bytes.extend(row.as_bytes());
            bytes.push(b'\n');
        }
        for _ in 0..draw.below(4) {
            let at = draw.below(bytes.len());
            let end = (at + draw.below(3)).min(bytes.len());
            bytes.splice(at..end, bits[draw.below(bits.len())].iter().copied());
        }
        let path = folder.path().join(names[draw.below(names.len())]);
        fs::write(&path, &bytes).unwrap();
        let kind = match draw.below(4) {
            0 => DatasetKind::ALL[draw.below(DatasetKind::ALL.len())],
            _ => shape.kind,
        };
        match model.load(&DatasetSource::new(&path, kind), 64) {
            Ok(_) => read += 1,
            Err(error) => {
                refused += 1;
                assert!(!error.to_string().is_empty());
            }
        }
    }
    assert!(read > 50 && refused > 500, "{read} read, {refused} refused");
}
