//! A pool that is full or not ready, TLS, CORS, and the end of the gateway.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::Request;
use concord_gateway::{GatewayOptions, Refused};
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use crate::client::send;
use crate::script::{End, Script};
use crate::stand::{POSITIONS, Stand, options};

#[tokio::test]
async fn refusals_of_the_engine_are_told_with_a_time_to_wait() {
    let refusing = |refused: Refused| Script {
        refuse: Some(refused),
        ..Script::text("x")
    };
    for stream in [false, true] {
        let stand = Stand::playing(refusing(Refused::Overloaded { waiting: 99 })).await;
        let reply = stand.chat(json!({"stream": stream})).await;
        let message = reply.refused(503, None, Some("overloaded"));
        assert!(message.contains("99"), "{message}");
        assert_eq!(reply.header("retry-after"), "5");
        let stand = Stand::playing(refusing(Refused::NotReady("it loads".to_string()))).await;
        let reply = stand.chat(json!({"stream": stream})).await;
        let message = reply.refused(503, None, Some("not_ready"));
        assert!(message.contains("it loads"), "{message}");
        assert_eq!(reply.header("retry-after"), "5");
        let refused = Refused::TooLong {
            prompt: 9,
            positions: POSITIONS,
        };
        let stand = Stand::playing(refusing(refused)).await;
        let reply = stand.chat(json!({"stream": stream})).await;
        reply.refused(400, Some("messages"), Some("context_length_exceeded"));
        let stand = Stand::playing(refusing(Refused::UnknownAdapter)).await;
        let reply = stand
            .chat(json!({"model": "tuned", "stream": stream}))
            .await;
        reply.refused(404, Some("model"), Some("model_not_found"));
        let stand = Stand::playing(refusing(Refused::Other("it broke".to_string()))).await;
        stand
            .chat(json!({"stream": stream}))
            .await
            .refused(500, None, None);
    }
}

#[tokio::test]
async fn tls_when_asked() {
    let folder = tempfile::tempdir().expect("a folder");
    let names = vec!["localhost".to_string()];
    let made = rcgen::generate_simple_self_signed(names).expect("a certificate");
    let (certificate, key) = (
        folder.path().join("cert.pem"),
        folder.path().join("key.pem"),
    );
    fs::write(&certificate, made.cert.pem()).expect("written");
    fs::write(&key, made.signing_key.serialize_pem()).expect("written");
    let options = GatewayOptions {
        tls: Some((certificate, key)),
        ..options()
    };
    let stand = Stand::with(options, Script::text("x"), None).await;

    let mut roots = RootCertStore::empty();
    roots.add(made.cert.der().clone()).expect("a root");
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
    let stream = connector.connect(name, stream).await.expect("TLS");
    let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.expect("HTTP");
    tokio::spawn(connection);
    stand.make_ready();
    let request = Request::get("/health").header("host", "localhost");
    let request = request
        .body(Empty::<axum::body::Bytes>::new())
        .expect("a request");
    let response = sender.send_request(request).await.expect("a response");
    assert_eq!(response.status(), 200);
    response.into_body().collect().await.expect("a body");
}

#[tokio::test]
async fn wrong_certificates_are_told_at_the_start() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("none.pem");
    let options = GatewayOptions {
        tls: Some((path.clone(), path)),
        ..options()
    };
    let engine = Arc::new(crate::script::Scripted::new(Script::text("x")));
    let error = concord_gateway::start(crate::stand::served(None), engine, options).await;
    let error = error.err().expect("no certificate").to_string();
    assert!(error.contains("none.pem"), "{error}");
}

#[tokio::test]
async fn pages_of_an_origin_that_is_allowed() {
    let options = GatewayOptions {
        cors: Some("https://app.example".to_string()),
        ..options()
    };
    let stand = Stand::with(options, Script::text("x"), None).await;
    let preflight = Request::builder()
        .method("OPTIONS")
        .uri("/v1/chat/completions")
        .header("host", "localhost")
        .header("origin", "https://app.example")
        .body(Body::empty());
    let reply = send(stand.addr, preflight.expect("a request")).await;
    assert_eq!(reply.status, 204);
    assert_eq!(
        reply.header("access-control-allow-origin"),
        "https://app.example"
    );
    assert!(
        reply
            .header("access-control-allow-headers")
            .contains("authorization")
    );
    let reply = stand.chat(json!({})).await;
    assert_eq!(
        reply.header("access-control-allow-origin"),
        "https://app.example"
    );
    let stand = Stand::saying("x").await;
    let reply = stand.chat(json!({})).await;
    assert_eq!(reply.header("access-control-allow-origin"), "");
}

#[tokio::test]
async fn a_shutdown_lets_answers_end() {
    let mut script = Script::text("abcdef");
    script.pause = Duration::from_millis(50);
    let stand = Stand::playing(script).await;
    let addr = stand.addr;
    let body = crate::stand::chat_body(json!({"stream": true}));
    let answer = tokio::spawn(async move {
        crate::client::post(addr, "/v1/chat/completions", None, &body).await
    });
    while stand.engine.asked.lock().expect("no panic").is_empty() {
        tokio::task::yield_now().await;
    }
    stand.gateway.shutdown().await;
    let reply = answer.await.expect("an answer");
    assert!(reply.text.ends_with("data: [DONE]\n\n"), "{}", reply.text);
    assert!(TcpStream::connect(addr).await.is_err());
}

#[tokio::test]
async fn a_shutdown_waits_for_no_endless_answer() {
    let stand = Stand::playing(Script::cut("a", End::Wait)).await;
    let addr = stand.addr;
    let body = crate::stand::chat_body(json!({}));
    let answer = tokio::spawn(async move {
        let mut stream = TcpStream::connect(addr).await.expect("the gateway listens");
        let text = body.to_string();
        let head = format!(
            "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{text}",
            text.len()
        );
        tokio::io::AsyncWriteExt::write_all(&mut stream, head.as_bytes())
            .await
            .expect("sent");
        stream
    });
    let _stream = answer.await.expect("sent");
    while stand.engine.asked.lock().expect("no panic").is_empty() {
        tokio::task::yield_now().await;
    }
    let started = std::time::Instant::now();
    stand.gateway.shutdown().await;
    assert!(started.elapsed() < Duration::from_secs(10));
    stand.engine.cancelled(1).await;
}
