//! Token, address and cache of the hub: the variables that huggingface_hub documents.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use concord_models::hub::{HubToken, ModelHub};
use concord_models::weights::ModelFolder;

use crate::fixtures::{config_json, says, write_model};
use crate::hub::{Server, read_all};

const SECRET: &str = "hf_ThisIsNobodysToken";

fn hub(variables: &[(&str, &str)]) -> ModelHub {
    let all: BTreeMap<&str, &str> = variables.iter().copied().collect();
    ModelHub::from_variables(&|name| Some((*all.get(name)?).to_string())).unwrap()
}

fn token(text: &str) -> Option<HubToken> {
    HubToken::new("a test", text).unwrap()
}

#[test]
fn the_cache_is_where_huggingface_hub_has_it() {
    let table: [(&[(&str, &str)], &str); 9] = [
        (&[("HOME", "/h")], "/h/.cache/huggingface/hub"),
        (
            &[("HOME", "/h"), ("XDG_CACHE_HOME", "/x")],
            "/x/huggingface/hub",
        ),
        (&[("HOME", "/h"), ("HF_HOME", "/f")], "/f/hub"),
        (&[("HOME", "/h"), ("HF_HOME", "~/f")], "/h/f/hub"),
        (
            &[
                ("HOME", "/h"),
                ("HF_HOME", "$DISK/${NAME}-x"),
                ("DISK", "/d"),
                ("NAME", "n"),
            ],
            "/d/n-x/hub",
        ),
        (&[("HF_HOME", "$NOWHERE/f")], "$NOWHERE/f/hub"),
        (&[("HF_HOME", "/f"), ("HUGGINGFACE_HUB_CACHE", "/g")], "/g"),
        (
            &[("HF_HUB_CACHE", "/c"), ("HUGGINGFACE_HUB_CACHE", "/g")],
            "/c",
        ),
        (&[("HF_HUB_CACHE", " "), ("HF_HOME", "/f")], "/f/hub"),
    ];
    for (variables, path) in table {
        assert_eq!(
            hub(variables).cache,
            Some(PathBuf::from(path)),
            "{variables:?}"
        );
    }
    assert_eq!(hub(&[]).cache, None);
}

#[test]
fn the_token_is_that_of_the_environment_before_that_of_a_file() {
    let home = tempfile::tempdir().unwrap();
    let place = home.path().to_str().unwrap();
    let in_home = |more: &[(&str, &str)]| hub(&[&[("HF_HOME", place)], more].concat()).token;
    assert_eq!(in_home(&[]), None);
    fs::write(home.path().join("token"), "hf_file\n").unwrap();
    assert_eq!(in_home(&[]), token("hf_file"));
    fs::write(home.path().join("other"), "hf_other").unwrap();
    let other = home.path().join("other");
    assert_eq!(
        in_home(&[("HF_TOKEN_PATH", other.to_str().unwrap())]),
        token("hf_other")
    );
    let old = ("HUGGING_FACE_HUB_TOKEN", "hf_old");
    assert_eq!(in_home(&[old]), token("hf_old"));
    assert_eq!(
        in_home(&[old, ("HF_TOKEN", " hf_new\r\n")]),
        token("hf_new")
    );
    assert_eq!(in_home(&[("HF_TOKEN", "")]), token("hf_file"));
    let off = ("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1");
    assert_eq!(in_home(&[("HF_TOKEN", "hf_new"), off]), None);
    let bad = format!("{SECRET} {SECRET}");
    let error =
        ModelHub::from_variables(&|name| (name == "HF_TOKEN").then(|| bad.clone())).unwrap_err();
    says(&error, &["HF_TOKEN", "cannot be one"]);
    assert!(!error.contains(SECRET), "{error}");
}

#[test]
fn offline_and_the_server() {
    for (variables, offline) in [
        (
            [("HF_HUB_OFFLINE", "1"), ("TRANSFORMERS_OFFLINE", "0")],
            true,
        ),
        (
            [("HF_HUB_OFFLINE", "0"), ("TRANSFORMERS_OFFLINE", "1")],
            false,
        ),
        (
            [("HF_HUB_OFFLINE", ""), ("TRANSFORMERS_OFFLINE", "Yes")],
            true,
        ),
        (
            [("HF_HUB_OFFLINE", "on"), ("HF_ENDPOINT", "http://hub")],
            true,
        ),
        (
            [("HF_HUB_OFFLINE", "no"), ("HF_ENDPOINT", "http://hub")],
            false,
        ),
    ] {
        let hub = hub(&variables);
        assert_eq!(hub.offline, offline, "{variables:?}");
        let endpoint = (variables[1].0 == "HF_ENDPOINT").then(|| "http://hub".to_string());
        assert_eq!(hub.endpoint, endpoint);
    }
}

/// A server with one model, and the hub that asks it.
fn with_model(cache: &Path) -> (Server, ModelHub) {
    let made = tempfile::tempdir().unwrap();
    write_model(made.path(), &config_json());
    let mut files = read_all(made.path());
    for name in [
        "special_tokens_map.json",
        "added_tokens.json",
        "generation_config.json",
    ] {
        files.insert(name.to_string(), b"{}".to_vec());
    }
    files.insert(
        "chat_template.jinja".to_string(),
        b"{{ messages }}".to_vec(),
    );
    for name in [
        "chat_template.json",
        "additional_chat_templates/tool_use.jinja",
        // Nowhere outside of the folder of the model.
        "additional_chat_templates/../../out.jinja",
    ] {
        files.insert(name.to_string(), b"{}".to_vec());
    }
    let server = Server::start(files);
    let hub = ModelHub {
        endpoint: Some(format!("{}/", server.endpoint)),
        cache: Some(cache.to_path_buf()),
        token: token(SECRET),
        offline: false,
    };
    (server, hub)
}

