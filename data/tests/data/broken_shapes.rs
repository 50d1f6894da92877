//! Rows of every shape, broken in ten ways or more, with what is said of each. The tests of the
//! command line take them, too.

use concord_data::DatasetKind;

/// A chat template whose turns end with a token of their own.
pub const CHATML: &str = "{% for m in messages %}\
    <|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}\
    {% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";

/// A kind, a row that is right, and rows that are not, with what is said of each.
pub struct Shape {
    pub kind: DatasetKind,
    pub good: &'static str,
    pub broken: &'static [(&'static str, &'static [&'static str])],
}

impl Shape {
    /// A length that the good row fills, where rows are joined, and that is enough elsewhere.
    pub fn sequence_len(&self) -> u32 {
        match self.kind {
            DatasetKind::Text => 16,
            _ => 256,
        }
    }
}

pub const SHAPES: [Shape; 10] = [
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
    Shape {
        kind: DatasetKind::Text,
        good: r#"{"text": "abcdefghijklmnopqrstuvwxyz"}"#,
        broken: &[
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
        ],
    },
];
