//! A shell in a folder of its own, where `concord` is this very build.

use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// Nothing that a page tells its reader to run takes longer.
const PATIENCE: Duration = Duration::from_secs(240);

/// The shell, and the services that run behind it.
pub struct Shell {
    folder: tempfile::TempDir,
    path: String,
    /// What the reader puts in for names and ports.
    substitutions: Vec<(String, String)>,
    services: Vec<Service>,
}

struct Service {
    child: Child,
    lines: Receiver<String>,
}

/// What a command left.
pub struct Ran {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Shell {
    /// A shell whose folder is new and empty.
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let bin = folder.path().join("bin");
        std::fs::create_dir(&bin).unwrap();
        std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_concord"), bin.join("concord")).unwrap();
        let path = std::env::var("PATH").unwrap_or_default();
        Self {
            path: format!("{}:{path}", bin.display()),
            substitutions: Vec::new(),
            services: Vec::new(),
            folder,
        }
    }

    /// A file of the folder.
    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join("home").join(name)
    }

    /// Writes a file into the folder.
    pub fn save(&self, name: &str, text: &str) {
        let path = self.file(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    /// From here on `name` in a command reads `value`.
    pub fn substitute(&mut self, name: &str, value: impl Into<String>) {
        self.substitutions.push((name.to_string(), value.into()));
    }

    fn bash(&self, command: &str) -> Command {
        let home = self.folder.path().join("home");
        std::fs::create_dir_all(&home).unwrap();
        let mut command_line = command.to_string();
        for (name, value) in &self.substitutions {
            command_line = command_line.replace(name, value);
        }
        let mut bash = Command::new("bash");
        bash.args(["-euo", "pipefail", "-c", &command_line])
            .current_dir(&home)
            .env("PATH", &self.path)
            .env("HF_HUB_OFFLINE", "1")
            .env("HOME", &home)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        bash
    }

    /// Runs a command to its end, with `typed` on its standard input.
    pub fn run(&self, command: &str, typed: &str) -> Ran {
        self.save(".typed", typed);
        let mut bash = self.bash(command);
        bash.stdin(std::fs::File::open(self.file(".typed")).unwrap());
        let mut child = bash.spawn().expect("there is a bash");
        let (stdout, stderr) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        let read = |mut stream: Box<dyn Read + Send>| {
            std::thread::spawn(move || {
                let mut bytes = Vec::new();
                let _ = stream.read_to_end(&mut bytes);
                String::from_utf8_lossy(&bytes).into_owned()
            })
        };
        let (stdout, stderr) = (read(Box::new(stdout)), read(Box::new(stderr)));
        let start = Instant::now();
        let status = loop {
            if let Some(status) = child.try_wait().unwrap() {
                break status;
            }
            if start.elapsed() > PATIENCE {
                let _ = child.kill();
                panic!("`{command}` has not ended after {PATIENCE:?}");
            }
            std::thread::sleep(Duration::from_millis(20));
        };
        Ran {
            code: status.code(),
            stdout: stdout.join().unwrap(),
            stderr: stderr.join().unwrap(),
        }
    }

    /// Starts a command that runs until it is stopped, and waits for a line with `word`.
    pub fn serve(&mut self, command: &str, word: &str) -> String {
        let mut child = self
            .bash(&format!("exec {command} 2>&1"))
            .stdin(Stdio::null())
            .spawn()
            .expect("there is a bash");
        let stdout = child.stdout.take().unwrap();
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        let service = Service { child, lines };
        let line = service.until(word, command);
        self.services.push(service);
        line
    }

    /// Ends the services as a terminal does that is closed; the last one started ends first.
    pub fn stop_services(&mut self) {
        while let Some(mut service) = self.services.pop() {
            let pid = service.child.id().to_string();
            let sent = Command::new("kill").args(["-TERM", &pid]).status();
            assert!(sent.is_ok_and(|status| status.success()), "no signal sent");
            let start = Instant::now();
            while service.child.try_wait().unwrap().is_none() {
                assert!(start.elapsed() < PATIENCE, "SIGTERM does not end a service");
                std::thread::sleep(Duration::from_millis(20));
            }
        }
    }
}

impl Service {
    fn until(&self, word: &str, command: &str) -> String {
        let start = Instant::now();
        let mut said = Vec::new();
        loop {
            let left = PATIENCE.saturating_sub(start.elapsed());
            match self.lines.recv_timeout(left) {
                Ok(line) if line.contains(word) => return line,
                Ok(line) => said.push(line),
                Err(RecvTimeoutError::Disconnected) => {
                    panic!("`{command}` ended without {word:?}: {said:#?}")
                }
                Err(RecvTimeoutError::Timeout) => {
                    panic!("`{command}` does not say {word:?}: {said:#?}")
                }
            }
        }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
