//! Rows of data sets: what each field is used for, and that none is silently left out.

use std::fs;

use concord_data::{DataError, DatasetKind, DatasetSource, Loaded, Sequences};

use crate::fixtures::{Model, says, without_config};

/// A row with the three fields of Alpaca.
const ALPACA: &str = r#"{"instruction": "a", "input": "b", "output": "c"}"#;

/// Loads files of these names and contents, after `change` has changed each source.
fn load_all(
    files: &[(&str, &[u8])],
    kind: DatasetKind,
    len: u32,
    change: impl Fn(&mut DatasetSource),
) -> Result<(Vec<Loaded>, Vec<u32>), DataError> {
    let folder = tempfile::tempdir().unwrap();
    let sources: Vec<DatasetSource> = files
        .iter()
        .map(|(name, content)| {
            let path = folder.path().join(name);
            fs::write(&path, content).unwrap();
            let mut source = DatasetSource::new(path, kind);
            change(&mut source);
            source
        })
        .collect();
    let (mut read, bytes) = (0, files.iter().map(|(_, content)| content.len() as u64));
    let loaded = Model::bytes().load_all(&sources, len, &mut |bytes| read += bytes);
    assert!(read <= bytes.sum::<u64>(), "{read} bytes");
    loaded
}

fn load(name: &str, content: &[u8], kind: DatasetKind) -> Result<Sequences, DataError> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    fs::write(&path, content).unwrap();
    Model::bytes().load(&DatasetSource::new(path, kind), 8)
}

fn instruct(content: &str) -> Result<Sequences, DataError> {
    load("a.jsonl", content.as_bytes(), DatasetKind::Instruct)
}

