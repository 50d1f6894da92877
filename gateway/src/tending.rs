//! The background work of the gateway: it reads changed files again, and writes the usage of keys.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::sleep;

use crate::error::GatewayError;
use crate::gateway::Gateway;
use crate::keys;
use crate::phase::{DrainPhase, reached};
use crate::server::Tls;
use crate::watched_files::WatchedFiles;

/// The time between two looks at the files. A change takes effect after two looks.
const LOOK: Duration = Duration::from_millis(250);

/// The number of looks between two writes of the usage file.
const LOOKS_A_WRITING: u32 = 4;

/// The background work.
pub(crate) struct Tending {
    pub gateway: Arc<Gateway>,
    pub tls: Option<Arc<Tls>>,
}

impl Tending {
    /// Runs until the gateway is stopped.
    pub async fn run(self, mut phase: watch::Receiver<DrainPhase>) {
        let path = self.gateway.options.keys.clone();
        let mut keys = path.map(|path| (WatchedFiles::new(vec![path.clone()]), path));
        let tls = self.tls.clone();
        let mut tls = tls.map(|tls| (WatchedFiles::new(tls.paths()), tls));
        let mut looks = 0;
        loop {
            tokio::select! {
                () = sleep(LOOK) => {}
                () = reached(&mut phase, DrainPhase::Stopped) => break,
            }
            if let Some((files, path)) = &mut keys
                && let Some(read) = files.look().await
            {
                told(read.and_then(|all| self.read_keys(path, &all)), "API keys");
            }
            if let Some((files, tls)) = &mut tls
                && let Some(read) = files.look().await
            {
                told(read.and_then(|all| read_tls(tls, &all)), "certificates");
            }
            looks += 1;
            if looks % LOOKS_A_WRITING == 0 {
                self.blocking(Gateway::write_usage).await;
            }
        }
        self.blocking(Gateway::close_usage).await;
        if let Some(log) = &self.gateway.access_log {
            log.flush().await;
        }
    }

    fn read_keys(&self, path: &Path, all: &[Vec<u8>]) -> Result<(), String> {
        let lines = keys::lines(path, all.first().map_or(&[], Vec::as_slice));
        let (came, went) = self.gateway.keys.replace(lines.map_err(words)?);
        if came + went > 0 {
            tracing::info!("{}: {came} keys came, {went} went", path.display());
        }
        Ok(())
    }

    /// Runs work that waits for the disk.
    async fn blocking(&self, work: fn(&Gateway)) {
        let gateway = self.gateway.clone();
        // A thread that panicked has reported that itself.
        let _ = tokio::task::spawn_blocking(move || work(&gateway)).await;
    }
}

fn read_tls(tls: &Tls, all: &[Vec<u8>]) -> Result<(), String> {
    let [chain, key] = all else {
        return Ok(());
    };
    tls.replace(chain, key).map_err(words)
}

fn words(error: GatewayError) -> String {
    error.to_string()
}

fn told(read: Result<(), String>, what: &str) {
    if let Err(reason) = read {
        tracing::error!("{reason}; the {what} of before stay in force");
    }
}
