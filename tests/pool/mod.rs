//! Real processes of this program: a coordinator, workers, checkers, and jobs over them.

// Each test takes what it needs.
#![allow(dead_code)]

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use serde_json::Value;

pub const PROGRAM: &str = env!("CARGO_BIN_EXE_concord");
/// Nothing that is waited for takes longer, unless something hangs.
const PATIENCE: Duration = Duration::from_secs(120);
/// Nor does one object come later than this, however many others come before it: a pool that plans
/// again and again is not silent.
const LIMIT: Duration = Duration::from_secs(600);

/// The reference data, or nothing with a line that says so.
pub fn shared() -> Option<PathBuf> {
    let default = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared");
    let shared = std::env::var_os("CONCORD_SHARED").map_or(default, PathBuf::from);
    if shared.join("models").is_dir() {
        return Some(shared.canonicalize().unwrap());
    }
    println!(
        "skipped: no reference data at {} (set CONCORD_SHARED)",
        shared.display()
    );
    None
}

/// A process whose standard output is JSON, one object a line.
pub struct Process {
    child: Child,
    lines: Receiver<String>,
}

impl Process {
    /// Starts it.
    pub fn start(command: &mut Command) -> Self {
        // What matters is on stdout, too; what is on stderr helps where a test fails.
        let quiet = std::env::var_os("CONCORD_TEST_STDERR").is_none();
        let stderr = if quiet {
            Stdio::null()
        } else {
            Stdio::inherit()
        };
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(stderr)
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
        let start = Instant::now();
        loop {
            let object = self.next().expect("the process ended too early");
            if wanted(&object) {
                return object;
            }
            assert!(start.elapsed() < LIMIT, "still waiting; last came {object}");
        }
    }

    /// Ctrl-C.
    pub fn interrupt(&self) {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill").args(["-INT", &pid]).status();
        assert!(sent.is_ok_and(|status| status.success()), "no signal sent");
    }

    /// Waits until it has ended by itself; whether it ended well.
    pub fn ends_well(&mut self) -> bool {
        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.success();
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("it has not ended after {PATIENCE:?}")
    }

    /// Waits until the process has ended on its own.
    pub fn ended(&mut self) {
        while self.next().is_some() {}
        self.child.wait().unwrap();
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
    // In the order in which they are dropped: nobody writes into the folder when it is removed.
    pub members: Vec<Process>,
    coordinator: Option<Process>,
    /// More options of the coordinator.
    options: Vec<String>,
    pub url: String,
    pub dir: tempfile::TempDir,
}

impl Pool {
    /// A coordinator alone.
    pub fn new() -> Self {
        Self::within(tempfile::tempdir().unwrap())
    }

    /// A coordinator alone, with more options.
    pub fn with_coordinator(options: &[&str]) -> Self {
        Self::start(tempfile::tempdir().unwrap(), options)
    }

    /// A coordinator alone, with its data in the folder `coordinator` of `dir`.
    pub fn within(dir: tempfile::TempDir) -> Self {
        Self::start(dir, &[])
    }

    fn start(dir: tempfile::TempDir, options: &[&str]) -> Self {
        let mut pool = Self {
            dir,
            options: options.iter().map(|option| option.to_string()).collect(),
            url: "concord://@127.0.0.1:0".to_string(),
            coordinator: None,
            members: Vec::new(),
        };
        pool.start_coordinator();
        pool
    }

    /// Starts the coordinator, at its old address where it had one.
    pub fn start_coordinator(&mut self) {
        let listen = self.address();
        let coordinator = Process::start(
            Command::new(PROGRAM)
                .args(["--json", "coordinator", "--listen", &listen, "--data-dir"])
                .arg(self.dir.path().join("coordinator"))
                .args(&self.options),
        );
        let listening = coordinator.until(|object| object["event"] == "listening");
        self.url = listening["url"].as_str().unwrap().to_string();
        self.coordinator = Some(coordinator);
    }

    /// Host and port of the coordinator.
    pub fn address(&self) -> String {
        let at = self.url.find('@').expect("a key");
        self.url[at + 1..].to_string()
    }

    /// kill -9 of the coordinator.
    pub fn kill_coordinator(&mut self) {
        self.coordinator.take().expect("it runs").kill();
    }

