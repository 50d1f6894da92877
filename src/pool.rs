//! A pool on this machine for one job or one model: a coordinator in this process, workers and
//! checkers as processes of their own, which end when this one does.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::Context;
use concord_coordinator::core::Config;
use concord_coordinator::server::{self, Options, RunningServer};
use concord_proto::serving::ServedModel;
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
    /// Where the coordinator listens; port 0 takes a free one.
    pub listen: SocketAddr,
    /// How the coordinator behaves.
    pub config: Config,
    /// More options of each worker.
    pub worker_options: Vec<String>,
}

/// A running pool.
pub struct Pool {
    server: RunningServer,
    children: Vec<Child>,
    dir: PathBuf,
    // Removed when the pool is dropped, after its processes.
    _scratch: Option<tempfile::TempDir>,
}

impl Pool {
    /// Starts a coordinator and its members.
    ///
    /// # Errors
    /// Where a process or the coordinator cannot be started.
    pub async fn start(options: &PoolOptions) -> anyhow::Result<Self> {
        let mut pool = Self::coordinator(options, None).await?;
        pool.join(options)?;
        Ok(pool)
    }

    /// Starts a coordinator alone, which serves a model where one is given.
    ///
    /// # Errors
    /// Where its port or its folder is in use.
    pub async fn coordinator(
        options: &PoolOptions,
        serve: Option<ServedModel>,
    ) -> anyhow::Result<Self> {
        let (dir, scratch) = match &options.dir {
            Some(dir) => (dir.clone(), None),
            None => {
                let scratch = tempfile::tempdir().context("cannot make a temporary folder")?;
                (scratch.path().to_path_buf(), Some(scratch))
            }
        };
        let server = server::start(Options {
            listen: options.listen,
            data_dir: dir.join("coordinator"),
            config: options.config,
            serve,
        });
        Ok(Self {
            server: server.await?,
            children: Vec::new(),
            dir,
            _scratch: scratch,
        })
    }

    /// Starts the workers and checkers.
    ///
    /// # Errors
    /// Where a process cannot be started.
    pub fn join(&mut self, options: &PoolOptions) -> anyhow::Result<()> {
        let url = self.url();
        let threads = options.threads.to_string();
        let blobs = self.dir.join("coordinator").join("blobs");
        let blobs = format!("--blobs={}", blobs.display());
        let mut worker = vec!["--threads", &threads, &blobs];
        worker.extend(options.worker_options.iter().map(String::as_str));
        for index in 0..options.workers {
            let dir = self.dir.join(format!("worker-{index}"));
            self.children.push(member("worker", &url, &dir, &worker)?);
        }
        for index in 0..options.checkers {
            let dir = self.dir.join(format!("checker-{index}"));
            let one = ["--threads", "1", &blobs];
            self.children.push(member("checker", &url, &dir, &one)?);
        }
        Ok(())
    }

    /// The coordinator.
    pub fn server(&self) -> &RunningServer {
        &self.server
    }

    /// Where the coordinator listens.
    pub fn url(&self) -> String {
        self.server.url()
    }

    /// Ends all processes.
    ///
    /// # Errors
    /// Where the coordinator had ended with an error before.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        for child in &mut self.children {
            let _ = child.kill().await;
        }
        Ok(self.server.shutdown().await?)
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
