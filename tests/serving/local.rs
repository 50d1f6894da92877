//! A program with its own workers on this machine, and its own folder for temporary files.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::pool::PROGRAM;
use crate::server::{PATIENCE, get, status};

/// Objects that may wait to be read.
const LINES_MAX: usize = 100_000;

/// Waits until `holds`.
#[track_caller]
pub fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < PATIENCE, "never: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A running program. It is killed when this is dropped.
pub struct Local {
    child: Child,
    lines: Receiver<Value>,
    temp: PathBuf,
    stderr: PathBuf,
    pub url: String,
}

impl Local {
    /// Starts the program; its temporary files and its standard error go into `dir`.
    pub fn spawn(dir: &Path, args: &[&str]) -> Self {
        let temp = dir.join("temp");
        std::fs::create_dir_all(&temp).unwrap();
        let stderr = dir.join("stderr");
        let mut child = Command::new(PROGRAM)
            .arg("--json")
            .args(args)
            .env("TMPDIR", &temp)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(std::fs::File::create(&stderr).unwrap())
            .spawn()
            .unwrap();
        let stdout = child.stdout.take().unwrap();
        let (sender, lines) = sync_channel(LINES_MAX);
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let object = serde_json::from_str(&line).expect("a JSON object a line");
                if sender.send(object).is_err() {
                    break;
                }
            }
        });
        Self {
            child,
            lines,
            temp,
            stderr,
            url: String::new(),
        }
    }

    /// Starts `concord serve` with workers on this machine, and waits until it listens.
    pub fn serve(dir: &Path, model: &Path, options: &[&str]) -> Self {
        let fixed = ["serve", "--listen", "127.0.0.1:0", "--model"];
        let model = [model.to_str().unwrap()];
        let mut local = Self::spawn(dir, &[&fixed[..], &model, options].concat());
        let listening = local.until(|object| object["event"] == "listening");
        local.url = listening["url"].as_str().unwrap().to_string();
        local
    }

    /// Waits for an object.
    #[track_caller]
    pub fn until(&self, wanted: impl Fn(&Value) -> bool) -> Value {
        loop {
            let object = self.lines.recv_timeout(PATIENCE);
            let object = object.unwrap_or_else(|error| panic!("{error}: {}", self.words()));
            if wanted(&object) {
                return object;
            }
        }
    }

    /// Waits until it takes requests.
    pub fn ready(&self) {
        let url = format!("{}/ready", self.url);
        until("ready", || status(&url) == 200);
    }

    /// Waits until the first pipeline has drawn so many tokens.
    pub fn has_drawn(&self, count: u64) {
        let drawn = || self.view()["pipelines"][0]["tokens"].as_u64().unwrap_or(0);
        until("tokens", || drawn() >= count);
    }

    /// Waits until the first pipeline has so many answers under way.
    pub fn has_active(&self, count: u64) {
        let active = || self.view()["pipelines"][0]["active"].as_u64().unwrap_or(0);
        until("answers under way", || active() >= count);
    }

    /// The state of the pool.
    pub fn view(&self) -> Value {
        get(&format!("{}/api/pool", self.url))
    }

    /// Sends it a signal.
    pub fn signal(&self, name: &str) {
        signal(self.child.id(), name);
    }

    /// The process ids of its workers and checkers, including those that ended and are not reaped.
    pub fn members(&self) -> Vec<u32> {
        let parent = self.child.id();
        let all = processes().into_iter();
        let of = all.filter(|pid| parent_of(*pid) == Some(parent));
        of.collect()
    }

    /// Waits until it has ended; gives how.
    pub fn ends(&mut self) -> ExitStatus {
        let mut ended = None;
        until("the end", || {
            ended = self.child.try_wait().unwrap();
            ended.is_some()
        });
        ended.unwrap()
    }

    /// What it wrote to standard error.
    pub fn words(&self) -> String {
        std::fs::read_to_string(&self.stderr).unwrap()
    }

    /// What it keeps in the folder for temporary files.
    pub fn temporary(&self) -> Vec<String> {
        let entries = std::fs::read_dir(&self.temp).unwrap().flatten();
        let names = entries.map(|entry| entry.file_name().into_string().unwrap());
        names.collect()
    }

    /// Waits until no process works in the folder for temporary files.
    pub fn is_left_alone(&self) {
        let temp = self.temp.to_str().unwrap();
        let is_in = |pid: u32| {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&line).contains(temp)
        };
        until("no process in the temporary folder", || {
            !processes().into_iter().any(is_in)
        });
    }
}

impl Drop for Local {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sends a process a signal.
pub fn signal(pid: u32, name: &str) {
    let sent = Command::new("kill")
        .args([format!("-{name}"), pid.to_string()])
        .status();
    assert!(sent.is_ok_and(|status| status.success()), "no signal sent");
}

fn processes() -> Vec<u32> {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.collect()
}

fn parent_of(pid: u32) -> Option<u32> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // After the name, which may have any character in it: the state, then the parent.
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace().nth(1)?.parse().ok()
}
