//! Which tokens of a conversation are learnt: by hand, and against transformers.

use std::fs;
use std::path::Path;

use concord_data::{DataError, DatasetKind, DatasetSource, TrainedEnds};
use serde_json::{Value, json};

use crate::fixtures::{Model, says, taught};

const CHATML: &str = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n\
                      {% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";

/// As those of Qwen 3: what an assistant thought stays in the last turn alone, which has an empty
/// thought where it has none.
const THINKING: &str = "{% for m in messages %}<|im_start|>{{ m.role }}\n\
    {% if m.role == 'assistant' %}{% set said = m.content.split('</think>')[-1].lstrip('\n') %}\
    {% if loop.last %}<think>\n{{ m.reasoning_content }}\n</think>\n\n{% endif %}{{ said }}\
    {% else %}{{ m.content }}{% endif %}<|im_end|>\n{% endfor %}\
    {% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";

/// As that of QwQ: the prompt for an answer begins a thought that texts of answers may lack.
const BEGUN: &str = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n\
    {% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}";

/// As that of Mistral: the prompt for an answer is the end of the question.
const MISTRAL: &str = "<s>{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content }} \
    [/INST]{% else %} {{ m.content | trim }}</s>{% endif %}{% endfor %}";

const CALLS: &str = "{% for tool in tools or [] %}{{ tool.name }}\n{% endfor %}\
    {% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}\
    {% for c in m.tool_calls or [] %}<call>{\"name\": \"{{ c.function.name }}\", \"arguments\": \
    {{ c.function.arguments | tojson }}}</call>{% endfor %}<|im_end|>\n{% endfor %}\
    {% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";

fn turns(texts: &[&str]) -> Value {
    let roles = ["user", "assistant"].into_iter().cycle();
    let turns = texts.iter().zip(roles);
    turns
        .map(|(text, role)| json!({ "role": role, "content": text }))
        .collect()
}

/// What is taught by a conversation of these messages, each part that is learnt for itself.
fn learnt(
    template: &str,
    row: Value,
    change: impl Fn(&mut DatasetSource),
) -> Result<Vec<String>, DataError> {
    let mut model = Model::bytes().with_template(template);
    model.max_positions = 512;
    let row = match row.is_array() {
        true => json!({ "messages": row }),
        false => row,
    };
    let kind = match row.get("conversations") {
        Some(_) => DatasetKind::ShareGpt,
        None => DatasetKind::ChatTemplate,
    };
    taught(&model, kind, &[row], change)
}

#[test]
fn answers_and_their_ends_are_learnt() {
    let talk = turns(&["Hi?", "Hello", "And?", "Bye"]);
    let plain = |_: &mut DatasetSource| {};
    let cases = [
        (CHATML, vec!["Hello<|im_end|>", "Bye<|im_end|>"]),
        // An empty thought is what the model has to write first.
        (
            THINKING,
            vec!["Hello<|im_end|>", "<think>\n\n</think>\n\nBye<|im_end|>"],
        ),
        (BEGUN, vec!["Hello<|im_end|>", "Bye<|im_end|>"]),
        (MISTRAL, vec![" Hello</s>", " Bye</s>"]),
    ];
    for (template, expected) in cases {
        assert_eq!(
            learnt(template, talk.clone(), plain).unwrap(),
            expected,
            "{template}"
        );
    }
    // Answers that begin as the prompt for one ends are learnt behind it.
    let thought = turns(&["Hi?", "<think>\nhm</think>Hello"]);
    let parts = learnt(BEGUN, thought.clone(), plain).unwrap();
    assert_eq!(parts, ["<think>\nhm</think>Hello<|im_end|>"]);
    let parts = learnt(THINKING, thought, plain).unwrap();
    assert_eq!(parts, ["<think>\n\n</think>\n\nHello<|im_end|>"]);
    let reasoned = json!([{"role": "user", "content": "Hi?"},
        {"role": "assistant", "reasoning_content": "hm", "content": "Hello"}]);
    let parts = learnt(THINKING, reasoned, plain).unwrap();
    assert_eq!(parts, ["<think>\nhm\n</think>\n\nHello<|im_end|>"]);
}

#[test]
fn what_is_learnt_goes_by_role_turn_and_end() {
    let talk = json!([{"role": "system", "content": "S"}, {"role": "user", "content": "A"},
        {"role": "assistant", "content": "B", "train": false},
        {"role": "user", "content": "C"}, {"role": "assistant", "content": "D", "train": 1}]);
    let by = |change: &dyn Fn(&mut DatasetSource)| {
        let parts = learnt(CHATML, talk.clone(), |source| {
            source.ignore_fields = vec!["train".to_string()];
            change(source);
        });
        parts.unwrap()
    };
    let ends = |ends: TrainedEnds| by(&|source| source.train_on_eos = ends);
    let end = "<|im_end|>";
    assert_eq!(ends(TrainedEnds::Turn), ["B<|im_end|>", "D<|im_end|>"]);
    assert_eq!(
        ends(TrainedEnds::All),
        [end, end, "B<|im_end|>", end, "D<|im_end|>"]
    );
    assert_eq!(ends(TrainedEnds::Last), ["B", "D<|im_end|>"]);
    assert_eq!(ends(TrainedEnds::None), ["B", "D"]);
    let roles = |roles: &[&str]| {
        by(&|source| source.roles_to_train = roles.iter().map(|role| role.to_string()).collect())
    };
    assert_eq!(
        roles(&["user", "system"]),
        ["S<|im_end|>", "A<|im_end|>", "C<|im_end|>"]
    );
    assert_eq!(roles(&["gpt"]), ["B<|im_end|>", "D<|im_end|>"]);
    let flagged = by(&|source| {
        source.ignore_fields.clear();
        source.field_training = Some("train".to_string());
    });
    assert_eq!(flagged, ["D<|im_end|>"]);
    let all = by(&|source| source.train_on_inputs = true);
    assert_eq!(all.concat().matches(end).count(), 5);
    assert!(
        all.concat().starts_with("system\nS<|im_end|>"),
        "the first token is never learnt"
    );
}

#[test]
fn names_of_control_tokens_in_messages_stay_text() {
    let talk = turns(&["<|im_end|>", "a<|im_end|>b"]);
    let parts = learnt(CHATML, talk, |_| {}).unwrap();
    assert_eq!(parts, ["a<|im_end|>b<|im_end|>"]);
    let model = Model::bytes().with_template(CHATML);
    let ids = |text: &str| {
        let row = json!({ "messages": turns(&["a", text]) });
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.jsonl");
        fs::write(&path, row.to_string()).unwrap();
        let source = DatasetSource::new(path, DatasetKind::ChatTemplate);
        model.load(&source, 60).unwrap().tokens
    };
    let ends = |text: &str| ids(text).iter().filter(|id| **id == 259).count();
    assert_eq!((ends("b"), ends("<|im_end|>")), (2, 2));
}

#[test]
fn tools_their_calls_and_their_answers() {
    let row = json!({
        "conversations": [{"from": "human", "value": "t?"},
            {"from": "function_call", "value": "{\"name\": \"f\", \"arguments\": {\"a\": 1}}"},
            {"from": "observation", "value": "3"}, {"from": "gpt", "value": "Three"}],
        "tools": "[{\"name\": \"f\"}]", "system": "S",
    });
    let expected = [
        "<call>{\"name\": \"f\", \"arguments\": {\"a\": 1}}</call><|im_end|>",
        "Three<|im_end|>",
    ];
    assert_eq!(learnt(CALLS, row.clone(), |_| {}).unwrap(), expected);
    // A template that leaves them out is refused.
    let error = learnt(CHATML, row, |_| {}).unwrap_err();
    says(error, &["line 1", "never reads `tools`"]);
    let mut talk = turns(&["t?", ""]);
    talk[1]["tool_calls"] = json!([{"type": "function",
        "function": {"name": "f", "arguments": "{\"a\": 1}"}}]);
    assert_eq!(learnt(CALLS, talk.clone(), |_| {}).unwrap(), expected[..1]);
    let error = learnt(CHATML, talk, |_| {}).unwrap_err();
    says(error, &["messages[1]", "`tool_calls`", "never reads"]);
}

#[test]
fn parts_of_text_are_joined_and_images_refused() {
    let with = |parts: Value| {
        let asked = json!({"role": "user", "content": parts});
        json!([asked, {"role": "assistant", "content": "ok"}])
    };
    let parts = json!([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]);
    let whole = |row: Value| {
        learnt(CHATML, row, |source| source.train_on_inputs = true)
            .unwrap()
            .concat()
    };
    assert_eq!(whole(with(parts)), whole(with(json!("ab"))));
    let image = json!([{"type": "image_url", "image_url": {"url": "x"}}]);
    let error = learnt(CHATML, with(image), |_| {}).unwrap_err();
    says(
        error,
        &[
            "line 1",
            "messages[0]",
            "image_url",
            "only text is trained on",
        ],
    );
}

#[test]
fn a_template_that_hides_what_is_learnt_is_refused() {
    let talk = turns(&["A", "B"]);
    let cases = [
        // No end.
        (
            "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}",
            "no control token",
        ),
        // A marked end that is no token of this model.
        (
            "{% for m in messages %}{% if m.role == 'user' %}{{ m.content }}{% else %}\
             {% generation %}{{ m.content }}<|eot|>{% endgeneration %}{% endif %}{% endfor %}",
            "ends message 1 with \"<|eot|>\", which has no control token",
        ),
        // The answer in front of the question.
        (
            "{% for m in messages | reverse %}{{ m.content }}<|im_end|>{% endfor %}",
            "before the end of another one",
        ),
        // No answer.
        (
            "{% for m in messages %}{% if m.role == 'user' %}{{ m.content }}<|im_end|>{% endif %}\
             {% endfor %}",
            "leaves message 1 out",
        ),
        // Other words in front of an answer than those that ask for one.
        (
            "{% for m in messages %}[{{ m.content }}<|im_end|>{% endfor %}\
             {% if add_generation_prompt %}answer:{% endif %}",
            "other words in front of message 1",
        ),
        ("{{ raise_exception('no') }}", "no"),
    ];
    for (template, expected) in cases {
        let error = learnt(template, talk.clone(), |_| {}).unwrap_err();
        says(error, &["a.jsonl, line 1", expected]);
    }
    let plain = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}";
    let parts = learnt(plain, talk, |source| {
        source.train_on_eos = TrainedEnds::None
    });
    assert_eq!(parts.unwrap(), ["assistant: B"]);
}

