//! A client that shows everything of a response.

use std::net::SocketAddr;

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, Request, StatusCode};
use http_body_util::BodyExt;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;

/// A response, read to its end.
#[derive(Debug)]
pub struct Reply {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub text: String,
}

impl Reply {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|_| panic!("no JSON: {}", self.text))
    }

    pub fn header(&self, name: &str) -> &str {
        let value = self.headers.get(name);
        value.and_then(|value| value.to_str().ok()).unwrap_or("")
    }

    /// The chunks of a stream, which has to end with `[DONE]`.
    pub fn chunks(&self) -> Vec<Value> {
        assert_eq!(
            self.header("content-type"),
            "text/event-stream; charset=utf-8"
        );
        let mut lines: Vec<&str> = Vec::new();
        for event in self.text.split_terminator("\n\n") {
            match event.strip_prefix("data: ") {
                Some(data) => lines.push(data),
                None => assert!(event.starts_with(": "), "{event:?}"),
            }
        }
        assert!(self.text.ends_with("\n\n"), "{:?}", self.text);
        assert_eq!(lines.pop(), Some("[DONE]"));
        let parse = |line: &str| serde_json::from_str(line).expect("every event is JSON");
        lines.into_iter().map(parse).collect()
    }

    /// Asserts an error object, and gives its message.
    pub fn refused(&self, status: u16, param: Option<&str>, code: Option<&str>) -> String {
        assert_eq!(self.status, status, "{}", self.text);
        let body = self.json();
        let error = &body["error"];
        assert_eq!(error["param"].as_str(), param, "{body}");
        assert_eq!(error["code"].as_str(), code, "{body}");
        assert!(error["type"].is_string(), "{body}");
        error["message"].as_str().expect("a message").to_string()
    }
}

/// Sends a request on a connection of its own.
pub async fn send(addr: SocketAddr, request: Request<Body>) -> Reply {
    let stream = TcpStream::connect(addr).await.expect("the gateway listens");
    let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.expect("HTTP");
    let connection = tokio::spawn(connection);
    let response = sender.send_request(request).await.expect("a response");
    let (parts, body) = response.into_parts();
    let bytes: Bytes = body.collect().await.expect("a whole body").to_bytes();
    drop(sender);
    // The server decides how the connection ends.
    let _ = connection.await;
    Reply {
        status: parts.status,
        headers: parts.headers,
        text: String::from_utf8(bytes.to_vec()).expect("UTF-8"),
    }
}

/// A GET, with a key where there is one.
pub async fn get(addr: SocketAddr, path: &str, key: Option<&str>) -> Reply {
    send(addr, request("GET", path, key, Body::empty())).await
}

/// A POST of JSON, with a key where there is one.
pub async fn post(addr: SocketAddr, path: &str, key: Option<&str>, body: &Value) -> Reply {
    post_bytes(addr, path, key, body.to_string().into_bytes()).await
}

/// A POST of any bytes with the content type of JSON.
pub async fn post_bytes(addr: SocketAddr, path: &str, key: Option<&str>, body: Vec<u8>) -> Reply {
    send(addr, request("POST", path, key, Body::from(body))).await
}

fn request(method: &str, path: &str, key: Option<&str>, body: Body) -> Request<Body> {
    let mut request = Request::builder()
        .method(method)
        .uri(path)
        .header("host", "localhost")
        .header("content-type", "application/json");
    if let Some(key) = key {
        request = request.header("authorization", format!("Bearer {key}"));
    }
    request.body(body).expect("a right request")
}
