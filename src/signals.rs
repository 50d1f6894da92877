//! The signals that ask this program to end.

use anyhow::Context;

/// Waits for the first request to end: Ctrl-C, or SIGTERM, which is what `kill`, systemd and
/// containers send. Process 1, for which the kernel has no default for a signal, ends by them, too.
pub struct EndSignals {
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
    #[cfg(unix)]
    interrupt: tokio::signal::unix::Signal,
}

impl EndSignals {
    /// Installs the handlers: from here on neither signal kills the program by itself.
    ///
    /// # Errors
    /// Where the operating system refuses, which it does to nobody with free file descriptors.
    pub fn install() -> anyhow::Result<Self> {
        #[cfg(unix)]
        {
            use tokio::signal::unix::{SignalKind, signal};
            let of = |kind| signal(kind).context("cannot install the handler of a signal");
            Ok(Self {
                terminate: of(SignalKind::terminate())?,
                interrupt: of(SignalKind::interrupt())?,
            })
        }
        #[cfg(not(unix))]
        Ok(Self {})
    }

    /// Waits for the next one, and names it. Cancel safe.
    pub async fn next(&mut self) -> &'static str {
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
