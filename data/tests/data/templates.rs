//! Templates that tools have by name: what they write, and what of it is learnt.

use concord_recipe::{Request, TEMPLATE_NAMES, TurnTemplate, named_template, resolve};
use concord_text::{ChatTemplate, RenderedChat};
use serde_json::{Map, Value, json};

/// What a template makes of turns; an error as text.
fn rendered(template: &str, turns: &[(&str, &str)], asks: bool) -> Result<RenderedChat, String> {
    let messages: Vec<Value> = turns
        .iter()
        .map(|(role, content)| json!({ "role": role, "content": content }))
        .collect();
    let tokens = [("bos_token", json!("<s>")), ("eos_token", json!("</s>"))];
    let tokens: Map<String, Value> = tokens
        .map(|(key, token)| (key.to_string(), token))
        .into_iter()
        .collect();
    let template = ChatTemplate::from_source(template).map_err(|error| error.to_string())?;
    let chat = template.render(&Value::Array(messages), None, asks, &tokens);
    chat.map_err(|error| error.to_string())
}

fn named(name: &str, turns: &[(&str, &str)]) -> String {
    let template = named_template(name).expect(name);
    let chat = rendered(&template, turns, false);
    chat.map_or_else(|why| format!("! {why}"), |chat| chat.text().to_string())
}

