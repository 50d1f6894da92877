//! The pool of an act: a coordinator in this process, and members with names.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use concord_coordinator::core::Config;
use concord_coordinator::server::access::PoolAccess;
use concord_coordinator::server::{self, RunningServer, ServerOptions};
use concord_kernels::Device;
use concord_kernels::cpu::Cpu;
use concord_kernels::isa::Isa;
use concord_runtime::blobs::BlobOptions;
use concord_runtime::faults::{Faults, WrongData};
use concord_runtime::worker::{self, WorkerOptions};
use concord_runtime::{identity, measure};
use tokio::process::{Child, Command};
use tokio::sync::mpsc;
use tracing::instrument::WithSubscriber;
use tracing::subscriber::NoSubscriber;

use crate::support::client_key;
use crate::support::pool::command;
use crate::support::referee::RefereeChoice;

/// What a member of the demo's pool does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ActorRole {
    /// Works, in a process of its own.
    Worker,
    /// Re-runs the work of others, in a process of its own.
    Checker,
    /// Works on other data than it signs for, from a step on. It runs in this process: no command
    /// starts a worker that lies.
    Liar {
        /// The first false step, from 0.
        from_step: u32,
    },
}

/// A member of the demo's pool.
#[derive(Clone, Copy, Debug)]
pub struct Actor {
    /// Its name on the screen.
    pub name: &'static str,
    /// What it does.
    pub role: ActorRole,
    /// The instruction set that it computes with.
    pub isa: Isa,
    pub threads: usize,
}

impl Actor {
    /// Its device as text.
    pub fn device(&self) -> String {
        match self.threads {
            1 => self.isa.to_string(),
            threads => format!("{} x{threads}", self.isa),
        }
    }
}

/// `count` different ways to compute: the instruction sets of this machine, best first, then with
/// more threads.
pub fn unlike(count: usize) -> Vec<(Isa, usize)> {
    let sets: Vec<Isa> = Isa::ALL
        .into_iter()
        .rev()
        .filter(|isa| isa.is_available())
        .collect();
    let ways = (1..=count).flat_map(|threads| sets.iter().map(move |isa| (*isa, threads)));
    ways.take(count).collect()
}

struct Performer {
    actor: Actor,
    key: String,
    running: Running,
}

/// A running member. It ends when this is dropped.
enum Running {
    Process(Child),
    Here(tokio::task::JoinHandle<()>, mpsc::Sender<()>),
}

/// A running pool.
pub struct DemoPool {
    dir: PathBuf,
    server: RunningServer,
    members: Vec<Performer>,
}

impl DemoPool {
    /// Starts a coordinator and the members in `actors`.
    ///
    /// # Errors
    /// Where one of them cannot be started.
    pub async fn start(dir: &Path, actors: &[Actor]) -> anyhow::Result<Self> {
        let data_dir = dir.join("coordinator");
        let referee = RefereeChoice::Cpu.referee(&data_dir, None, 1);
        let server = server::start(ServerOptions {
            listen: ([127, 0, 0, 1], 0).into(),
            data_dir,
            config: Config::default(),
            serve: None,
            access: PoolAccess::of_one_process([client_key::key()?.public()]).fixed(),
            referee,
        });
        let server = server.await?;
        let mut pool = Self {
            dir: dir.to_path_buf(),
            server,
            members: Vec::new(),
        };
        for actor in actors {
            pool.join(*actor)?;
        }
        Ok(pool)
    }

    /// Where the coordinator listens.
    pub fn url(&self) -> String {
        self.server.url()
    }

    /// The key of the coordinator.
    pub fn coordinator(&self) -> String {
        self.server.key.to_string()
    }

    /// Starts a member.
    ///
    /// # Errors
    /// Where its folder or its process cannot be made.
    pub fn join(&mut self, actor: Actor) -> anyhow::Result<()> {
        let dir = self.dir.join(actor.name);
        // The key is made here and not by the process, so that events can show the name.
        let key = identity::load_or_make(&dir)?.public().to_string();
        let running = match actor.role {
            ActorRole::Worker => self.process("worker", &actor, &dir)?,
            ActorRole::Checker => self.process("checker", &actor, &dir)?,
            ActorRole::Liar { from_step } => self.liar(&actor, dir, from_step),
        };
        self.members.push(Performer {
            actor,
            key,
            running,
        });
        Ok(())
    }

    fn process(&self, role: &str, actor: &Actor, dir: &Path) -> anyhow::Result<Running> {
        let (isa, threads) = (actor.isa.name(), actor.threads.to_string());
        let options = ["--isa", isa, "--threads", &threads, "--log", "off"];
        let command = command(role, &self.url(), dir, &options)?;
        let spawned = Command::from(command).kill_on_drop(true).spawn();
        let child = spawned.with_context(|| format!("cannot start a {role}"))?;
        Ok(Running::Process(child))
    }

    fn liar(&self, actor: &Actor, dir: PathBuf, from_step: u32) -> Running {
        let options = WorkerOptions {
            coordinator: self.url(),
            listen: ([127, 0, 0, 1], 0).into(),
            advertise: None,
            dir,
            blobs: BlobOptions::default(),
            device: Device::Cpu(Cpu::new(actor.isa, actor.threads)),
            memory_bytes: measure::machine_memory(),
            faults: Faults::of(WrongData { from_step }),
        };
        let (leave, left) = mpsc::channel(1);
        let task = tokio::spawn(async move {
            // It ends with an error once it is convicted, which the act shows by the event.
            let run = worker::run(options, left, |_, _| ());
            let _ = run.with_subscriber(NoSubscriber::default()).await;
        });
        Running::Here(task, leave)
    }

    /// Kills a member with SIGKILL.
    ///
    /// # Errors
    /// Where no member has that name, or it has no process of its own.
    pub async fn kill(&mut self, name: &str) -> anyhow::Result<()> {
        let member = self
            .members
            .iter_mut()
            .find(|member| member.actor.name == name);
        match &mut member
            .with_context(|| format!("there is no {name}"))?
            .running
        {
            Running::Process(child) => Ok(child.kill().await?),
            Running::Here(..) => bail!("{name} has no process of its own"),
        }
    }

    /// The member with this key.
    pub fn actor(&self, key: &str) -> Option<&Actor> {
        self.members
            .iter()
            .find(|member| member.key == key)
            .map(|member| &member.actor)
    }

    /// The name of the member with this key, or the key itself.
    pub fn name(&self, key: &str) -> String {
        self.actor(key)
            .map_or_else(|| key.to_string(), |actor| actor.name.to_string())
    }

    /// The name of the member whose key begins with these digits.
    pub fn name_of_short(&self, digits: &str) -> Option<String> {
        let member = self
            .members
            .iter()
            .find(|member| member.key.starts_with(digits));
        member.map(|member| member.actor.name.to_string())
    }

    /// Actor and key of all members, past ones included.
    pub fn actors(&self) -> impl Iterator<Item = (&Actor, &str)> {
        self.members
            .iter()
            .map(|member| (&member.actor, member.key.as_str()))
    }

    /// Ends all members and the coordinator.
    ///
    /// # Errors
    /// Where the coordinator has already ended with an error.
    pub async fn stop(self) -> anyhow::Result<()> {
        for member in self.members {
            match member.running {
                Running::Process(mut child) => drop(child.kill().await),
                Running::Here(task, leave) => {
                    // Aborted: a member that is asked to leave would first hand over its work.
                    task.abort();
                    drop(leave);
                }
            }
        }
        Ok(self.server.shutdown().await?)
    }
}
