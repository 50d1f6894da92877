//! Real processes of this program: a coordinator, workers, checkers, and jobs over them.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use serde_json::Value;

const PROGRAM: &str = env!("CARGO_BIN_EXE_concord");
/// Nothing that is waited for takes longer, unless something hangs.
const PATIENCE: Duration = Duration::from_secs(120);

/// The reference data, or nothing with a line that says so.
pub fn shared() -> Option<PathBuf> {
    let default = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared");
    let shared = std::env::var_os("CONCORD_SHARED").map_or(default, PathBuf::from);
    if shared.join("models").is_dir() {
        return Some(shared.canonicalize().unwrap());
    }
    println!("skipped: no reference data at {} (set CONCORD_SHARED)", shared.display());
    None
}

/// A process whose standard output is JSON, one object a line.
pub struct Process {
    child: Child,
    lines: Receiver<String>,
}

impl Process {
    fn start(command: &mut Command) -> Self {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let stdout: ChildStdout = child.stdout.take().unwrap();
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        Self { child, lines }
    }

    /// The next object, or nothing once the process has ended.
    pub fn next(&self) -> Option<Value> {
        match self.lines.recv_timeout(PATIENCE) {
            Ok(line) => Some(serde_json::from_str(&line).expect("a JSON object a line")),
            Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => None,
            Err(std::sync::mpsc::RecvTimeoutError::Timeout) => panic!("nothing for {PATIENCE:?}"),
        }
    }

    /// Waits for an object with this event.
    pub fn until(&self, wanted: impl Fn(&Value) -> bool) -> Value {
        loop {
            let object = self.next().expect("the process ended too early");
            if wanted(&object) {
                return object;
            }
        }
    }

    /// kill -9.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A coordinator with its members.
pub struct Pool {
    pub dir: tempfile::TempDir,
    pub url: String,
    coordinator: Option<Process>,
    pub members: Vec<Process>,
}

impl Pool {
    /// A coordinator alone.
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut pool =
            Self { dir, url: "127.0.0.1:0".to_string(), coordinator: None, members: Vec::new() };
        pool.start_coordinator();
        pool
    }

    /// Starts the coordinator, at its old address where it had one.
    pub fn start_coordinator(&mut self) {
        let listen = self.url.trim_start_matches("http://").to_string();
        let coordinator = Process::start(
            Command::new(PROGRAM)
                .args(["--json", "coordinator", "--listen", &listen, "--data-dir"])
                .arg(self.dir.path().join("coordinator")),
        );
        let listening = coordinator.until(|object| object["event"] == "listening");
        self.url = listening["url"].as_str().unwrap().to_string();
        self.coordinator = Some(coordinator);
    }

    /// kill -9 of the coordinator.
    pub fn kill_coordinator(&mut self) {
        self.coordinator.take().expect("it runs").kill();
    }

    /// Starts a worker or checker; returns its index among the members.
    pub fn join(&mut self, role: &str, options: &[&str]) -> usize {
        let dir = self.dir.path().join(format!("{role}-{}", self.members.len()));
        let member = Process::start(
            Command::new(PROGRAM)
                .args(["--json", role, "--coordinator", &self.url, "--dir"])
                .arg(dir)
                .args(options),
        );
        member.until(|object| object["event"] == "started");
        self.members.push(member);
        self.members.len() - 1
    }

    /// The public key of a member, as events name it: it is the `index`-th of `workers` in the
    /// order of joining only by its key file.
    pub fn key(&self, role: &str, index: usize) -> String {
        let path = self.dir.path().join(format!("{role}-{index}")).join("identity.key");
        let secret: [u8; 32] = std::fs::read(path).unwrap().try_into().unwrap();
        concord_proto::Keypair::from_secret(secret).public().to_string()
    }

    /// Submits a job.
    pub fn train(&self, job: &Path, options: &[&str]) -> Process {
        Process::start(
            Command::new(PROGRAM)
                .args(["--json", "train", "--coordinator", &self.url])
                .arg(job)
                .args(options),
        )
    }
}

/// Writes a job file; `more` lines come last.
pub fn job_file(dir: &Path, shared: &Path, steps: u32, more: &str) -> PathBuf {
    let (model, data) =
        (shared.join("models/tinystories-260k"), shared.join("data/tinyshakespeare.txt"));
    let text = format!(
        "base_model: {}\ndatasets: [{{path: {}, type: text}}]\nadapter: lora\nlora_r: 8\n\
         lora_alpha: 16\nsequence_len: 128\nmicro_batch_size: 2\n\
         gradient_accumulation_steps: 8\nmax_steps: {steps}\nlearning_rate: 1e-3\n\
         lr_scheduler: cosine\nwarmup_steps: 5\noutput_dir: {}\n{more}\n",
        model.display(),
        data.display(),
        dir.join("out").display()
    );
    let path = dir.join("job.yaml");
    std::fs::write(&path, text).unwrap();
    path
}

/// Runs a job to its end and returns its result.
pub fn result(train: &Process) -> Value {
    let start = Instant::now();
    let result = train.until(|object| {
        assert_ne!(object["event"], "failed", "{object}");
        assert_ne!(object["event"], "error", "{object}");
        object["event"] == "result"
    });
    println!("  {:.1} s, {}", start.elapsed().as_secs_f32(), result["record_digest"]);
    result
}
