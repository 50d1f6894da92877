//! Processes of this program that tests talk to and end.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::Value;

/// Nothing that is waited for takes longer, unless something hangs.
const PATIENCE: Duration = Duration::from_secs(120);

/// What a process left.
#[derive(Debug)]
pub struct Ran {
    pub code: Option<i32>,
    /// Objects of standard output.
    pub objects: Vec<Value>,
    /// Standard output as it is, where it is no JSON.
    pub stdout: String,
    pub stderr: String,
}

impl Ran {
    /// Asserts that the run succeeded, and gives it.
    #[track_caller]
    pub fn good(self) -> Self {
        assert_eq!(self.code, Some(0), "{self:#?}");
        self
    }

    /// The result of a job that succeeded.
    #[track_caller]
    pub fn result(self) -> Value {
        let mut ran = self.good();
        let last = ran.objects.pop().expect("a result");
        assert_eq!(last["event"], "result", "{last}");
        last
    }

    /// How many objects there are of a kind.
    pub fn count(&self, event: &str) -> usize {
        let is_it = |object: &&Value| object["event"] == event;
        self.objects.iter().filter(is_it).count()
    }

    /// The first step under the last plan.
    #[track_caller]
    pub fn last_start(&self) -> u64 {
        let mut objects = self.objects.iter().rev();
        let plan = objects.find(|object| object["event"] == "planned");
        plan.and_then(|plan| plan["step"].as_u64()).expect("a plan")
    }

    /// Asserts that it refused before the first step, in a message with all of `words`.
    #[track_caller]
    pub fn refused(&self, words: &[&str]) {
        assert_eq!(self.code, Some(1), "{self:#?}");
        assert_eq!(self.count("step"), 0, "{self:#?}");
        assert!(!self.stderr.contains("panicked"), "{self:#?}");
        for word in words {
            assert!(self.stderr.contains(word), "no {word:?} in {self:#?}");
        }
    }
}

/// A process that runs.
pub struct Running {
    child: Child,
    lines: Receiver<String>,
    seen: Vec<String>,
    stderr: Option<JoinHandle<String>>,
}

impl Running {
    /// Starts the program with these arguments.
    pub fn start(args: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_concord"));
        Self::start_command(command.args(args))
    }

    /// Starts a command.
    pub fn start_command(command: &mut Command) -> Self {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let stdout = child.stdout.take().expect("it is piped");
        let mut stderr = child.stderr.take().expect("it is piped");
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        let stderr = std::thread::spawn(move || {
            let mut text = String::new();
            let _ = stderr.read_to_string(&mut text);
            text
        });
        Self {
            child,
            lines,
            seen: Vec::new(),
            stderr: Some(stderr),
        }
    }

    /// The first object for which `is_it` holds.
    pub fn until(&mut self, is_it: impl Fn(&Value) -> bool) -> Value {
        let start = Instant::now();
        loop {
            match self.lines.recv_timeout(Duration::from_millis(100)) {
                Ok(line) => {
                    self.seen.push(line.clone());
                    let object = serde_json::from_str(&line).expect(&line);
                    if is_it(&object) {
                        return object;
                    }
                }
                Err(RecvTimeoutError::Timeout) => {
                    assert!(start.elapsed() < PATIENCE, "it hangs: {:#?}", self.seen);
                }
                Err(RecvTimeoutError::Disconnected) => {
                    let stderr = self.stderr.take().map(|stderr| stderr.join());
                    panic!("it ended too early: {:#?}\n{stderr:?}", self.seen);
                }
            }
        }
    }

    /// Waits for the end of a step, counted from 0.
    pub fn until_step(&mut self, step: u32) {
        self.until(|object| object["event"] == "step" && object["step"] == step);
    }

    /// The processes of a member that it has started, "worker" or "checker".
    pub fn members(&self, role: &str) -> Vec<u32> {
        let pid = self.child.id().to_string();
        let mut pgrep = Command::new("pgrep");
        let found = pgrep
            .args(["-P", &pid, "-f", &format!(" {role} ")])
            .output();
        let found = String::from_utf8(found.expect("pgrep is there").stdout).expect("numbers");
        found.lines().filter_map(|line| line.parse().ok()).collect()
    }

    /// Sends a signal, such as "INT".
    pub fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill").args(["-s", name, &pid]).status();
        assert!(sent.is_ok_and(|status| status.success()), "no signal sent");
    }

    /// Waits for the end.
    pub fn end(mut self) -> Ran {
        let start = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("it is our child") {
                break status;
            }
            assert!(start.elapsed() < PATIENCE, "it hangs: {:#?}", self.seen);
            std::thread::sleep(Duration::from_millis(5));
        };
        self.seen.extend(self.lines.iter());
        let objects = self.seen.iter().map(|line| serde_json::from_str(line));
        let stderr = self.stderr.take().expect("it is joined once");
        Ran {
            code: status.code(),
            objects: objects.filter_map(Result::ok).collect(),
            stdout: self.seen.join("\n"),
            stderr: stderr.join().expect("it is read"),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs the program to its end.
pub fn run(args: &[&str]) -> Ran {
    Running::start(args).end()
}