    /// Starts a worker or checker; returns its index among the members.
    pub fn join(&mut self, role: &str, options: &[&str]) -> usize {
        let dir = self
            .dir
            .path()
            .join(format!("{role}-{}", self.members.len()));
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

    /// The public key of a member, as events name it, from its key file. `index` is what
    /// [`Self::join`] returned.
    pub fn key(&self, role: &str, index: usize) -> String {
        let path = self
            .dir
            .path()
            .join(format!("{role}-{index}"))
            .join("identity.key");
        let start = Instant::now();
        // The key is written before `started` is printed: the first look finds it.
        let secret: [u8; 32] = loop {
            match std::fs::read(&path).unwrap_or_default().try_into() {
                Ok(secret) => break secret,
                Err(_) => assert!(start.elapsed() < PATIENCE, "no key at {}", path.display()),
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        concord_proto::Keypair::from_secret(secret)
            .public()
            .to_string()
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
    let (model, data) = (
        shared.join("models/tinystories-260k"),
        shared.join("data/tinyshakespeare.txt"),
    );
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
    println!(
        "  {:.1} s, {}",
        start.elapsed().as_secs_f32(),
        result["record_digest"]
    );
    result
}

/// Writes the file of a job of a second or two, over the first lines of the text; `more` lines
/// come last.
pub fn small_job(dir: &Path, shared: &Path, steps: u32, seed: u32, more: &str) -> PathBuf {
    let text = std::fs::read(shared.join("data/tinyshakespeare.txt")).unwrap();
    let data = dir.join("few-lines.txt");
    std::fs::write(&data, &text[..20_000]).unwrap();
    let text = format!(
        "base_model: {}\ndatasets: [{{path: {}, type: text}}]\nadapter: lora\nlora_r: 4\n\
         sequence_len: 32\nmicro_batch_size: 1\ngradient_accumulation_steps: 4\n\
         max_steps: {steps}\nlearning_rate: 1e-2\nseed: {seed}\noutput_dir: {}\n{more}\n",
        shared.join("models/tinystories-260k").display(),
        data.display(),
        dir.join(format!("out-{seed}")).display()
    );
    let path = dir.join(format!("small-{seed}.yaml"));
    std::fs::write(&path, text).unwrap();
    path
}

/// A conviction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conviction {
    pub culprit: String,
    pub offence: String,
    pub evidence: String,
}

/// What was said of a job that completed.
pub struct Outcome {
    /// The last object.
    pub result: Value,
    pub convictions: Vec<Conviction>,
    /// Every other object.
    pub events: Vec<Value>,
    pub seconds: f32,
}

impl Outcome {
    /// How many objects there are of a kind.
    pub fn count(&self, event: &str) -> usize {
        self.events
            .iter()
            .filter(|object| object["event"] == event)
            .count()
    }

    /// The hash of the job.
    pub fn hash(&self) -> String {
        self.result["record_digest"].as_str().unwrap().to_string()
    }
}

/// Follows a job to its end, which must be a good one.
pub fn outcome(train: &Process) -> Outcome {
    let start = Instant::now();
    let (mut convictions, mut events) = (Vec::new(), Vec::new());
    loop {
        let object = train.next().expect("the process ended too early");
        assert!(start.elapsed() < LIMIT, "no end; last came {object}");
        let word = |key: &str| object[key].as_str().unwrap_or_default().to_string();
        match object["event"].as_str().unwrap_or_default() {
            "failed" | "error" => panic!("{object}"),
            "result" => {
                let seconds = start.elapsed().as_secs_f32();
                return Outcome {
                    result: object,
                    convictions,
                    events,
                    seconds,
                };
            }
            "convicted" => convictions.push(Conviction {
                culprit: word("culprit"),
                offence: word("offence"),
                evidence: word("evidence"),
            }),
            _ => {}
        }
        events.push(object);
    }
}

/// The program with these arguments, run to its end; never longer than [`PATIENCE`].
pub fn run(args: &[&str]) -> Ran {
    run_command(Command::new(PROGRAM).args(args))
}

/// A command run to its end.
pub fn run_command(command: &mut Command) -> Ran {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let pipes = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
    let stdout = std::thread::spawn(move || std::io::read_to_string(pipes.0).unwrap());
    let stderr = std::thread::spawn(move || std::io::read_to_string(pipes.1).unwrap());
    let start = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if start.elapsed() > PATIENCE {
            let _ = child.kill();
            panic!("it hangs: {command:?}");
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    Ran {
        code: status.code(),
        stdout: stdout.join().unwrap(),
        stderr: stderr.join().unwrap(),
    }
}

/// What a run left.
#[derive(Debug)]
pub struct Ran {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Ran {
    /// Asserts that something could not be shown, nor refuted, for a reason with all of `words`.
    #[track_caller]
    pub fn unshown(&self, words: &[&str]) {
        assert_eq!(self.code, Some(2), "{self:#?}");
        assert!(!self.stderr.contains("panicked"), "{self:#?}");
        for word in words {
            assert!(self.stderr.contains(word), "no {word:?} in {self:#?}");
        }
    }

    /// Asserts that a proof is complete and, as nobody is named who has checked it, not proven.
    #[track_caller]
    pub fn unproven(&self) {
        self.unshown(&["complete, not proven"]);
    }

    /// Asserts that the program refused in a message with all of `words`, and did not panic.
    #[track_caller]
    pub fn refused(&self, words: &[&str]) {
        assert_eq!(self.code, Some(1), "{self:#?}");
        assert!(!self.stderr.contains("panicked"), "{self:#?}");
        for word in words {
            assert!(self.stderr.contains(word), "no {word:?} in {self:#?}");
        }
    }
}