/// The template of a LLaMA-Factory file.
fn of_factory(keys: &str) -> String {
    let text = format!(
        "model_name_or_path: m\nstage: sft\ndataset: a\ndataset_dir: d\noutput_dir: o\n{keys}\n"
    );
    let files = |_: &str| Ok(r#"{"a": {"file_name": "a.json"}}"#.to_string());
    let request = Request {
        files: &files,
        ..Request::default()
    };
    let job = resolve(&text, &request).unwrap();
    assert!(job.problems.is_empty(), "{:?}", job.problems);
    match &job.datasets[0].template {
        TurnTemplate::Jinja(text) => text.clone(),
        other => panic!("{other:?}"),
    }
}

/// The text, with what is learnt between \u{ab} and \u{bb}.
fn learnt(keys: &str, turns: &[(&str, &str)]) -> String {
    let chat = match rendered(&of_factory(keys), turns, false) {
        Ok(chat) => chat,
        Err(why) => return format!("! {why}"),
    };
    let mut text = chat.text().to_string();
    for mark in chat.generated().iter().rev() {
        text.insert(mark.end, '\u{bb}');
        text.insert(mark.start, '\u{ab}');
    }
    text
}

const TURNS: [(&str, &str); 5] = [
    ("system", "Be brief."),
    ("user", "Hi"),
    ("assistant", " Yes? "),
    ("user", "2+2"),
    ("assistant", "4"),
];

#[test]
fn axolotls_templates_write_what_they_write_there() {
    for (name, expected) in [
        (
            "chatml",
            "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n\
             <|im_start|>assistant\n Yes? <|im_end|>\n<|im_start|>user\n2+2<|im_end|>\n\
             <|im_start|>assistant\n4<|im_end|>\n",
        ),
        (
            "llama3",
            "<s><|start_header_id|>system<|end_header_id|>\n\nBe brief.<|eot_id|>\
             <|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>\
             <|start_header_id|>assistant<|end_header_id|>\n\nYes?<|eot_id|>\
             <|start_header_id|>user<|end_header_id|>\n\n2+2<|eot_id|>\
             <|start_header_id|>assistant<|end_header_id|>\n\n4<|eot_id|>",
        ),
        (
            "gemma3",
            "<s><start_of_turn>user\nBe brief.\n\nHi<end_of_turn>\n\
             <start_of_turn>model\nYes?<end_of_turn>\n<start_of_turn>user\n2+2<end_of_turn>\n\
             <start_of_turn>model\n4<end_of_turn>\n",
        ),
        (
            "phi_35",
            "<|system|>\nBe brief.<|end|>\n<|user|>\nHi<|end|>\n<|assistant|>\n Yes? <|end|>\n\
             <|user|>\n2+2<|end|>\n<|assistant|>\n4<|end|>\n",
        ),
        (
            "mistral_v7_tekken",
            "<s>[SYSTEM_PROMPT]Be brief.[/SYSTEM_PROMPT][INST]Hi[/INST] Yes? </s>[INST]2+2[/INST]\
             4</s>",
        ),
    ] {
        assert_eq!(named(name, &TURNS), expected, "{name}");
    }
    let bare = &TURNS[1..];
    for (name, expected) in [
        (
            "mistral_v1",
            "<s> [INST] Hi [/INST]  Yes? </s> [INST] 2+2 [/INST] 4</s>",
        ),
        (
            "mistral_v2v3",
            "<s>[INST] Hi[/INST]  Yes? </s>[INST] 2+2[/INST] 4</s>",
        ),
        (
            "mistral_v3_tekken",
            "<s>[INST]Hi[/INST] Yes? </s>[INST]2+2[/INST]4</s>",
        ),
    ] {
        assert_eq!(named(name, bare), expected, "{name}");
        assert!(named(name, &TURNS).starts_with("! "), "{name}");
    }
    let qwen = named("qwen_25", bare);
    assert!(qwen.starts_with("<|im_start|>system\nYou are Qwen, created by Alibaba Cloud."));
    assert!(named("gemma", &TURNS).contains("no turns of system"));
    assert!(named("phi_4", bare).contains("give each one"));
    // Two turns of the user.
    assert!(named("gemma", &[TURNS[1], TURNS[3]]).contains("must alternate"));
}

#[test]
fn every_name_is_a_template_that_asks_for_an_answer() {
    for name in TEMPLATE_NAMES {
        let template = named_template(name).unwrap();
        let turns = match name.starts_with("gemma") || name.starts_with("mistral_v") {
            true if !name.contains("v7") => &TURNS[1..2],
            _ => &TURNS[..2],
        };
        let whole = rendered(&template, turns, true).expect(name);
        let before = rendered(&template, turns, false).unwrap();
        assert!(whole.text().starts_with(before.text()), "{name}");
        let reads = ChatTemplate::from_source(&template).unwrap();
        assert!(reads.reads_message_field("content", false), "{name}");
        assert!(!reads.reads_variable("tools", true), "{name}");
    }
}

#[test]
fn qwen3_keeps_the_thoughts_behind_the_last_question() {
    let turns = [
        ("user", "a"),
        ("assistant", "<think>\nhm\n</think>\n\nb"),
        ("user", "c"),
        ("assistant", "<think>\nso\n</think>\n\nd"),
    ];
    assert_eq!(
        named("qwen3", &turns),
        "<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\nb<|im_end|>\n\
         <|im_start|>user\nc<|im_end|>\n\
         <|im_start|>assistant\n<think>\nso\n</think>\n\nd<|im_end|>\n"
    );
    let plain = [("user", "a"), ("assistant", "b")];
    assert!(named("qwen3", &plain).ends_with("assistant\n<think>\n\n</think>\n\nb<|im_end|>\n"));
}

#[test]
fn llama_factory_learns_answers_with_what_stands_behind_them() {
    for (keys, expected) in [
        (
            "template: llama3",
            "<s><|start_header_id|>system<|end_header_id|>\n\nBe brief.<|eot_id|>\
             <|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>\
             <|start_header_id|>assistant<|end_header_id|>\n\n\u{ab} Yes? <|eot_id|>\u{bb}\
             <|start_header_id|>user<|end_header_id|>\n\n2+2<|eot_id|>\
             <|start_header_id|>assistant<|end_header_id|>\n\n\u{ab}4<|eot_id|>\u{bb}",
        ),
        (
            "template: qwen3_nothink",
            "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n\
             <|im_start|>assistant\n\u{ab} Yes? <|im_end|>\n\u{bb}<|im_start|>user\n2+2<|im_end|>\n\
             <|im_start|>assistant\n\u{ab}4<|im_end|>\n\u{bb}",
        ),
        (
            "template: mistral",
            "<s>[INST] Be brief.\n\nHi[/INST]\u{ab}  Yes? </s>\u{bb}[INST] 2+2[/INST]\
             \u{ab} 4</s>\u{bb}",
        ),
        (
            "template: llama2",
            "<s>[INST] <<SYS>>\nBe brief.\n<</SYS>>\n\nHi [/INST]\u{ab} Yes? </s>\u{bb}\
             <s>[INST] 2+2 [/INST]\u{ab}4</s>\u{bb}",
        ),
    ] {
        assert_eq!(learnt(keys, &TURNS), expected, "{keys}");
    }
    let one = &TURNS[3..];
    assert_eq!(
        learnt("template: gemma2\ndefault_system: It's so.", one),
        "<s><start_of_turn>user\nIt's so.\n\n2+2<end_of_turn>\n<start_of_turn>model\n\
         \u{ab}4<end_of_turn>\n</s>\u{bb}"
    );
    assert!(learnt("template: gemma2", &TURNS).contains("give each row one answer"));
    assert!(learnt("template: zephyr", one).starts_with("<|system|>\nYou are Zephyr, a helpful"));
    assert!(learnt("template: qwen", &[one[1]]).contains("must alternate"));
}

#[test]
fn llama_factorys_thoughts() {
    let turns = [
        ("user", "a"),
        ("assistant", "<think>\nhm\n</think>\n\nb"),
        ("user", "c"),
        ("assistant", "d"),
    ];
    let user = |text: &str| format!("<|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant\n");
    assert_eq!(
        learnt("template: qwen3", &turns),
        format!(
            "{}\u{ab}<think>\nhm\n</think>\n\nb<|im_end|>\n\u{bb}{}\
             \u{ab}<think>\n\n</think>\n\nd<|im_end|>\n\u{bb}",
            user("a"),
            user("c")
        )
    );
    assert_eq!(
        learnt("template: qwen3\nenable_thinking: false", &turns),
        format!(
            "{}<think>\n\n</think>\n\n\u{ab}b<|im_end|>\n\u{bb}{}\
             <think>\n\n</think>\n\n\u{ab}d<|im_end|>\n\u{bb}",
            user("a"),
            user("c")
        )
    );
}
