//! Every shape, broken in ten ways: the message says file, line, field, and what would be right.

use std::fs;

use concord_data::{DatasetKind, DatasetSource};

use crate::fixtures::{Model, says};

const CHATML: &str = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n\
                      {% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";

/// A kind, a row that is right, and rows that are not, with what is said of each.
struct Shape {
    kind: DatasetKind,
    good: &'static str,
    broken: &'static [(&'static str, &'static [&'static str])],
}

const SHAPES: [Shape; 9] = [
    Shape {
        kind: DatasetKind::ChatTemplate,
        good: concat!(
            r#"{"messages": [{"role": "user", "content": "a"}, "#,
            r#"{"role": "assistant", "content": "b"}]}"#
        ),
        broken: &[
            (r#"{"messages": []}"#, &["`messages` has no message"]),
            (
                r#"{"messages": null}"#,
                &["`messages` is null, not a list of messages"],
            ),
            (r#"{"messages": 7}"#, &["`messages` is 7, not a list"]),
            (
                r#"{"messages": ["a"]}"#,
                &["messages[0] is \"a\", not a message such as"],
            ),
            (
                r#"{"messages": [{"content": "a"}]}"#,
                &["no field `role` in messages[0]"],
            ),
            (
                r#"{"messages": [{"role": "user"}]}"#,
                &["no field `content` in messages[0]"],
            ),
            (
                r#"{"messages": [{"from": "human", "value": "a"}]}"#,
                &["no field `role`", "type: sharegpt"],
            ),
            (
                r#"{"messages": [{"role": "boss", "content": "a"}]}"#,
                &["role of messages[0] is \"boss\"", "roles: {user: [boss]}"],
            ),
            (
                r#"{"messages": [{"role": "user", "content": 7}]}"#,
                &["`content` of messages[0] is 7, not a string"],
            ),
            (
                r#"{"messages": [{"role": "user", "content": "a"}]}"#,
                &["no turn is learnt"],
            ),
            (
                r#"{"messages": [{"role": "assistant", "content": ""}]}"#,
                &["messages[0] is empty", "nothing to learn"],
            ),
            (
                r#"{"messages": [{"role": "user", "content": "a", "weight": 0}]}"#,
                &[
                    "messages[0] has the field `weight`",
                    "message_field_training",
                ],
            ),
            (
                r#"{"conversations": []}"#,
                &["no field `messages`", "type: sharegpt"],
            ),
            (
                r#"{"messages": [{"role": "user", "content": "a\u0000"}]}"#,
                &["messages[0] has a NUL character"],
            ),
        ],
    },
    Shape {
        kind: DatasetKind::ShareGpt,
        good: concat!(
            r#"{"conversations": [{"from": "human", "value": "a"}, "#,
            r#"{"from": "gpt", "value": "b"}]}"#
        ),
        broken: &[
            (
                r#"{"conversations": {}}"#,
                &["`conversations` is {}, not a list"],
            ),
            (
                r#"{"messages": []}"#,
                &["no field `conversations`", "type: chat_template"],
            ),
            (
                r#"{"conversations": [{"role": "user", "content": "a"}]}"#,
                &["no field `from`", "type: chat_template"],
            ),
            (
                concat!(
                    r#"{"conversations": [{"from": "human", "value": "a"}, "#,
                    r#"{"from": "gpt", "value": "b", "content": "c", "role": "user"}]}"#
                ),
                &["`content` is read from another field", "ignore_fields"],
            ),
            (
                r#"{"conversations": [{"from": 1, "value": "a"}]}"#,
                &["`from`", "1, not a string"],
            ),
            (
                r#"{"conversations": [{"from": "x", "value": "a"}]}"#,
                &["role of conversations[0]"],
            ),
            (
                r#"{"conversations": [{"from": "gpt", "value": " "}]}"#,
                &["nothing to learn"],
            ),
            (
                r#"{"conversations": [{"from": "function_call", "value": "f()"}]}"#,
                &["conversations[0] is f(), not a call"],
            ),
            (
                r#"{"conversations": [{"from": "gpt", "value": "a"}], "tools": [1]}"#,
                &["`tools[0]` is 1, not the description"],
            ),
            (
                r#"{"conversations": [{"from": "gpt", "value": "a"}], "images": ["x"]}"#,
                &["`images` is not used", "only text"],
            ),
            (
                r#"{"conversations": [{"from": "system", "value": "a"}], "system": "b"}"#,
                &["a field `system`, and the first turn"],
            ),
        ],
    },
    Shape {
        kind: DatasetKind::AlpacaTurns,
        good: r#"{"instruction": "a", "input": "b", "output": "c"}"#,
        broken: &[
            (r#"{"instruction": "a"}"#, &["no field `output`"]),
            (r#"{"output": "a"}"#, &["no field `instruction`"]),
            (
                r#"{"instruction": "a", "output": null}"#,
                &["`output` is null, not a string"],
            ),
            (
                r#"{"instruction": 1, "output": "a"}"#,
                &["`instruction` is 1, not a string"],
            ),
            (
                r#"{"instruction": "a", "output": ""}"#,
                &["`output` is empty"],
            ),
            (
                r#"{"instruction": " ", "output": "a"}"#,
                &["`instruction` is empty"],
            ),
            (
                r#"{"instruction": "a", "input": [], "output": "a"}"#,
                &["`input` is [], not a string"],
            ),
            (
                r#"{"instruction": "a", "output": "b", "history": [["a"]]}"#,
                &["`history[0]`", "not a question and an answer"],
            ),
            (
                r#"{"instruction": "a", "output": "b", "x": 1}"#,
                &["`x` is not used"],
            ),
            (
                r#"{"question": "a", "answer": "b"}"#,
                &["field_instruction: question"],
            ),
        ],
    },
    Shape {
        kind: DatasetKind::Alpaca,
        good: r#"{"instruction": "a", "input": "b", "output": "c"}"#,
        broken: &[
            (r#"{"instruction": "a"}"#, &["no field `output`"]),
            (r#"{"output": "a"}"#, &["no field `instruction`"]),
            (
                r#"{"instruction": "a", "output": null}"#,
                &["`output` is null"],
            ),
            (
                r#"{"instruction": "a", "output": {}}"#,
                &["`output` is {}, not a string"],
            ),
            (
                r#"{"instruction": "a", "output": ""}"#,
                &["`output` is empty"],
            ),
            (
                r#"{"instruction": "", "output": "a"}"#,
                &["`instruction` is empty"],
            ),
            (
                r#"{"instruction": "a", "output": "b", "system": "c"}"#,
                &["type: alpaca_turns"],
            ),
            (
                r#"{"instruction": "a", "output": "b\u0000"}"#,
                &["`output` has a NUL"],
            ),
            (
                r#"{"instruction": "a", "output": "b", "output": "c"}"#,
                &["`output` is there twice"],
            ),
            (
                r#"{"prompt": "a", "completion": "b"}"#,
                &["field_instruction: prompt"],
            ),
        ],
    },
    Shape {
        kind: DatasetKind::Instruct,
        good: r#"{"instruction": "a", "output": "c"}"#,
        broken: &[
            (r#"{"instruction": "a"}"#, &["no field `output`"]),
            (r#"{"messages": [1]}"#, &["type: chat_template"]),
            (
                r#"{"instruction": "a", "output": null}"#,
                &["`output` is null"],
            ),
            (
                r#"{"instruction": true, "output": "a"}"#,
                &["`instruction` is true"],
            ),
            (
                r#"{"instruction": "a", "output": "\n"}"#,
                &["`output` is empty"],
            ),
            (
                r#"{"instruction": "", "output": "a"}"#,
                &["`instruction` is empty"],
            ),
            (r#"["a"]"#, &["not a JSON object"]),
            (
                r#"{"instruction": "a", "output": "b""#,
                &["a whole object on one line"],
            ),
            (
                r#"{"instruction": "a", "output": "b", "chosen": "c"}"#,
                &["preferences"],
            ),
            (
                r#"{"instruction": "a", "output": "b"} x"#,
                &["not a JSON object"],
            ),
        ],
    },
    Shape {
        kind: DatasetKind::PromptCompletion,
        good: r#"{"prompt": "a", "completion": "b"}"#,
        broken: &[
            (r#"{"prompt": "a"}"#, &["no field `completion`"]),
            (r#"{"completion": "a"}"#, &["no field `prompt`"]),
            (
                r#"{"prompt": "a", "completion": ""}"#,
                &["`completion` is empty"],
            ),
            (
                r#"{"prompt": "a", "completion": 3}"#,
                &["`completion` is 3, not a string"],
            ),
            (
                r#"{"prompt": "a", "completion": ["b"]}"#,
                &["a list of turns and the other is not"],
            ),
            (
                r#"{"prompt": [], "completion": []}"#,
                &["`prompt` has no message"],
            ),
            (
                r#"{"prompt": ["a"], "completion": ["b"]}"#,
                &["prompt[0] is \"a\""],
            ),
            (
                concat!(
                    r#"{"prompt": [{"role": "user", "content": "a"}], "#,
                    r#""completion": [{"role": "user", "content": "b"}]}"#
                ),
                &["no turn is learnt"],
            ),
            (
                r#"{"prompt": "a", "chosen": "b", "rejected": "c"}"#,
                &["no field `completion`"],
            ),
            (
                r#"{"prompt": "a", "completion": "b", "label": true}"#,
                &["`label` is not used"],
            ),
        ],
    },
    Shape {
        kind: DatasetKind::Completion,
        good: r#"{"text": "a"}"#,
        broken: &[
            (r#"{"text": ""}"#, &["`text` is empty"]),
            (r#"{"text": null}"#, &["`text` is null, not a string"]),
            (r#"{"text": ["a"]}"#, &["`text` is [\"a\"], not a string"]),
            (r#"{"content": "a"}"#, &["field: content"]),
            (r#"{"text": "a", "label": 1}"#, &["`label` is not used"]),
            (r#"{"text": "a\u0000"}"#, &["`text` has a NUL"]),
            (r#"{"text": "\ud800"}"#, &["not a JSON object"]),
            (r#"{"text": NaN}"#, &["not a JSON object"]),
            (r#"{'text': 'a'}"#, &["not a JSON object"]),
            (r#"{"messages": [1]}"#, &["type: chat_template"]),
        ],
    },
    Shape {
        kind: DatasetKind::InputOutput,
        good: r#"{"segments": [{"text": "a", "label": false}, {"text": "b", "label": true}]}"#,
        broken: &[
            (r#"{"segments": []}"#, &["no segment has `label` true"]),
            (r#"{"segments": null}"#, &["`segments` is null, not a list"]),
            (r#"{"segments": "a"}"#, &["`segments` is \"a\", not a list"]),
            (r#"{"segments": ["a"]}"#, &["segments[0] is \"a\""]),
            (
                r#"{"segments": [{"text": "a"}]}"#,
                &["`label` of segments[0] is missing"],
            ),
            (
                r#"{"segments": [{"label": true}]}"#,
                &["`text` of segments[0] is missing"],
            ),
            (
                r#"{"segments": [{"text": "a", "label": 1}]}"#,
                &["1, not true or false"],
            ),
            (
                r#"{"segments": [{"text": 1, "label": true}]}"#,
                &["1, not a string"],
            ),
            (
                r#"{"segments": [{"text": "a", "label": true, "x": 1}]}"#,
                &["field `x`"],
            ),
            (
                r#"{"segments": [{"text": "ab", "label": false}]}"#,
                &["nothing to learn"],
            ),
        ],
    },
    Shape {
        kind: DatasetKind::Tokens,
        good: r#"{"input_ids": [1, 2, 3]}"#,
        broken: &[
            (r#"{"input_ids": []}"#, &["no token to learn"]),
            (
                r#"{"input_ids": null}"#,
                &["`input_ids` is null, not a list"],
            ),
            (r#"{"input_ids": 1}"#, &["`input_ids` is 1, not a list"]),
            (
                r#"{"input_ids": "[1, 5], \"x\": 1"}"#,
                &["`input_ids` is \"[1, 5], ", "not a list"],
            ),
            (
                r#"{"input_ids": [1, "a"]}"#,
                &["`input_ids` has \"a\", not a whole number"],
            ),
            (r#"{"input_ids": [1, -2]}"#, &["-2, which is no token id"]),
            (
                r#"{"input_ids": [1, 300]}"#,
                &["id 300", "only 300 embeddings"],
            ),
            (
                r#"{"input_ids": [1, 2], "labels": [1]}"#,
                &["`labels` has 1 numbers"],
            ),
            (
                r#"{"input_ids": [1, 2], "labels": [1, 3]}"#,
                &["`labels` has 3 where `input_ids` has 2"],
            ),
            (
                r#"{"input_ids": [1, 2], "attention_mask": [1, 0]}"#,
                &["take the padding off"],
            ),
            (
                r#"{"input_ids": [1, 2], "labels": [-100, -100]}"#,
                &["no token to learn"],
            ),
        ],
    },
];

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
        let kind = shape.kind.name();
        fs::write(&path, shape.good).unwrap();
        let good = model.load(&source, 256);
        assert!(good.is_ok(), "{kind}: {good:?}");
        assert!(shape.broken.len() >= 10, "{kind}");
        for (row, parts) in shape.broken {
            // In the second of three rows.
            fs::write(&path, format!("{0}\n{row}\n{0}\n", shape.good)).unwrap();
            let error = model.load(&source, 256).expect_err(row);
            says(&error, &["rows.jsonl, line 2: "]);
            says(&error, parts);
        }
    }
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
