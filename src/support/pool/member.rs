//! A worker or a checker on this machine: a process of this program, which is started again when it
//! ends.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context;
use concord_proto::session::Role;

use super::restarts::{Restarts, is_steady};

/// The name of a role.
pub fn role_name(role: Role) -> &'static str {
    match role {
        Role::Worker => "worker",
        Role::Checker => "checker",
        Role::Auditor => "auditor",
    }
}

/// How a member is started.
#[derive(Clone, Debug)]
pub struct Start {
    /// Worker or checker.
    pub role: Role,
    /// Its number among those of its role, from 0.
    pub number: u32,
    /// The coordinator.
    pub url: String,
    /// The folder of its key and its blobs.
    pub dir: PathBuf,
    /// More options.
    pub options: Vec<String>,
}

impl Start {
    fn spawn(&self) -> anyhow::Result<Child> {
        let options: Vec<&str> = self.options.iter().map(String::as_str).collect();
        let name = match self.role {
            Role::Worker => "worker",
            Role::Checker | Role::Auditor => "checker",
        };
        let mut command = command(name, &self.url, &self.dir, &options)?;
        let spawned = command.spawn();
        spawned.with_context(|| format!("cannot start a {}", role_name(self.role)))
    }
}

/// The command that starts a worker or checker. The process ends with this one, whose end closes
/// its standard input.
///
/// # Errors
/// Where the path of this program is unknown.
pub fn command(role: &str, url: &str, dir: &Path, more: &[&str]) -> anyhow::Result<Command> {
    let mut command = Command::new(this_program()?);
    command
        .args([role, "--until-stdin-closes", "--coordinator", url, "--dir"])
        .arg(dir)
        .args(more)
        .stdin(Stdio::piped())
        .stdout(Stdio::null());
    // In a process group of its own, so that Ctrl-C in a terminal does not reach it: this process
    // needs its members in order to end cleanly.
    #[cfg(unix)]
    std::os::unix::process::CommandExt::process_group(&mut command, 0);
    Ok(command)
}

/// The path of this program, also if its file was replaced by a newer build meanwhile.
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

/// Whether a member runs.
enum State {
    Runs { child: Child, since: Instant },
    Rests { from: Instant, rest: Duration },
    GaveUp,
}

/// A member of a local pool. Its process ends when this is dropped.
pub struct LocalMember {
    start: Start,
    state: State,
    restarts: Restarts,
    /// How it ended last.
    last_end: String,
}

impl LocalMember {
    /// Starts it.
    ///
    /// # Errors
    /// Where a process cannot be started.
    pub fn start(start: Start) -> anyhow::Result<Self> {
        let child = start.spawn()?;
        Ok(Self {
            state: State::Runs {
                child,
                since: Instant::now(),
            },
            start,
            restarts: Restarts::default(),
            last_end: String::new(),
        })
    }

    /// Checks the process, and starts it again if that is due. Returns a message if anything has
    /// changed.
    pub fn look(&mut self) -> Option<String> {
        match &mut self.state {
            State::Runs { child, since } => {
                let lived = since.elapsed();
                let (how, is_killed) = match child.try_wait() {
                    Ok(None) => return None,
                    Ok(Some(status)) => how_it_ended(status),
                    // Only this process can wait for it, so it counts as lost.
                    Err(error) => (format!("is lost: {error}"), false),
                };
                self.rest(how, lived, is_killed);
                self.trouble()
            }
            State::Rests { from, rest } if from.elapsed() >= *rest => {
                match self.start.spawn() {
                    Ok(child) => {
                        let since = Instant::now();
                        self.state = State::Runs { child, since };
                    }
                    Err(error) => {
                        let how = format!("could not be started again: {error:#}");
                        self.rest(how, Duration::ZERO, false);
                    }
                }
                self.trouble()
            }
            State::Rests { .. } | State::GaveUp => None,
        }
    }

