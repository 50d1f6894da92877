//! A pool on this machine for one job or one model: a coordinator in this process, and workers and
//! checkers in processes of their own. These end with this process, and are started again if they
//! end earlier.

mod crew;
mod member;
mod own_auditor;
mod restarts;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::anyhow;
use concord_coordinator::core::Config;
use concord_coordinator::server::access::PoolAccess;
use concord_coordinator::server::{self, RunningServer, ServerOptions};
use concord_proto::serving::ServedModel;
use concord_proto::session::Role;

use crate::support::client_key;
use crate::support::referee::RefereeChoice;
use crate::support::scratch::{self, Scratch};
use crew::Crew;
pub use crew::Troubles;
use member::Start;
pub use member::{command, role_name, this_program};
pub use own_auditor::OwnAuditor;

/// What a pool consists of.
#[derive(Clone, Debug)]
pub struct PoolOptions {
    /// Worker processes.
    pub workers: u32,
    /// Checker processes.
    pub checkers: u32,
    /// Threads of each worker.
    pub threads: usize,
    /// The folder of the state; without it, nothing is kept.
    pub dir: Option<PathBuf>,
    /// Where the coordinator listens; port 0 takes a free one.
    pub listen: SocketAddr,
    /// The configuration of the coordinator.
    pub config: Config,
    /// More options of each worker.
    pub worker_options: Vec<String>,
    /// What decides where a checker contradicts a worker.
    pub referee: RefereeChoice,
}

/// A running pool.
pub struct LocalPool {
    // Dropped in this order.
    crew: Crew,
    server: RunningServer,
    /// Whether the coordinator has ended on its own.
    has_ended: bool,
    dir: PathBuf,
    _scratch: Option<Scratch>,
}

impl LocalPool {
    /// Starts a coordinator and its members.
    ///
    /// # Errors
    /// Where a process or the coordinator cannot be started.
    pub async fn start(options: &PoolOptions) -> anyhow::Result<Self> {
        let mut pool = Self::coordinator(options, None).await?;
        pool.join(options)?;
        Ok(pool)
    }

    /// Starts only a coordinator, which serves a model if one is given.
    ///
    /// # Errors
    /// Where its port or its folder is in use.
    pub async fn coordinator(
        options: &PoolOptions,
        serve: Option<ServedModel>,
    ) -> anyhow::Result<Self> {
        let (dir, scratch) = match &options.dir {
            Some(dir) => {
                scratch::sweep();
                (dir.clone(), None)
            }
            None => {
                let scratch = Scratch::make()?;
                (scratch.path().to_path_buf(), Some(scratch))
            }
        };
        let access = PoolAccess::of_one_process([client_key::key()?.public()]);
        let data_dir = dir.join("coordinator");
        // One thread: the workers have the cores.
        let referee = options.referee.referee(&data_dir, None, 1);
        let server = server::start(ServerOptions {
            listen: options.listen,
            data_dir,
            config: options.config,
            serve,
            access: access.fixed(),
            referee,
        });
        Ok(Self {
            server: server.await?,
            crew: Crew::new(),
            has_ended: false,
            dir,
            _scratch: scratch,
        })
    }

    /// The folder of the blobs of a pool whose state is in `dir`.
    pub fn store(dir: &Path) -> PathBuf {
        dir.join("coordinator").join("blobs")
    }

    /// Starts the workers and checkers.
    ///
    /// # Errors
    /// Where a process cannot be started.
    pub fn join(&mut self, options: &PoolOptions) -> anyhow::Result<()> {
        let threads = options.threads.to_string();
        let blobs = Self::store(&self.dir);
        let blobs = format!("--blobs={}", blobs.display());
        let mut worker = vec!["--threads".to_string(), threads, blobs.clone()];
        worker.extend_from_slice(&options.worker_options);
        let checker = ["--threads", "1", &blobs].map(str::to_string).to_vec();
        let roles = [
            (Role::Worker, options.workers, worker),
            (Role::Checker, options.checkers, checker),
        ];
        for (role, count, options) in roles {
            for number in 0..count {
                self.crew.join(Start {
                    role,
                    number,
                    url: self.url(),
                    dir: self.dir.join(format!("{}-{number}", role_name(role))),
                    options: options.clone(),
                })?;
            }
        }
        Ok(())
    }

    /// The folder of its state.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// A view on what is wrong with the members.
    pub fn troubles(&self) -> Troubles {
        self.crew.troubles()
    }

    /// Waits until the coordinator ends on its own, which happens only after an error. Returns the
    /// reason. Cancel safe.
    pub async fn ended(&mut self) -> String {
        let ended = self.server.wait().await;
        self.has_ended = true;
        match ended {
            Ok(()) => "the coordinator has ended".to_string(),
            Err(error) => format!("the coordinator has ended: {error}"),
        }
    }

    /// The result of `work`, or the reason why it cannot be done any more: no worker is left, the
    /// coordinator has ended, or `obstacle` has returned a reason.
    ///
    /// # Errors
    /// The errors of `work`, or that reason.
    pub async fn while_it_lasts<T>(
        &mut self,
        work: impl Future<Output = anyhow::Result<T>>,
        obstacle: impl Future<Output = String>,
    ) -> anyhow::Result<T> {
        let troubles = self.troubles();
        tokio::select! {
            result = work => result,
            reason = troubles.too_few(Role::Worker, 1) => Err(anyhow!(reason)),
            reason = obstacle => Err(anyhow!(reason)),
            reason = self.ended() => Err(anyhow!(reason)),
        }
    }

    /// Has the workers store their state and leave, within `patience`, so that committed steps need
    /// not be done again. Cancel safe.
    pub async fn hand_over(&self, patience: Duration) {
        self.crew.leave(patience).await;
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
    /// Where the coordinator has already ended with an error.
    pub async fn stop(self) -> anyhow::Result<()> {
        self.server.part();
        drop(self.crew);
        if self.has_ended {
            return Ok(());
        }
        Ok(self.server.shutdown().await?)
    }
}
