//! The files beside `tokenizer.json`, as transformers 5 reads them.

use std::fs;
use std::path::Path;

use concord_text::{ChatTemplate, TextTokenizer};
use serde_json::{Map, Value, json};

use crate::fixtures::{byte_level, says, write_tokenizer};

fn write(folder: &Path, name: &str, value: &Value) {
    fs::write(folder.join(name), value.to_string()).unwrap();
}

fn rendered(folder: &Path) -> String {
    let template = ChatTemplate::open(folder).unwrap().unwrap();
    let chat = template
        .render(&json!([]), None, true, &Map::new())
        .unwrap();
    chat.text().to_string()
}

#[test]
fn special_tokens_map() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    write_tokenizer(folder);
    let names = ["<s>", "</s>", "<i>", "<x>"].map(|name| (name, true));
    write(folder, "tokenizer.json", &byte_level(&names, &[]));
    fs::write(
        folder.join("chat_template.jinja"),
        "{{ bos_token }}|{{ eos_token }}|{{ image_token }}",
    )
    .unwrap();
    let map = json!({"bos_token": {"content": "<s>", "lstrip": false}, "eos_token": "</s>",
                     "image_token": "<i>", "additional_special_tokens": ["<x>"]});
    write(folder, "special_tokens_map.json", &map);
    // It counts where the newer list is missing, over tokenizer_config.json.
    for config in [json!({}), json!({"bos_token": null, "eos_token": "<s>"})] {
        write(folder, "tokenizer_config.json", &config);
        assert_eq!(rendered(folder), "<s>|</s>|<i>", "{config}");
        let tokenizer = TextTokenizer::open(folder).unwrap();
        assert_eq!(tokenizer.eos_ids(), [257]);
        assert_eq!(
            (tokenizer.bos(), tokenizer.eos()),
            (Some("<s>"), Some("</s>"))
        );
    }
    fs::remove_file(folder.join("tokenizer_config.json")).unwrap();
    assert_eq!(TextTokenizer::open(folder).unwrap().eos_ids(), [257]);
    // With it, the older file is left alone.
    let listed = json!({"added_tokens_decoder": {"257": {"content": "</s>", "special": true}},
                        "bos_token": {"__type": "AddedToken", "content": "<s>"}});
    write(folder, "tokenizer_config.json", &listed);
    assert_eq!(rendered(folder), "<s>||");
    assert!(TextTokenizer::open(folder).unwrap().eos_ids().is_empty());
    fs::write(folder.join("special_tokens_map.json"), "[").unwrap();
    assert!(TextTokenizer::open(folder).is_ok());
    write(folder, "tokenizer_config.json", &json!({}));
    says(
        TextTokenizer::open(folder).unwrap_err(),
        &["special_tokens_map.json", "JSON"],
    );
}

#[test]
fn flags_of_added_tokens() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let file = byte_level(&[("<end>", false), ("<call>", true)], &[]);
    write(folder, "tokenizer.json", &file);
    let config = json!({"added_tokens_decoder": {
        "256": {"content": "<end>", "special": true, "normalized": false},
    }});
    write(folder, "tokenizer_config.json", &config);
    let tokenizer = TextTokenizer::open(folder).unwrap();
    assert!(tokenizer.is_special(256) && tokenizer.is_special(257));
    let ids = tokenizer.encode("a<end>", false).unwrap();
    assert_eq!(ids, [97, 256]);
    assert_eq!(tokenizer.decode(&ids, true).unwrap(), "a");
    // Special tokens are text where the folder says so.
    write(
        folder,
        "tokenizer_config.json",
        &json!({"split_special_tokens": true}),
    );
    let split = TextTokenizer::open(folder).unwrap();
    assert_eq!(
        split.encode("<call>", false).unwrap(),
        [60, 99, 97, 108, 108, 62]
    );
}

