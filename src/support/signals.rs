//! The signals by which this program is asked to end.

use std::time::{Duration, Instant};

use anyhow::Context;

/// Two signals within this time are one request to end.
const ECHO: Duration = Duration::from_millis(100);

/// Waits for requests to end: Ctrl-C, or SIGTERM, which `kill`, systemd and containers send. With
/// these handlers also process 1, which has no default action for signals, can be ended.
pub struct EndSignals {
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
    #[cfg(unix)]
    interrupt: tokio::signal::unix::Signal,
    /// When the last signal came.
    last: Option<Instant>,
}

impl EndSignals {
    /// Installs the handlers. From here on neither signal ends the program by itself.
    ///
    /// # Errors
    /// Where the operating system refuses, for example because there are no free file descriptors.
    pub fn install() -> anyhow::Result<Self> {
        #[cfg(unix)]
        {
            use tokio::signal::unix::{SignalKind, signal};
            let of = |kind| signal(kind).context("cannot install the handler of a signal");
            Ok(Self {
                terminate: of(SignalKind::terminate())?,
                interrupt: of(SignalKind::interrupt())?,
                last: None,
            })
        }
        #[cfg(not(unix))]
        Ok(Self { last: None })
    }

    /// Waits for the next signal, and returns its name. One that comes right after another is the
    /// same request: GNU `timeout`, for example, sends it to the program and then to its group.
    /// Cancel safe.
    pub async fn next(&mut self) -> &'static str {
        loop {
            let name = self.receive().await;
            let now = Instant::now();
            let is_echo = |last| now.duration_since(last) < ECHO;
            if !self.last.replace(now).is_some_and(is_echo) {
                return name;
            }
        }
    }

    async fn receive(&mut self) -> &'static str {
        #[cfg(unix)]
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "Ctrl-C",
        }
        #[cfg(not(unix))]
        {
            let _ = tokio::signal::ctrl_c().await;
            "Ctrl-C"
        }
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_request_that_comes_twice_is_one() {
        let mut signals = EndSignals::install().unwrap();
        let send = |name: &str| {
            let pid = std::process::id().to_string();
            let sent = std::process::Command::new("kill")
                .args([name, &pid])
                .status();
            assert!(sent.is_ok_and(|status| status.success()));
        };
        send("-TERM");
        assert_eq!(signals.next().await, "SIGTERM");
        signals.last = Some(Instant::now());
        send("-INT");
        let again = tokio::time::timeout(ECHO * 2, signals.next()).await;
        assert!(again.is_err(), "an echo is none");
        send("-INT");
        assert_eq!(signals.next().await, "Ctrl-C");
    }
}