#[test]
fn the_input_is_part_of_what_is_given() {
    let with = instruct(ALPACA).unwrap();
    assert_eq!(with.tokens, [256, 97, 10, 98, 10, 99, 257]);
    assert_eq!(with.loss_mask, [0, 0, 0, 0, 0, 1, 1]);
    // An empty one is none, as is none at all.
    let without = [256, 97, 10, 99, 257];
    for input in [
        r#""input": "","#,
        r#""input": " ","#,
        r#""input": null,"#,
        "",
    ] {
        let row = format!(r#"{{"instruction": "a", {input} "output": "c"}}"#);
        assert_eq!(instruct(&row).unwrap().tokens, without, "{row}");
    }
    let only = instruct(r#"{"instruction": "", "input": "b", "output": "c"}"#).unwrap();
    assert_eq!(only.tokens, [256, 98, 10, 99, 257]);
    // By another name, and left out on purpose.
    let row = ALPACA.replace("input", "context");
    let files: [(&str, &[u8]); 1] = [("a.jsonl", row.as_bytes())];
    let named = |source: &mut DatasetSource| source.field_input = "context".to_string();
    let loaded = load_all(&files, DatasetKind::Instruct, 8, named).unwrap();
    assert_eq!(loaded.1, with.tokens);
    let ignored = |source: &mut DatasetSource| source.ignore_fields = vec!["context".to_string()];
    let loaded = load_all(&files, DatasetKind::Instruct, 8, ignored).unwrap();
    assert_eq!(loaded.1, without);
}

#[test]
fn a_field_that_is_not_used_is_named_with_its_line_and_a_remedy() {
    let cases = [
        (r#""messages": [1]"#, "set `type: chat_template`"),
        (r#""conversations": [1]"#, "set `type: sharegpt`"),
        (r#""system": "s""#, "set `type: alpaca_turns`"),
        (
            r#""history": [["a", "b"]]"#,
            "put its text into the instruction",
        ),
        (r#""context": "c""#, "set `field_input: context`"),
        (r#""question": "c""#, "set `field_instruction: question`"),
        (r#""response": "c""#, "set `field_output: response`"),
        (r#""chosen": "c""#, "preferences are not trained on"),
        (
            r#""tools": [{}]"#,
            "tools are read with `type: chat_template`",
        ),
        (r#""text": "c""#, "remove it, or name it in `ignore_fields`"),
        (
            r#""split": "test""#,
            "the field `split` is not used by type `instruct`",
        ),
        (
            r#""weight": 0.5"#,
            "the field `weight` is not used by type `instruct`",
        ),
    ];
    for (field, expected) in cases {
        let rows = format!("{ALPACA}\n{{\"instruction\": \"a\", \"output\": \"b\", {field}}}");
        let error = instruct(&rows).unwrap_err();
        says(&error, &["a.jsonl", "line 2", "`ignore_fields`", expected]);
    }
    let text = |row: &str| load("a.jsonl", row.as_bytes(), DatasetKind::Text);
    says(
        text(r#"{"text": "a", "prompt": "b"}"#).unwrap_err(),
        &[
            "line 1",
            "`prompt` is not used by type `text`",
            "type: instruct",
        ],
    );
    // Empty fields, and fields that say where a row is from, are accepted.
    for field in [
        r#""system": """#,
        r#""history": []"#,
        r#""x": null"#,
        r#""id": 7"#,
        r#""url": "u""#,
    ] {
        let row = format!("{{\"instruction\": \"a\", \"output\": \"b\", {field}}}");
        assert_eq!(instruct(&row).unwrap().count(), 1, "{row}");
    }
}

#[test]
fn a_field_that_is_missing_comes_with_what_to_set() {
    let asks = r#"{"question": "a", "answer": "b"}"#;
    let cases = [
        (
            DatasetKind::Instruct,
            asks,
            "set `field_instruction: question` and `field_output: answer`",
        ),
        (
            DatasetKind::Text,
            asks,
            "set `type: instruct`, `field_instruction: question`",
        ),
        (
            DatasetKind::Instruct,
            r#"{"text": "a"}"#,
            "set `type: text` and `field: text`",
        ),
        (
            DatasetKind::Text,
            r#"{"content": "a"}"#,
            "set `field: content`",
        ),
        (
            DatasetKind::Text,
            r#"{"messages": []}"#,
            "set `type: chat_template`",
        ),
        (DatasetKind::Text, r#"{"input_ids": [1]}"#, "type: tokens"),
        (
            DatasetKind::Text,
            r#"{"text": null}"#,
            "`text` is null, not a string",
        ),
        (
            DatasetKind::Text,
            r#"{"text": ["a"]}"#,
            "`text` is [\"a\"], not a string",
        ),
        (
            DatasetKind::Instruct,
            r#"{"instruction": 7, "output": "b"}"#,
            "`instruction` is 7",
        ),
        (
            DatasetKind::Instruct,
            r#"{"instruction": "a", "output": ""}"#,
            "`output` is empty",
        ),
        (
            DatasetKind::Instruct,
            r#"{"instruction": "a", "output": " \n"}"#,
            "`output` is empty",
        ),
        (
            DatasetKind::Instruct,
            r#"{"instruction": "", "output": "b"}"#,
            "`instruction` is empty",
        ),
        (
            DatasetKind::Instruct,
            r#"{"instruction": "a", "input": 7, "output": "b"}"#,
            "`input` is 7",
        ),
    ];
    for (kind, row, expected) in cases {
        let error = load("a.jsonl", format!("\n{row}").as_bytes(), kind).unwrap_err();
        says(error, &["line 2", expected]);
    }
}

#[test]
fn json_that_two_readers_would_read_differently_is_refused() {
    let cases = [
        (r#"{"text": "a", "text": "b"}"#, "`text` is there twice"),
        (
            r#"{"text": "a", "te\u0078t": "b"}"#,
            "`text` is there twice",
        ),
        (r#"{"text": "\ud83d"}"#, "not a JSON object"),
        (r#"{"text": "a\u0000b"}"#, "NUL character"),
        (r#"{"text": "a"} x"#, "not a JSON object"),
        (r#"{"text": "a"} {"text": "b"}"#, "not a JSON object"),
        (r#"{"text": "a""#, "a whole object on one line"),
        ("{'text': 'a'}", "not a JSON object"),
        (r#"{"text": NaN}"#, "not a JSON object"),
    ];
    for (row, expected) in cases {
        let rows = format!("{{\"text\": \"abc\"}}\n{row}\n");
        let error = load("a.jsonl", rows.as_bytes(), DatasetKind::Text).unwrap_err();
        says(&error, &["line 2", expected]);
        // The same in an array.
        let array = format!("[{{\"text\": \"abc\"}},\n{row}\n]");
        let error = load("a.json", array.as_bytes(), DatasetKind::Text).unwrap_err();
        says(&error, &["a.json"]);
    }
}

#[test]
fn an_array_of_rows_is_as_good_as_lines() {
    let lines = load(
        "a.jsonl",
        format!("{ALPACA}\n{ALPACA}\n").as_bytes(),
        DatasetKind::Instruct,
    );
    let lines = lines.unwrap();
    let arrays = [
        format!("[{ALPACA},{ALPACA}]"),
        format!(" [\n  {ALPACA}\n,\n\n{ALPACA} ]\r\n"),
        format!("\u{feff}[{ALPACA}, {ALPACA}]"),
        format!("[\n{},\n{ALPACA}]", ALPACA.replace(", ", ",\n\t")),
    ];
    for array in arrays {
        for name in ["a.json", "a.jsonl", "A.JSON", "a.ndjson"] {
            let loaded = load(name, array.as_bytes(), DatasetKind::Instruct).unwrap();
            assert_eq!(loaded, lines, "{name}: {array}");
        }
    }
    let bad = [
        ("[]", "it is empty"),
        ("[{\"text\": \"a\"},\n 7]", "line 2: not a JSON object"),
        ("[{\"text\": \"a\"},\n]", "line 2: not a JSON object"),
        (
            "[{\"text\": \"a\"}\n{\"text\": \"b\"}]",
            "line 2: the rows of an array have a comma",
        ),
        ("[{\"text\": \"a\"},", "cut off"),
        (
            "[{\"text\": \"a\"}]\n[]",
            "line 2: there is more behind the end",
        ),
        ("[[{\"text\": \"a\"}]]", "not a JSON object"),
    ];
    for (array, expected) in bad {
        let error = load("a.json", array.as_bytes(), DatasetKind::Text).unwrap_err();
        says(error, &["a.json", expected]);
    }
    // Lines in a .json file, as the hub has them.
    let rows = b"{\"text\": \"abcdefg\"}\n{\"text\": \"h\"}\n";
    assert_eq!(
        load("a.json", rows, DatasetKind::Text)
            .unwrap()
            .counts
            .examples,
        2
    );
}

#[test]
fn marks_and_line_ends_of_editors_are_no_text() {
    let kinds: [(&str, &str, DatasetKind); 3] = [
        ("a.txt", "ab\ncd\nefgh", DatasetKind::Text),
        (
            "a.jsonl",
            "{\"text\": \"ab\"}\n{\"text\": \"cdefg\"}\n",
            DatasetKind::Text,
        ),
        (
            "a.jsonl",
            "{\"instruction\": \"a\", \"output\": \"b\"}\n",
            DatasetKind::Instruct,
        ),
    ];
    for (name, plain, kind) in kinds {
        let expected = load(name, plain.as_bytes(), kind).unwrap();
        let windows = plain.replace('\n', "\r\n");
        for other in [
            format!("\u{feff}{plain}"),
            windows.clone(),
            format!("\u{feff}{windows}"),
        ] {
            assert_eq!(
                load(name, other.as_bytes(), kind).unwrap(),
                expected,
                "{other:?}"
            );
        }
        let wide = plain.encode_utf16().flat_map(u16::to_le_bytes);
        let marked: Vec<u8> = [0xff, 0xfe].into_iter().chain(wide).collect();
        says(load(name, &marked, kind).unwrap_err(), &[name, "UTF-16"]);
        assert!(
            load(name, &marked[2..], kind).is_err(),
            "UTF-16 without a mark"
        );
    }
    // A byte order mark in front of the second file, and inside a concatenated file.
    let marked: (&str, &[u8]) = ("b.txt", b"\xef\xbb\xbfefgh");
    let both = load_all(&[("a.txt", b"abcd"), marked], DatasetKind::Text, 11, |_| {}).unwrap();
    let expected = [256, 97, 98, 99, 100, 257, 256, 101, 102, 103, 104];
    assert_eq!(both.1, expected);
    let joined = b"{\"text\": \"abc\"}\n\xef\xbb\xbf{\"text\": \"def\"}";
    assert_eq!(
        load("a.jsonl", joined, DatasetKind::Text)
            .unwrap()
            .counts
            .examples,
        2
    );
}

#[test]
fn documents_have_an_end_between_them() {
    let text = DatasetKind::Text;
    let files: [(&str, &[u8]); 3] = [
        ("a.txt", b"ab"),
        ("b.jsonl", b"{\"text\": \"c\"}\n{\"text\": \"\"}"),
        ("c.txt", b"d"),
    ];
    let loaded = load_all(&files, text, 4, |_| {}).unwrap();
    let (loaded, tokens) = loaded;
    assert_eq!((loaded.len(), loaded[0].sources.clone()), (1, 0..3));
    let counts = loaded[0].counts;
    // Each fills no sequence alone; together, with an end between two, they do.
    assert_eq!(tokens, [256, 97, 98, 257, 256, 99, 257, 256]);
    assert_eq!((counts.examples, counts.blank, counts.tail), (3, 1, 1));
    // A document that ends with the token itself gets no second one.
    let files: [(&str, &[u8]); 2] = [("a.txt", b"ab</s>"), ("b.txt", b"cde")];
    let loaded = load_all(&files, text, 4, |_| {}).unwrap();
    assert_eq!(loaded.1, [256, 97, 98, 257, 256, 99, 100, 101]);
    // One text is one document, as it always was.
    let one = load("a.txt", b"ab\n\ncdef", text).unwrap();
    assert_eq!(one.tokens, [256, 97, 98, 10, 10, 99, 100, 101]);
    // Together they may still be too short.
    let error = load_all(&[("a.txt", b"ab"), ("b.txt", b"c")], text, 9, |_| {}).unwrap_err();
    says(
        error,
        &[
            "a.txt",
            "6 tokens",
            "the 1 data sets after it",
            "one sequence of 9",
        ],
    );
    let files: [(&str, &[u8]); 2] = [("a.txt", b"abc"), ("b.txt", b"")];
    says(
        load_all(&files, text, 4, |_| {}).unwrap_err(),
        &["b.txt", "it is empty"],
    );
    says(
        load("a.jsonl", b"{\"text\": \"\"}", text).unwrap_err(),
        &["all its 1 documents are empty"],
    );
}

#[test]
fn several_documents_need_an_end() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.jsonl");
    fs::write(&path, "{\"text\": \"ab\"}\n{\"text\": \"cd\"}\n").unwrap();
    let mut model = Model::bytes();
    model.tokenizer = without_config();
    let source = DatasetSource::new(path, DatasetKind::Text);
    // The model's own end, where the tokenizer names none.
    let tokens = model.load(&source, 7).unwrap().tokens;
    assert_eq!(tokens, [256, 97, 98, 257, 256, 99, 100]);
    model.eos.clear();
    let error = model.load(&source, 7).unwrap_err();
    says(error, &["a.jsonl", "end-of-text token", "eos_token_id"]);
}

#[test]
fn examples_that_are_lost_are_counted_and_bounded() {
    // Prompts of `given` letters, outputs of `learnt`; two more tokens each.
    let rows = |shapes: &[(usize, usize)]| {
        let row = |(given, learnt): &(usize, usize)| {
            let (given, learnt) = ("a".repeat(*given), "b".repeat(*learnt));
            format!("{{\"instruction\": \"{given}\", \"output\": \"{learnt}\"}}\n")
        };
        shapes.iter().map(row).collect::<String>()
    };
    let half = instruct(&rows(&[(1, 1), (9, 1), (1, 1), (9, 1)])).unwrap();
    assert_eq!(
        (half.count(), half.counts.examples, half.counts.skipped),
        (2, 4, 2)
    );
    let cut = instruct(&rows(&[(1, 1), (1, 30), (1, 30), (1, 30)])).unwrap();
    assert_eq!(
        (cut.count(), cut.counts.truncated, cut.counts.skipped),
        (4, 3, 0)
    );
    let cases: [(&[(usize, usize)], &str); 3] = [
        (
            &[(1, 1), (9, 1), (9, 20)],
            "2 of 3 instructions fill sequence_len = 8 alone",
        ),
        (
            &[(9, 1), (9, 20)],
            "all 2 instructions fill sequence_len = 8 alone",
        ),
        (
            &[(1, 29), (1, 12)],
            "none of 2 examples fits sequence_len = 8 whole",
        ),
    ];
    for (shapes, expected) in cases {
        let error = instruct(&rows(shapes)).unwrap_err();
        says(
            error,
            &[
                "a.jsonl",
                expected,
                "raise sequence_len (the longest example has 3",
            ],
        );
    }
}

#[test]
fn files_of_formats_that_are_not_read_are_named() {
    for ending in ["arrow", "zip", "PDF"] {
        for kind in [DatasetKind::Text, DatasetKind::Instruct] {
            let name = format!("a.{ending}");
            let error = load(&name, b"abcdefghijk", kind).unwrap_err();
            says(error, &[&name, "files are not read", ".jsonl"]);
        }
    }
}