#[test]
fn what_would_change_a_text_is_refused_by_name() {
    let bpe = byte_level(&[], &[]).to_string();
    let open = |config: Value| {
        let config = config.to_string();
        TextTokenizer::from_bytes(bpe.as_bytes(), Some(config.as_bytes()))
    };
    let corrupts = "clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output";
    let refused = [
        ("fix_mistral_regex", json!({"fix_mistral_regex": true})),
        (
            "fast_tokenizer_files",
            json!({"fast_tokenizer_files": ["tokenizer.4.json"]}),
        ),
        (
            "auto_map",
            json!({"auto_map": {"AutoTokenizer": ["own.Tokenizer", null]}}),
        ),
        (
            "clean_up",
            json!({"clean_up_tokenization_spaces": true, corrupts: true}),
        ),
    ];
    for (key, config) in refused {
        says(open(config).unwrap_err(), &["tokenizer_config.json", key]);
    }
    // For this kind, and for calls, these change nothing.
    let harmless = json!({
        "clean_up_tokenization_spaces": true, "add_bos_token": true, "add_eos_token": true,
        "legacy": false, "model_max_length": 1e30, "padding_side": "left", "tokenizer_class": "X",
        "fast_tokenizer_files": ["tokenizer.json"], "fix_mistral_regex": false, "own": [1],
    });
    assert_eq!(open(harmless).unwrap().encode("a", true).unwrap(), [97]);
    let word_level = json!({
        "version": "1.0", "added_tokens": [], "normalizer": null, "pre_tokenizer": null,
        "post_processor": null, "decoder": null, "truncation": null, "padding": null,
        "model": {"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "a"},
    });
    let config = json!({"clean_up_tokenization_spaces": true}).to_string();
    let opened =
        TextTokenizer::from_bytes(word_level.to_string().as_bytes(), Some(config.as_bytes()));
    says(opened.unwrap_err(), &["clean_up_tokenization_spaces"]);
}

#[test]
fn templates_in_all_their_places() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let with_tools = || {
        let template = ChatTemplate::open(folder).unwrap().unwrap();
        let tools = json!([{}]);
        let chat = template.render(&json!([]), Some(&tools), true, &Map::new());
        chat.unwrap().text().to_string()
    };
    write(
        folder,
        "chat_template.json",
        &json!({"chat_template": "processor"}),
    );
    assert_eq!(rendered(folder), "processor");
    let map = json!({"chat_template": {"default": "map", "tool_use": "map tools"}});
    write(folder, "tokenizer_config.json", &map);
    assert_eq!(
        (rendered(folder), with_tools()),
        ("map".into(), "map tools".into())
    );
    let list = json!({"chat_template": [{"name": "tool_use", "template": "x"}]});
    write(folder, "tokenizer_config.json", &list);
    says(
        ChatTemplate::open(folder).unwrap_err(),
        &["default", "tool_use"],
    );
    write(
        folder,
        "tokenizer_config.json",
        &json!({"chat_template": [{"name": "default"}]}),
    );
    says(
        ChatTemplate::open(folder).unwrap_err(),
        &["tokenizer_config.json", "template"],
    );
    fs::write(folder.join("chat_template.jinja"), "own").unwrap();
    assert_eq!(
        (rendered(folder), with_tools()),
        ("own".into(), "own".into())
    );
    fs::create_dir(folder.join("additional_chat_templates")).unwrap();
    fs::write(
        folder.join("additional_chat_templates/tool_use.jinja"),
        "own tools",
    )
    .unwrap();
    fs::write(
        folder.join("additional_chat_templates/rag.jinja"),
        "{% nonsense",
    )
    .unwrap();
    assert_eq!(
        (rendered(folder), with_tools()),
        ("own".into(), "own tools".into())
    );
    fs::write(folder.join("chat_template.jinja"), "a\r\nb\r{{ 1 }}\r\n").unwrap();
    assert_eq!(rendered(folder), "a\nb\n1");
}

#[test]
fn messages_as_templates_get_them() {
    let source = "{% for m in messages %}{{ m.content is defined }} {{ m.reasoning_content }} \
                  {{ m.thinking }} {{ m.tool_calls[0].function.arguments.x }};{% endfor %}";
    let template = ChatTemplate::from_source(source).unwrap();
    let calls = json!([{"function": {"name": "f", "arguments": "{\"x\": 1}"}}]);
    let messages = json!([
        {"role": "assistant", "content": null, "reasoning": "r", "tool_calls": calls},
        {"role": "assistant", "content": "", "thinking": "t", "reasoning_content": null,
         "tool_calls": calls},
    ]);
    let chat = template.render(&messages, None, true, &Map::new()).unwrap();
    assert_eq!(chat.text(), "False r r 1;True t t 1;");
}
