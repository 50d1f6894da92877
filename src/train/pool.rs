//! A pool on this machine for one job: a coordinator in this process, workers and checkers as
//! processes of their own, which end when this one does.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::Context;
use concord_coordinator::server::{self, Options, RunningServer};
use tokio::process::{Child, Command};

/// What a pool consists of.
#[derive(Clone, Debug)]
pub struct PoolOptions {
    /// Worker processes.
    pub workers: u32,
    /// Checker processes.
    pub checkers: u32,
    /// Threads of each worker.
    pub threads: usize,
    /// Where state is kept; nothing is kept without.
    pub dir: Option<PathBuf>,
}

/// A running pool.
pub struct Pool {
    server: Option<RunningServer>,
    children: Vec<Child>,
    // Removed when the pool is dropped, after its processes.
    _scratch: Option<tempfile::TempDir>,
}

impl Pool {
    /// Starts a pool.
    ///
    /// # Errors
    /// Where a process or the coordinator cannot be started.
    pub async fn start(options: &PoolOptions) -> anyhow::Result<Self> {
        let scratch = match options.dir {
            Some(_) => None,
            None => Some(tempfile::tempdir().context("cannot make a temporary folder")?),
        };
        let dir = match (&options.dir, &scratch) {
            (Some(dir), _) => dir.clone(),
            (None, Some(scratch)) => scratch.path().to_path_buf(),
            (None, None) => unreachable!("one of the two is there"),
        };
        let server = server::start(Options {
            listen: ([127, 0, 0, 1], 0).into(),
            data_dir: dir.join("coordinator"),
            config: concord_coordinator::core::Config::default(),
        });
        let server = server.await?;
        let url = server.url();
        let mut pool = Self {
            server: Some(server),
            children: Vec::new(),
            _scratch: scratch,
        };
        for index in 0..options.workers {
            let dir = dir.join(format!("worker-{index}"));
            let threads = options.threads.to_string();
            pool.children
                .push(member("worker", &url, &dir, &["--threads", &threads])?);
        }
        for index in 0..options.checkers {
            let dir = dir.join(format!("checker-{index}"));
            pool.children
                .push(member("checker", &url, &dir, &["--threads", "1"])?);
        }
        Ok(pool)
    }

    /// Where the coordinator listens.
    pub fn url(&self) -> String {
        self.server
            .as_ref()
            .map(RunningServer::url)
            .unwrap_or_default()
    }

    /// Ends all processes.
    ///
    /// # Errors
    /// Where the coordinator had ended with an error before.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        for child in &mut self.children {
            let _ = child.kill().await;
        }
        match self.server.take() {
            Some(server) => Ok(server.shutdown().await?),
            None => Ok(()),
        }
    }
}

/// This very program, also where its file was replaced by a newer build meanwhile.
///
/// # Errors
/// Where the operating system does not tell.
pub fn this_program() -> anyhow::Result<PathBuf> {
    let link = Path::new("/proc/self/exe");
    if link.exists() {
        return Ok(link.to_path_buf());
    }
    std::env::current_exe().context("cannot find this program")
}

/// Starts a worker or checker of this very program.
///
/// # Errors
/// Where the process cannot be started.
pub fn member(role: &str, url: &str, dir: &Path, more: &[&str]) -> anyhow::Result<Child> {
    Command::new(this_program()?)
        .args([role, "--until-stdin-closes", "--coordinator", url, "--dir"])
        .arg(dir)
        .args(more)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("cannot start a {role}"))
}