#[test]
fn masks_are_those_of_transformers() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/masks");
    let read = |name: &str| fs::read_to_string(folder.join(name)).unwrap();
    let cases: Vec<Value> = serde_json::from_str(&read("masks.json")).unwrap();
    let mut model = Model::bytes();
    model.tokenizer = concord_text::TextTokenizer::open(&folder).unwrap();
    model.max_positions = 512;
    // The same words without marks: what is learnt is found, and is the same.
    for name in ["marked.jinja", "unmarked.jinja"] {
        model = model.with_template(&read(name));
        for case in &cases {
            let row = json!({ "messages": case["messages"], "tools": case["tools"] });
            let file = tempfile::tempdir().unwrap();
            let path = file.path().join("a.jsonl");
            fs::write(&path, row.to_string()).unwrap();
            let source = DatasetSource::new(path, DatasetKind::ChatTemplate);
            let loaded = model.load(&source, 300).unwrap();
            let list = |key: &str| -> Vec<u32> {
                let numbers = case[key].as_array().unwrap().iter();
                numbers
                    .map(|number| number.as_u64().unwrap() as u32)
                    .collect()
            };
            let (ids, mut mask) = (list("ids"), list("mask"));
            mask[0] = 0;
            assert_eq!(loaded.tokens, ids, "{row}");
            let own: Vec<u32> = loaded
                .loss_mask
                .iter()
                .map(|mask| u32::from(*mask))
                .collect();
            assert_eq!(own, mask, "{name}: {row}");
        }
    }
}
