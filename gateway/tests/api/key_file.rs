//! Files that change while the gateway runs.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use concord_gateway::{GatewayOptions, new_key};
use serde_json::json;
use tokio::net::TcpStream;
use tokio::time::sleep;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use crate::client::{get, post};
use crate::script::{End, Script};
use crate::stand::{Stand, chat_body, options};

/// Nothing that is waited for takes longer, unless something hangs.
const PATIENCE: Duration = Duration::from_secs(10);

/// Longer than a change needs to take effect.
const A_WHILE: Duration = Duration::from_millis(1_500);

async fn status(stand: &Stand, key: &str) -> u16 {
    get(stand.addr, "/v1/models", Some(key))
        .await
        .status
        .as_u16()
}

async fn until(stand: &Stand, key: &str, expected: u16) {
    let started = Instant::now();
    while status(stand, key).await != expected {
        assert!(started.elapsed() < PATIENCE, "never {expected}");
        sleep(Duration::from_millis(20)).await;
    }
}

async fn stand(path: &Path, script: Script) -> Stand {
    let options = GatewayOptions {
        keys: Some(path.to_path_buf()),
        ..options()
    };
    Stand::with(options, script, None).await
}

#[tokio::test]
async fn keys_come_and_go_without_a_new_start() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("keys");
    let (ann, ann_line) = new_key("ann").expect("random numbers");
    let (bob, bob_line) = new_key("bob").expect("random numbers");
    fs::write(&path, format!("{ann_line}\n{bob_line}\n")).expect("written");
    let stand = stand(&path, Script::cut("ab", End::Wait)).await;
    // A stream of a key that goes is ended, and says why.
    let (addr, key) = (stand.addr, ann.clone());
    let streaming = tokio::spawn(async move {
        let body = chat_body(json!({"stream": true}));
        post(addr, "/v1/chat/completions", Some(&key), &body).await
    });
    while stand.engine.asked.lock().expect("no panic").is_empty() {
        sleep(Duration::from_millis(5)).await;
    }
    fs::write(&path, format!("{bob_line}\n")).expect("written");
    until(&stand, &ann, 401).await;
    assert_eq!(status(&stand, &bob).await, 200);
    let chunks = streaming.await.expect("a stream").chunks();
    let last = chunks.last().expect("a chunk");
    assert_eq!(last["error"]["code"], "invalid_api_key", "{last}");
    stand.engine.cancelled(1).await;
    // A new file in the place of the old one, as editors write.
    let new = folder.path().join("keys.new");
    let (eve, eve_line) = new_key("eve").expect("random numbers");
    fs::write(&new, format!("{ann_line}\n{eve_line} admin\n")).expect("written");
    fs::rename(&new, &path).expect("renamed");
    until(&stand, &eve, 200).await;
    assert_eq!(
        (status(&stand, &ann).await, status(&stand, &bob).await),
        (200, 401)
    );
}

#[tokio::test]
async fn a_broken_file_changes_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("keys");
    let (ann, line) = new_key("ann").expect("random numbers");
    fs::write(&path, format!("{line}\n")).expect("written");
    let stand = stand(&path, Script::text("x")).await;
    for broken in ["", "# nobody\n", "ann\n", "ann 12 admin\n", "\u{0}"] {
        fs::write(&path, broken).expect("written");
        sleep(A_WHILE / 2).await;
        assert_eq!(status(&stand, &ann).await, 200, "{broken:?}");
        assert_eq!(status(&stand, "ck-wrong").await, 401, "{broken:?}");
    }
    fs::remove_file(&path).expect("removed");
    sleep(A_WHILE / 2).await;
    assert_eq!(status(&stand, &ann).await, 200);
    let (bob, line) = new_key("bob").expect("random numbers");
    fs::write(&path, format!("{line}\n")).expect("written");
    until(&stand, &bob, 200).await;
    assert_eq!(status(&stand, &ann).await, 401);
}

/// Changed limits take effect at once, and the usage is kept.
#[tokio::test]
async fn new_bounds_of_a_key_keep_what_it_used() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("keys");
    let (ann, line) = new_key("ann").expect("random numbers");
    let (bob, bob_line) = new_key("bob").expect("random numbers");
    let write = |bound: &str| {
        fs::write(&path, format!("{line}{bound}\n{bob_line}\n")).expect("written");
    };
    let gone = || fs::write(&path, format!("{bob_line}\n")).expect("written");
    write(" tokens_per_day=20");
    let stand = stand(&path, Script::cut("x", End::Finish)).await;
    // Five tokens of a prompt, and one of an answer.
    let body = json!({"prompt": "Once", "max_tokens": 1});
    let ask = || post(stand.addr, "/v1/completions", Some(&ann), &body);
    assert_eq!(ask().await.status, 200);
    write(" tokens_per_day=7");
    let started = Instant::now();
    // Six are used, and no request fits into one.
    while ask().await.status != 429 {
        assert!(started.elapsed() < PATIENCE, "never");
        write(" tokens_per_day=7");
        sleep(A_WHILE).await;
    }
    // A key that goes and comes back has used what it has used.
    gone();
    until(&stand, &ann, 401).await;
    write(" tokens_per_day=7");
    until(&stand, &ann, 200).await;
    assert_eq!(ask().await.status, 429);
    assert_eq!(status(&stand, &bob).await, 200);
}

/// Whether a server that shows this certificate is there.
async fn shows(stand: &Stand, certificate: &rcgen::CertifiedKey<rcgen::KeyPair>) -> bool {
    let mut roots = RootCertStore::empty();
    roots.add(certificate.cert.der().clone()).expect("a root");
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    let connector = TlsConnector::from(Arc::new(config));
    let stream = TcpStream::connect(stand.addr)
        .await
        .expect("the gateway listens");
    let name = "localhost".try_into().expect("a name");
    connector.connect(name, stream).await.is_ok()
}

#[tokio::test]
async fn certificates_are_renewed_without_a_new_start() {
    let folder = tempfile::tempdir().expect("a folder");
    let make = || {
        let names = vec!["localhost".to_string()];
        rcgen::generate_simple_self_signed(names).expect("a certificate")
    };
    let (chain, key) = (
        folder.path().join("cert.pem"),
        folder.path().join("key.pem"),
    );
    let write_chain = |made: &rcgen::CertifiedKey<rcgen::KeyPair>| {
        fs::write(&chain, made.cert.pem()).expect("written");
    };
    let write_key = |made: &rcgen::CertifiedKey<rcgen::KeyPair>| {
        fs::write(&key, made.signing_key.serialize_pem()).expect("written");
    };
    let (old, new) = (make(), make());
    write_chain(&old);
    write_key(&old);
    let options = GatewayOptions {
        tls: Some((chain.clone(), key.clone())),
        ..options()
    };
    let stand = Stand::with(options, Script::text("x"), None).await;
    assert!(shows(&stand, &old).await && !shows(&stand, &new).await);
    // Half of a pair, and no certificate at all: the old one stays.
    write_chain(&new);
    sleep(A_WHILE).await;
    assert!(shows(&stand, &old).await);
    fs::write(&chain, "nothing").expect("written");
    sleep(A_WHILE).await;
    assert!(shows(&stand, &old).await);
    write_chain(&new);
    write_key(&new);
    let started = Instant::now();
    while !shows(&stand, &new).await {
        assert!(started.elapsed() < PATIENCE, "never the new one");
        sleep(Duration::from_millis(50)).await;
    }
    assert!(!shows(&stand, &old).await);
}
