//! Adapters that are loaded and unloaded while the model is served.

use std::fs;

use concord_gateway::{GatewayOptions, new_key};
use serde_json::json;

use crate::client::post;
use crate::script::Script;
use crate::stand::{Stand, adapter, options};

const LOAD: &str = "/v1/load_lora_adapter";
const UNLOAD: &str = "/v1/unload_lora_adapter";

async fn stand(folder: &tempfile::TempDir) -> Stand {
    let root = folder.path().join("adapters");
    for name in ["good", "bad"] {
        fs::create_dir_all(root.join(name)).expect("made");
    }
    fs::create_dir(folder.path().join("secret")).expect("made");
    let options = GatewayOptions {
        adapter_dir: Some(root),
        ..options()
    };
    Stand::with(options, Script::text("x"), None).await
}

#[tokio::test]
async fn they_are_loaded_served_and_unloaded() {
    let folder = tempfile::tempdir().expect("a folder");
    let stand = stand(&folder).await;
    let reply = stand
        .post(LOAD, &json!({"lora_name": "new", "lora_path": "good"}))
        .await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    assert_eq!(
        reply.text,
        "Success: LoRA adapter 'new' added successfully."
    );
    let models = stand.get("/v1/models").await.json();
    assert_eq!(models["data"][2]["id"], "new");
    stand.chat(json!({"model": "new"})).await;
    let loaded = stand.engine.only().spec.adapter.expect("an adapter");
    let path = stand.engine.loaded.lock().expect("no panic")[0].clone();
    assert!(
        path.is_absolute() && path.ends_with("adapters/good"),
        "{path:?}"
    );
    let reply = stand
        .post(UNLOAD, &json!({"lora_name": "new", "lora_int_id": 1}))
        .await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    assert_eq!(*stand.engine.unloaded.lock().expect("no panic"), [loaded]);
    let reply = stand.chat(json!({"model": "new"})).await;
    reply.refused(404, Some("model"), Some("model_not_found"));
    let reply = stand.post(UNLOAD, &json!({"lora_name": "new"})).await;
    reply.refused(404, Some("lora_name"), Some("model_not_found"));
}

#[tokio::test]
async fn one_adapter_under_two_names_stays_for_the_other() {
    let folder = tempfile::tempdir().expect("a folder");
    let stand = stand(&folder).await;
    for name in ["a", "b"] {
        let body = json!({"lora_name": name, "lora_path": "good"});
        assert_eq!(stand.post(LOAD, &body).await.status, 200);
    }
    stand.post(UNLOAD, &json!({"lora_name": "a"})).await;
    assert!(stand.engine.unloaded.lock().expect("no panic").is_empty());
    stand.post(UNLOAD, &json!({"lora_name": "b"})).await;
    assert_eq!(stand.engine.unloaded.lock().expect("no panic").len(), 1);
    // Adapters that were loaded at the start can be unloaded, too.
    stand.post(UNLOAD, &json!({"lora_name": "tuned"})).await;
    assert_eq!(
        stand.engine.unloaded.lock().expect("no panic")[1],
        adapter()
    );
}

#[tokio::test]
async fn only_folders_within_the_folder_of_adapters_are_read() {
    let folder = tempfile::tempdir().expect("a folder");
    let stand = stand(&folder).await;
    let outside = folder.path().join("secret");
    let outside = outside.to_str().expect("UTF-8");
    let link = folder.path().join("adapters/link");
    std::os::unix::fs::symlink(outside, link).expect("linked");
    for path in [
        "../secret",
        outside,
        "link",
        "none",
        "/etc",
        "good/../../secret",
        "\0",
    ] {
        let reply = stand
            .post(LOAD, &json!({"lora_name": "new", "lora_path": path}))
            .await;
        reply.refused(400, Some("lora_path"), None);
    }
    assert!(stand.engine.loaded.lock().expect("no panic").is_empty());
    let reply = stand
        .post(LOAD, &json!({"lora_name": "new", "lora_path": "bad"}))
        .await;
    let message = reply.refused(400, Some("lora_path"), None);
    assert!(message.contains("no adapter_config.json"), "{message}");
}

#[tokio::test]
async fn names_are_unique_and_plain() {
    let folder = tempfile::tempdir().expect("a folder");
    let stand = stand(&folder).await;
    for name in ["tuned", "tiny/model", "", "a b", "a\nb"] {
        let reply = stand
            .post(LOAD, &json!({"lora_name": name, "lora_path": "good"}))
            .await;
        reply.refused(400, Some("lora_name"), None);
    }
}

#[tokio::test]
async fn keys_without_admin_load_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let (ann, line) = new_key("ann").expect("random numbers");
    let (host, host_line) = new_key("host").expect("random numbers");
    let keys = folder.path().join("keys");
    fs::write(&keys, format!("{line}\n{host_line} admin\n")).expect("written");
    fs::create_dir(folder.path().join("good")).expect("made");
    let options = GatewayOptions {
        keys: Some(keys),
        adapter_dir: Some(folder.path().to_path_buf()),
        ..options()
    };
    let stand = Stand::with(options, Script::text("x"), None).await;
    let body = json!({"lora_name": "new", "lora_path": "good"});
    let reply = post(stand.addr, LOAD, Some(&ann), &body).await;
    reply.refused(403, None, Some("insufficient_permissions"));
    assert_eq!(post(stand.addr, LOAD, Some(&host), &body).await.status, 200);
}

#[tokio::test]
async fn without_a_folder_none_are_loaded() {
    let stand = Stand::saying("x").await;
    let reply = stand
        .post(LOAD, &json!({"lora_name": "new", "lora_path": "/tmp"}))
        .await;
    reply.refused(400, None, Some("not_enabled"));
}