    fn rest(&mut self, how: String, lived: Duration, is_killed: bool) {
        self.last_end = how;
        self.state = match self.restarts.ended(lived, is_killed) {
            Some(rest) => State::Rests {
                from: Instant::now(),
                rest,
            },
            None => State::GaveUp,
        };
    }

    /// What is wrong with it, and what is done about it.
    pub fn trouble(&self) -> Option<String> {
        let (name, how) = (self.name(), &self.last_end);
        match &self.state {
            State::Runs { since, .. } if how.is_empty() || is_steady(since.elapsed()) => None,
            State::Runs { .. } => Some(format!("{name} {how}, and was started again")),
            State::Rests { rest, .. } => {
                let seconds = rest.as_secs_f32();
                Some(format!("{name} {how}, and is started again in {seconds} s"))
            }
            State::GaveUp => {
                let times = self.restarts.ends();
                Some(format!(
                    "{name} {how}; it ended {times} times in a row and is not started again"
                ))
            }
        }
    }

    /// Whether it is a worker or a checker.
    pub fn role(&self) -> Role {
        self.start.role
    }

    /// Whether it is given up, and not started again.
    pub fn is_given_up(&self) -> bool {
        matches!(self.state, State::GaveUp)
    }

    fn name(&self) -> String {
        format!("{} {}", role_name(self.start.role), self.start.number)
    }

    /// Asks it to hand over its work and to leave. It is not started again.
    pub fn ask_to_leave(&mut self) {
        #[cfg(unix)]
        if let State::Runs { child, .. } = &self.state
            && let Ok(raw) = i32::try_from(child.id())
            && let Some(pid) = rustix::process::Pid::from_raw(raw)
        {
            // It may have ended by itself.
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
    }

    /// Whether its process is running.
    pub fn runs(&mut self) -> bool {
        match &mut self.state {
            State::Runs { child, .. } => matches!(child.try_wait(), Ok(None)),
            State::Rests { .. } | State::GaveUp => false,
        }
    }

    /// Kills it with SIGKILL. It is not started again.
    pub fn kill(&mut self) {
        if let State::Runs { child, .. } = &mut self.state {
            // It may have ended by itself.
            let _ = child.kill();
        }
    }
}

impl Drop for LocalMember {
    fn drop(&mut self) {
        self.kill();
        if let State::Runs { child, .. } = &mut self.state {
            // Once it is reaped, it writes nothing more.
            let _ = child.wait();
        }
    }
}

/// How a process ended, as the end of a sentence, and whether it was killed.
fn how_it_ended(status: ExitStatus) -> (String, bool) {
    #[cfg(unix)]
    if let Some(signal) = std::os::unix::process::ExitStatusExt::signal(&status) {
        let hint = match signal {
            9 => " (was it out of memory?)",
            4 | 6 | 7 | 8 | 11 => " (it crashed)",
            _ => "",
        };
        return (format!("was killed by signal {signal}{hint}"), true);
    }
    let how = match status.code() {
        Some(0) => "left".to_string(),
        Some(code) => format!("ended with status {code} (it says why above)"),
        None => format!("ended: {status}"),
    };
    (how, false)
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::ExitStatus;

    use super::how_it_ended;

    #[test]
    fn ends_in_words() {
        // As wait gives them: a signal in the low bits, a status in the next byte.
        let end = |raw| how_it_ended(ExitStatus::from_raw(raw));
        let killed = "was killed by signal 9 (was it out of memory?)";
        assert_eq!(end(9), (killed.to_string(), true));
        let crashed = "was killed by signal 11 (it crashed)";
        assert_eq!(end(11), (crashed.to_string(), true));
        assert_eq!(end(15), ("was killed by signal 15".to_string(), true));
        let failed = "ended with status 1 (it says why above)";
        assert_eq!(end(1 << 8), (failed.to_string(), false));
        assert_eq!(end(0), ("left".to_string(), false));
    }
}
