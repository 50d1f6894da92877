//! Data sets of the hub, against a server of our own on this machine.

use std::collections::BTreeMap;
use std::fs;

use concord_models::hub::{ModelHub, is_data_name};

use crate::fixtures::says;
use crate::hub::Server;

fn files() -> BTreeMap<String, Vec<u8>> {
    let files: [(&str, &str); 4] = [
        ("README.md", "---\nconfigs: none\n---\n"),
        ("data/train-00000-of-00001.jsonl", "{\"text\": \"a\"}\n"),
        ("data/test-00000-of-00001.jsonl", "{\"text\": \"b\"}\n"),
        ("big.bin", "not needed"),
    ];
    files
        .map(|(name, text)| (name.to_string(), text.as_bytes().to_vec()))
        .into()
}

/// Chooses the files with `train` in their names, and sees the README.md.
fn train(files: &[&str], readme: Option<&str>) -> Result<Vec<String>, String> {
    assert!(readme.is_some_and(|text| text.contains("configs: none")));
    let chosen = files.iter().filter(|name| name.contains("train"));
    Ok(chosen.map(|name| name.to_string()).collect())
}

#[test]
fn chosen_files_alone_are_fetched_and_found_again() {
    let server = Server::start(files());
    let cache = tempfile::tempdir().unwrap();
    let hub = ModelHub {
        endpoint: Some(server.endpoint.clone()),
        cache: Some(cache.path().to_path_buf()),
        ..ModelHub::default()
    };
    let found = hub
        .data_files("owner/tiny", "main", &train, &mut |_| ())
        .unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!(
        fs::read_to_string(&found[0]).unwrap(),
        "{\"text\": \"a\"}\n"
    );
    let asked = server.requests();
    assert!(
        asked[0].starts_with("/api/datasets/owner/tiny/"),
        "{asked:?}"
    );
    assert!(
        !asked
            .iter()
            .any(|path| path.contains("big.bin") || path.contains("test-"))
    );
    // The layout is that of huggingface_hub, so the two share files.
    assert!(
        cache
            .path()
            .join("datasets--owner--tiny/snapshots")
            .is_dir()
    );

    let offline = ModelHub {
        offline: true,
        ..hub.clone()
    };
    let again = offline.data_files("owner/tiny", "main", &train, &mut |_| ());
    assert_eq!(again.unwrap(), found);
    let nobody = ModelHub {
        endpoint: Some("http://127.0.0.1:1".to_string()),
        ..hub.clone()
    };
    let again = nobody.data_files("owner/tiny", "main", &train, &mut |_| ());
    assert_eq!(again.unwrap(), found);
    // What was not fetched is missed, not passed over.
    let all = |files: &[&str], _: Option<&str>| Ok(files.iter().map(|f| f.to_string()).collect());
    let error = offline.data_files("owner/tiny", "main", &all, &mut |_| ());
    says(
        error.unwrap_err(),
        &["owner/tiny", "is missing", "HF_HUB_OFFLINE"],
    );
    let none = |_: &[&str], _: Option<&str>| Err("it has no split `dev`".to_string());
    let error = hub.data_files("owner/tiny", "main", &none, &mut |_| ());
    says(error.unwrap_err(), &["owner/tiny", "it has no split `dev`"]);
}

#[test]
fn names_of_data_sets() {
    assert!(is_data_name("tatsu-lab/alpaca"));
    for name in ["a.jsonl", "a/b/c.jsonl", "./a", "a/b@main", "/a/b", "a/"] {
        assert!(!is_data_name(name), "{name}");
    }
}
