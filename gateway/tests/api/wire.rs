//! HTTP at the level of bytes, for what a client library would hide.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Nothing takes longer, unless something hangs.
const PATIENCE: Duration = Duration::from_secs(20);

/// A response of known length.
#[derive(Debug)]
pub struct WireReply {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl WireReply {
    /// Whether the connection is said to end.
    pub fn closes(&self) -> bool {
        self.head
            .to_ascii_lowercase()
            .contains("\r\nconnection: close")
    }
}

/// A connection.
pub struct Wire(TcpStream);

impl Wire {
    pub async fn connect(addr: SocketAddr) -> Self {
        Self(TcpStream::connect(addr).await.expect("the gateway listens"))
    }

    /// Sends bytes; the other side may have had enough of them.
    pub async fn send(&mut self, bytes: &[u8]) {
        let _ = self.0.write_all(bytes).await;
    }

    /// The next response; nothing where the connection ends instead.
    pub async fn reply(&mut self) -> Option<WireReply> {
        let read = self.read();
        timeout(PATIENCE, read).await.expect("a response in time")
    }

    async fn read(&mut self) -> Option<WireReply> {
        let mut bytes = Vec::new();
        while !bytes.ends_with(b"\r\n\r\n") {
            bytes.push(self.0.read_u8().await.ok()?);
        }
        let head = String::from_utf8(bytes).expect("a head is ASCII");
        let lower = head.to_ascii_lowercase();
        let length = lower.split("content-length: ").nth(1);
        let length = length.and_then(|rest| rest.split("\r\n").next()?.parse().ok());
        let mut body = vec![0; length.unwrap_or(0)];
        self.0.read_exact(&mut body).await.ok()?;
        Some(WireReply {
            status: head.split(' ').nth(1)?.parse().ok()?,
            head,
            body: String::from_utf8_lossy(&body).into_owned(),
        })
    }

    /// Whether the other side ends the connection and says no more.
    pub async fn ends(&mut self) -> bool {
        let mut byte = [0];
        let read = timeout(PATIENCE, self.0.read(&mut byte)).await;
        // A reset is an end, too.
        matches!(read, Ok(Ok(0) | Err(_)))
    }
}