#[test]
fn the_token_goes_with_every_request_and_is_shown_nowhere() {
    let cache = tempfile::tempdir().unwrap();
    let (server, hub) = with_model(cache.path());
    let folder = hub.resolve("owner/tiny", &mut |_| ()).unwrap();
    ModelFolder::open(&folder).unwrap();
    for name in [
        "special_tokens_map.json",
        "added_tokens.json",
        "generation_config.json",
        "chat_template.jinja",
        "chat_template.json",
        "additional_chat_templates/tool_use.jinja",
        "tokenizer.json",
        "tokenizer_config.json",
    ] {
        assert!(folder.join(name).is_file(), "{name}");
    }
    assert!(!folder.join("../out.jinja").exists());
    let (asked, shown) = (server.requests().len(), server.authorizations());
    assert_eq!(shown.len(), asked);
    assert!(
        shown
            .iter()
            .all(|header| header == &format!("Bearer {SECRET}"))
    );

    let stranger = ModelHub {
        token: None,
        ..hub.clone()
    };
    stranger.resolve("owner/tiny", &mut |_| ()).unwrap();
    assert!(server.authorizations().is_empty());

    for (asks, model, words) in [
        (
            &stranger,
            "owner/gated",
            ["401", "no token was sent", "HF_TOKEN", "conditions"],
        ),
        (
            &stranger,
            "owner/none",
            ["404", "no token was sent", "HF_TOKEN", "check the name"],
        ),
        (
            &hub,
            "owner/gated",
            ["401", "not accepted", "HF_TOKEN", "settings/tokens"],
        ),
        (
            &hub,
            "owner/closed",
            ["403", "may not read", "owner/closed", "conditions"],
        ),
        (
            &hub,
            "owner/none",
            ["404", "may not see it", "HF_TOKEN", "check the name"],
        ),
    ] {
        let error = asks.resolve(model, &mut |_| ()).unwrap_err();
        says(&error, &words);
        assert!(!error.to_string().contains(SECRET), "{error}");
    }
    assert!(!format!("{hub:?}").contains(SECRET));
}

#[test]
fn offline_no_server_is_asked() {
    let cache = tempfile::tempdir().unwrap();
    let (server, hub) = with_model(cache.path());
    let offline = ModelHub {
        offline: true,
        ..hub.clone()
    };
    let error = offline.resolve("owner/tiny", &mut |_| ()).unwrap_err();
    says(
        error,
        &[
            "owner/tiny",
            "HF_HUB_OFFLINE",
            cache.path().to_str().unwrap(),
        ],
    );
    assert!(server.requests().is_empty());
    let folder = hub.resolve("owner/tiny", &mut |_| ()).unwrap();
    server.requests();
    assert_eq!(offline.resolve("owner/tiny", &mut |_| ()).unwrap(), folder);
    // A commit by its hash, for which huggingface_hub keeps no record.
    let commit = folder.file_name().unwrap().to_str().unwrap();
    let refs = cache.path().join("models--owner--tiny/refs");
    fs::remove_dir_all(refs).unwrap();
    let named = format!("owner/tiny@{commit}");
    assert_eq!(offline.resolve(&named, &mut |_| ()).unwrap(), folder);
    assert!(server.requests().is_empty());
    // With the server again: nothing is fetched twice.
    assert_eq!(hub.resolve("owner/tiny", &mut |_| ()).unwrap(), folder);
    assert_eq!(server.requests().len(), 1);
}

#[test]
fn a_repository_of_another_format() {
    let files = BTreeMap::from([
        ("config.json".to_string(), b"{}".to_vec()),
        ("training_args.bin".to_string(), b"x".to_vec()),
    ]);
    let server = Server::start(files);
    let cache = tempfile::tempdir().unwrap();
    let hub = ModelHub {
        endpoint: Some(server.endpoint.clone()),
        cache: Some(cache.path().to_path_buf()),
        ..ModelHub::default()
    };
    let error = hub.resolve("owner/tiny", &mut |_| ()).unwrap_err();
    says(
        error,
        &[
            "neither model.safetensors nor",
            "training_args.bin",
            "save_pretrained",
        ],
    );
}

#[test]
fn pickles_are_fetched_where_there_are_no_safetensors() {
    let index = br#"{"weight_map": {"a": "pytorch_model-1.bin", "b": "pytorch_model-2.bin"}}"#;
    let file = |name: &str, bytes: &[u8]| (name.to_string(), bytes.to_vec());
    let files = BTreeMap::from([
        file("config.json", b"{}"),
        file("pytorch_model.bin.index.json", index),
        file("pytorch_model-1.bin", b"x"),
        file("pytorch_model-2.bin", b"yy"),
        file("training_args.bin", b"z"),
    ]);
    let server = Server::start(files);
    let cache = tempfile::tempdir().unwrap();
    let hub = ModelHub {
        endpoint: Some(server.endpoint.clone()),
        cache: Some(cache.path().to_path_buf()),
        ..ModelHub::default()
    };
    let folder = hub.resolve("owner/tiny", &mut |_| ()).unwrap();
    assert_eq!(fs::read(folder.join("pytorch_model-2.bin")).unwrap(), b"yy");
    assert!(!folder.join("training_args.bin").exists());
}
