//! Request bodies that no handler has read.
//!
//! A request that is refused by its header leaves its body in the connection. A small body is read
//! and dropped, so that the next request on the connection can follow. With a larger one, the
//! response says that the connection closes, and more of the body is read while the response is
//! sent: a socket that is closed with unread bytes is reset, and the client might never see the
//! response.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderValue, Response, StatusCode, header};
use http_body_util::BodyExt;
use hyper::body::{Body as HttpBody, Bytes, Frame, Incoming, SizeHint};
use tokio::sync::oneshot;
use tokio::time::timeout;

/// Most bytes of a body that are dropped to keep the connection.
const KEPT_MAX: u64 = 256 << 10;

/// How long a response may wait for them.
const KEPT_TIME: Duration = Duration::from_secs(1);

/// Most bytes that are dropped while a response is sent that closes the connection.
const ENDED_MAX: u64 = 16 << 20;

/// How long that may take.
const ENDED_TIME: Duration = Duration::from_secs(2);

/// A body that is returned to its [`Lender`] when its reader drops it before its end.
pub(super) struct Lent {
    body: Option<Incoming>,
    back: Option<oneshot::Sender<Unread>>,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Untouched,
    Begun,
    /// It broke off, so no further request can follow on the connection.
    Broken,
    Over,
}

struct Unread {
    body: Incoming,
    state: State,
}

/// Gets a lent body back.
pub(super) struct Lender {
    back: oneshot::Receiver<Unread>,
    /// Whether the client waits for "100 Continue" before it sends the body.
    expects: bool,
}

/// Lends the body of a request.
pub(super) fn lend(request: hyper::Request<Incoming>) -> (hyper::Request<Lent>, Lender) {
    let (back, received) = oneshot::channel();
    let lender = Lender {
        back: received,
        expects: request.headers().contains_key(header::EXPECT),
    };
    let lent = request.map(|body| Lent {
        body: Some(body),
        back: Some(back),
        state: State::Untouched,
    });
    (lent, lender)
}

impl Lender {
    /// Drops what is left of the body, or has the connection close with `response`.
    pub async fn settle(mut self, mut response: Response<Body>) -> Response<Body> {
        // The reader still has the body, and reads it.
        let Ok(Unread { mut body, state }) = self.back.try_recv() else {
            return response;
        };
        // A client that waits for "100 Continue" gets the response instead, and need not send the
        // body.
        let is_awaited = self.expects && state == State::Untouched;
        let is_slow = response.status() == StatusCode::REQUEST_TIMEOUT;
        let has_rest = !is_awaited && !is_slow && state != State::Broken;
        if has_rest && body.size_hint().lower() <= KEPT_MAX {
            let taken = timeout(KEPT_TIME, discard(&mut body, KEPT_MAX)).await;
            if taken == Ok(true) {
                return response;
            }
        }
        let close = HeaderValue::from_static("close");
        response.headers_mut().insert(header::CONNECTION, close);
        if has_rest {
            tokio::spawn(async move {
                let taken = timeout(ENDED_TIME, discard(&mut body, ENDED_MAX));
                // The connection closes in any case.
                let _ = taken.await;
            });
        }
        response
    }
}

/// Reads and drops at most `most` bytes. Returns whether the body ended within them.
async fn discard(body: &mut Incoming, most: u64) -> bool {
    let mut bytes = 0;
    loop {
        match body.frame().await {
            None => return true,
            Some(Err(_)) => return false,
            Some(Ok(frame)) => bytes += frame.data_ref().map_or(0, |data| data.len() as u64),
        }
        if bytes > most {
            return false;
        }
    }
}

impl HttpBody for Lent {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let Some(body) = &mut self.body else {
            return Poll::Ready(None);
        };
        let frame = Pin::new(body).poll_frame(context);
        self.state = match &frame {
            Poll::Ready(None) => State::Over,
            Poll::Ready(Some(Err(_))) => State::Broken,
            Poll::Ready(Some(Ok(_))) | Poll::Pending => State::Begun,
        };
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        let hint = self.body.as_ref().map(HttpBody::size_hint);
        hint.unwrap_or_default()
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let (Some(body), Some(back)) = (self.body.take(), self.back.take()) else {
            return;
        };
        if self.state != State::Over && !body.is_end_stream() {
            let state = self.state;
            // The connection may be gone.
            let _ = back.send(Unread { body, state });
        }
    }
}
