//! The files beside `tokenizer.json`: with them, the tokens are those of transformers 5 for the
//! same files.

use std::fs;
use std::path::Path;

use concord_text::{TextError, TextTokenizer};
use serde_json::{Value, json};

use crate::fixtures::{byte_level, says, shared};

/// The files of a folder: tinystories-260k with changes.
fn folder(model: &Path, files: &[(&str, Value)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let name = "tokenizer.json";
    fs::copy(model.join(name), folder.path().join(name)).unwrap();
    let named = json!({"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"});
    for (name, value) in files {
        let mut value = value.clone();
        if *name == "tokenizer_config.json" {
            for (key, token) in named.as_object().unwrap() {
                let map = value.as_object_mut().unwrap();
                map.entry(key.clone()).or_insert(token.clone());
            }
        }
        fs::write(folder.path().join(name), value.to_string()).unwrap();
    }
    folder
}

fn open(model: &Path, files: &[(&str, Value)]) -> Result<TextTokenizer, TextError> {
    TextTokenizer::open(folder(model, files).path())
}

const CONFIG: &str = "tokenizer_config.json";

#[test]
fn classes_with_parts_of_their_own() {
    let Some(model) = shared("models/tinystories-260k") else {
        return;
    };
    let as_it_is = [1, 403, 2, 410, 291];
    let llama = [1, 403, 2, 291];
    let no_space = [1, 441, 416, 331, 2, 291];
    let class = |name: &str| json!({"tokenizer_class": name});
    let kind = |name: &str| json!({"model_type": name});
    let cases: [(Value, Value, &[u32]); 16] = [
        (json!({}), kind("llama"), &as_it_is),
        (class("PreTrainedTokenizerFast"), kind("llama"), &as_it_is),
        (class("TokenizersBackend"), kind("qwen3"), &as_it_is),
        (class("LlamaTokenizer"), kind("llama"), &llama),
        (class("LlamaTokenizerFast"), kind("llama"), &llama),
        (class("LlamaTokenizer"), kind("qwen3"), &llama),
        (class("LlamaTokenizer"), json!({}), &llama),
        (class("LlamaTokenizer"), kind("mistral"), &as_it_is),
        (class("LlamaTokenizer"), kind("phi3"), &as_it_is),
        (class("CodeLlamaTokenizer"), kind("llama"), &llama),
        (
            json!({}),
            json!({"model_type": "llama", "tokenizer_class": "LlamaTokenizer"}),
            &llama,
        ),
        (
            json!({"tokenizer_class": "LlamaTokenizer", "legacy": true}),
            kind("llama"),
            &llama,
        ),
        (
            json!({"tokenizer_class": "LlamaTokenizer", "legacy": null, "add_prefix_space": null}),
            kind("llama"),
            &llama,
        ),
        (
            json!({"tokenizer_class": "LlamaTokenizer", "add_prefix_space": false}),
            kind("llama"),
            &no_space,
        ),
        (
            json!({"tokenizer_class": "CodeLlamaTokenizer", "add_prefix_space": false}),
            kind("llama"),
            &no_space,
        ),
        // Not as transformers, whose class for this kind would lose the spaces of this vocabulary.
        (class("PreTrainedTokenizerFast"), kind("qwen2"), &as_it_is),
    ];
    for (config, kind, expected) in cases {
        let files = [(CONFIG, config), ("config.json", kind)];
        let tokenizer = open(&model, &files).unwrap();
        let ids = tokenizer.encode("Once</s> The", true).unwrap();
        assert_eq!(ids, expected, "{files:?}");
        // The spelling of a token is the file's.
        assert_eq!(tokenizer.token_bytes(410), b" ", "{files:?}");
        assert_eq!(tokenizer.decode(&ids, true).unwrap().trim(), {
            match ids.contains(&410) {
                true => "Once  The",
                false => "Once The",
            }
        });
    }
}

#[test]
fn byte_level_files_of_llama_and_qwen() {
    let dir = tempfile::tempdir().unwrap();
    let file = byte_level(&[("</s>", true)], &[("1", "2"), ("a", "1")]);
    fs::write(dir.path().join("tokenizer.json"), file.to_string()).unwrap();
    // The file cuts nowhere; the class of Qwen 2 cuts before each digit, and composes letters.
    let cases: [(Value, &str, &[u32]); 5] = [
        (
            json!({"tokenizer_class": "LlamaTokenizer"}),
            "llama",
            &[256],
        ),
        (json!({"tokenizer_class": "GPT3"}), "qwen3", &[256]),
        (
            json!({"tokenizer_class": "Qwen2TokenizerFast"}),
            "qwen3",
            &[49, 50],
        ),
        (json!({}), "qwen3", &[49, 50]),
        (json!({"tokenizer_class": "X"}), "qwen2", &[49, 50]),
    ];
    for (config, kind, expected) in cases {
        for (name, value) in [
            (CONFIG, &config),
            ("config.json", &json!({"model_type": kind})),
        ] {
            fs::write(dir.path().join(name), value.to_string()).unwrap();
        }
        let tokenizer = TextTokenizer::open(dir.path()).unwrap();
        assert_eq!(tokenizer.encode("12", false).unwrap(), expected, "{config}");
        let composed = if expected.len() == 2 { 2 } else { 3 };
        let ids = tokenizer.encode("e\u{301}", false).unwrap();
        assert_eq!(ids.len(), composed, "{config}");
        assert_eq!(tokenizer.encode("a </s>", false).unwrap(), [97, 32, 258]);
    }
}

/// The tokens of "ing there", with a file beside tokenizer.json that says so.
fn check_named(model: &Path, cases: &[(&str, Value, &[u32], bool)]) {
    for (name, value, expected, is_special) in cases {
        let mut files = vec![(CONFIG, json!({}))];
        files.retain(|(known, _)| known != name);
        files.push((name, value.clone()));
        let tokenizer = open(model, &files).unwrap();
        let ids = tokenizer.encode("ing there", true).unwrap();
        assert_eq!(ids, *expected, "{files:?}");
        assert_eq!(tokenizer.is_special(299), *is_special, "{files:?}");
    }
}

#[test]
fn named_tokens_are_special() {
    let Some(model) = shared("models/tinystories-260k") else {
        return;
    };
    let special = [1, 299, 410, 383];
    let cases: [(&str, Value, &[u32], bool); 7] = [
        (
            CONFIG,
            json!({"additional_special_tokens": ["ing"]}),
            &special,
            true,
        ),
        (
            CONFIG,
            json!({"extra_special_tokens": {"a": "ing"}}),
            &special,
            true,
        ),
        (
            CONFIG,
            json!({"extra_special_tokens": ["ing"]}),
            &special,
            true,
        ),
        (
            CONFIG,
            json!({"model_specific_special_tokens": {"a": "ing"}}),
            &special,
            true,
        ),
        (CONFIG, json!({"eos_token": "ing"}), &special, true),
        (CONFIG, json!({"pad_token": "ing"}), &special, true),
        (
            CONFIG,
            json!({"own_token": "ing", "more_token": 3, "pad_token": ""}),
            &special,
            true,
        ),
    ];
    check_named(&model, &cases);
}

#[test]
fn files_and_flags_of_named_tokens() {
    let Some(model) = shared("models/tinystories-260k") else {
        return;
    };
    let flags = |normalized: bool| {
        json!({"__type": "AddedToken", "content": "ing", "lstrip": false, "rstrip": false,
               "normalized": normalized, "single_word": false, "special": false})
    };
    let special = [1, 299, 410, 383];
    let cases: [(&str, Value, &[u32], bool); 4] = [
        (
            CONFIG,
            json!({"pad_token": flags(true)}),
            &[1, 299, 383],
            true,
        ),
        (
            "special_tokens_map.json",
            json!({"additional_special_tokens": ["ing"]}),
            &special,
            true,
        ),
        (
            "added_tokens.json",
            json!({"ing": 300}),
            &[1, 299, 383],
            false,
        ),
        (
            CONFIG,
            json!({"additional_special_tokens": []}),
            &[1, 410, 299, 383],
            false,
        ),
    ];
    check_named(&model, &cases);
}

/// What tokenizer.json has no id for.
#[test]
fn named_tokens_without_an_id_are_refused() {
    let Some(model) = shared("models/tinystories-260k") else {
        return;
    };
    let lacking = [
        (
            CONFIG,
            json!({"extra_special_tokens": ["<pad>"]}),
            "extra_special_tokens",
        ),
        (
            CONFIG,
            json!({"added_tokens_decoder": {"600": {"content": "<pad>"}}}),
            "added_tokens_decoder",
        ),
        (
            "added_tokens.json",
            json!({"<pad>": 600}),
            "added_tokens.json",
        ),
    ];
    for (name, value, key) in lacking {
        let error = open(&model, &[(name, value)]).unwrap_err();
        says(error, &[key, "<pad>", "save the tokenizer again"]);
    }
    // A role without a token changes nothing, and is noted.
    let tokenizer = open(&model, &[(CONFIG, json!({"pad_token": "<pad>"}))]).unwrap();
    assert_eq!(tokenizer.notes().len(), 1);
    assert!(tokenizer.notes()[0].contains("`pad_token` is <pad>"));
    let plain = open(&model, &[(CONFIG, json!({}))]).unwrap();
    let ids = |of: &TextTokenizer| of.encode("a <pad> b", true).unwrap();
    assert_eq!(ids(&tokenizer), ids(&plain));
    assert!(plain.notes().is_empty());
}

#[test]
fn byte_level_files_of_gpt2() {
    let dir = tempfile::tempdir().unwrap();
    let mut file = byte_level(&[("</s>", true)], &[("1", "2"), ("\u{120}", "\u{120}")]);
    let mut level = file["pre_tokenizer"].clone();
    level["use_regex"] = json!(true);
    let digits = json!({"type": "Digits", "individual_digits": true});
    file["pre_tokenizer"] = json!({"type": "Sequence", "pretokenizers": [digits, level]});
    fs::write(dir.path().join("tokenizer.json"), file.to_string()).unwrap();
    let class = |name: &str| json!({"tokenizer_class": name});
    let with_space = json!({"tokenizer_class": "GPT2Tokenizer", "add_prefix_space": true});
    let cases: [(Value, Value, &[u32]); 6] = [
        (
            class("GPT2Tokenizer"),
            json!({"model_type": "llama"}),
            &[97, 32, 32, 256],
        ),
        (
            class("GPT2Tokenizer"),
            json!({"model_type": "qwen3"}),
            &[97, 32, 32, 256],
        ),
        (class("GPT2TokenizerFast"), json!({}), &[97, 32, 32, 256]),
        (
            class("GPT2Tokenizer"),
            json!({"model_type": "mistral"}),
            &[97, 257, 49, 50],
        ),
        (
            class("TokenizersBackend"),
            json!({"model_type": "llama"}),
            &[97, 257, 49, 50],
        ),
        (
            with_space,
            json!({"model_type": "llama"}),
            &[32, 97, 32, 32, 256],
        ),
    ];
    for (config, kind, expected) in cases {
        for (name, value) in [(CONFIG, &config), ("config.json", &kind)] {
            fs::write(dir.path().join(name), value.to_string()).unwrap();
        }
        let tokenizer = TextTokenizer::open(dir.path()).unwrap();
        let ids = tokenizer.encode("a  12", false).unwrap();
        assert_eq!(ids, expected, "{config} {kind}");
    }
}
