//! Members of a pool as people start them by mistake, and as systems end them: each says what is
//! wrong within seconds, and none harms the others.

mod pool;

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use pool::{PROGRAM, Pool, outcome, run, run_command, shared, small_job};

/// Nothing that is waited for takes longer, unless something hangs.
const PATIENCE: Duration = Duration::from_secs(60);

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Waits until the coordinator at `url` knows a member with this key.
fn joined(url: &str, key: &str) {
    let start = Instant::now();
    while !run(&["status", "--coordinator", url, "--json"])
        .stdout
        .contains(key)
    {
        assert!(start.elapsed() < PATIENCE, "{key} does not join");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn only_concord_is_spoken_and_no_byte_is_sent_to_anything_else() {
    let dir = tempfile::tempdir().unwrap();
    let own = dir.path().join("own");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    let job = shared().map(|shared| small_job(dir.path(), &shared, 2, 0, ""));
    for url in [
        format!("https://{address}"),
        format!("HTTPS://{address}"),
        format!("ftp://{address}"),
        format!("h2c://{address}"),
        format!("http://{address}"),
        address.to_string(),
    ] {
        let words = ["concord://KEY@HOST:PORT", &*url];
        run(&["status", "--coordinator", &url]).refused(&words);
        run(&["jobs", "--coordinator", &url]).refused(&words);
        for role in ["worker", "checker"] {
            run(&[role, "--coordinator", &url, "--dir", text(&own)]).refused(&words);
        }
        if let Some(job) = &job {
            run(&["train", text(job), "--coordinator", &url]).refused(&words);
        }
        let connected = listener.accept().map(|_| ());
        let kind = connected.expect_err("a connection").kind();
        assert_eq!(kind, std::io::ErrorKind::WouldBlock, "{url}");
    }
}

#[test]
fn a_worker_that_nobody_could_connect_to_does_not_start() {
    let pool = Pool::new();
    let own = pool.dir.path().join("own");
    for (more, words) in [
        (["--listen", "0.0.0.0:0"], "--advertise"),
        (["--listen", "[::]:0"], "--advertise"),
        (["--advertise", "127.0.0.1:1"], "concord://KEY@HOST:PORT"),
        (["--advertise", "ftp://x"], "concord://KEY@HOST:PORT"),
        (["--advertise", "https://x:1"], "concord://KEY@HOST:PORT"),
        (["--advertise", "concord://a b:1"], "the character ' '"),
        (
            ["--advertise", "concord://0.0.0.0:7701"],
            "nobody can connect to",
        ),
        (["--advertise", "concord://x:0"], "no port"),
        (["--advertise", "concord://u:p@x:1"], "is no key"),
        (["--advertise", "concord://x:1/y"], "host and port"),
    ] {
        let to = ["worker", "--coordinator", &pool.url, "--dir", text(&own)];
        run(&[&to[..], &["--threads", "1"], &more].concat()).refused(&[words]);
    }
}

#[test]
fn a_copied_folder_is_noticed_and_the_first_worker_goes_on() {
    let mut pool = Pool::new();
    pool.join("worker", &["--threads", "1"]);
    let key = pool.key("worker", 0);
    joined(&pool.url, &key);
    let copied = pool.dir.path().join("copied");
    std::fs::create_dir(&copied).unwrap();
    let of_first = pool.dir.path().join("worker-0").join("identity.key");
    std::fs::copy(of_first, copied.join("identity.key")).unwrap();
    for role in ["worker", "checker"] {
        let to = [role, "--coordinator", &pool.url, "--dir", text(&copied)];
        run(&[&to[..], &["--threads", "1"]].concat())
            .refused(&["this key is in use by another", "--dir"]);
    }
    let status = run(&["status", "--coordinator", &pool.url, "--json"]);
    assert!(status.stdout.contains(&key), "{status:?}");
}

#[test]
fn a_worker_out_of_reach_is_named_and_the_job_does_without_it() {
    let Some(shared) = shared() else { return };
    let mut pool = Pool::new();
    pool.join("worker", &["--threads", "1"]);
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("concord://{}", nobody.local_addr().unwrap());
    drop(nobody);
    pool.join("worker", &["--threads", "1", "--advertise", &address]);
    let hidden = pool.key("worker", 1);
    let job = small_job(pool.dir.path(), &shared, 4, 0, "");
    let start = Instant::now();
    let train = pool.train(&job, &["--plan", "2x1", "--min-workers", "2"]);
    let words = format!("is not reached at {address}: ");
    let waiting = train.until(|object| {
        let what = object["for"].as_str().unwrap_or_default();
        object["event"] == "waiting" && what.contains(&words)
    });
    let what = waiting["for"].as_str().unwrap();
    assert!(
        what.contains("--advertise") && what.contains(&hidden[..8]),
        "{waiting}"
    );
    let status = run(&["status", "--coordinator", &pool.url]);
    assert!(status.stdout.contains("not reached at"), "{status:?}");
    pool.join("worker", &["--threads", "1"]);
    assert_eq!(outcome(&train).result["steps"], 4);
    assert!(start.elapsed() < PATIENCE, "{:?}", start.elapsed());
}

#[test]
fn too_few_open_files_are_refused_by_number() {
    let dir = tempfile::tempdir().unwrap();
    let limited = |limit: &str, args: &[&str]| {
        let script = format!("ulimit {limit} && exec \"$0\" \"$@\"");
        run_command(Command::new("sh").args(["-c", &script, PROGRAM]).args(args))
    };
    let own = dir.path().join("own");
    let url = "concord://127.0.0.1:1";
    for args in [
        &[
            "coordinator",
            "--listen",
            "127.0.0.1:0",
            "--data-dir",
            text(&own),
        ][..],
        &["worker", "--coordinator", url, "--dir", text(&own)],
        &["checker", "--coordinator", url, "--dir", text(&own)],
        &["train", "job.yaml"],
    ] {
        limited("-n 32", args).refused(&["32 files", "ulimit -n"]);
    }
    // What the program may raise itself is no reason to refuse.
    limited("-S -n 32", &["train", "/nowhere/job.yaml"]).refused(&["/nowhere/job.yaml"]);
}

/// A process that a system ends.
struct Started(Child);

impl Started {
    /// Starts it, and gives the first object that it prints.
    fn new(args: &[&str]) -> (Self, serde_json::Value) {
        let mut child = Command::new(PROGRAM)
            .arg("--json")
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("the program starts");
        let mut line = String::new();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        stdout.read_line(&mut line).unwrap();
        (Self(child), serde_json::from_str(&line).expect("an object"))
    }

    /// Sends a signal, and waits until it has ended well.
    fn ends_well_on(mut self, signal: &str) {
        let pid = self.0.id().to_string();
        let sent = Command::new("kill").args([signal, &pid]).status();
        assert!(sent.is_ok_and(|status| status.success()), "no signal sent");
        let start = Instant::now();
        let status = loop {
            if let Some(status) = self.0.try_wait().unwrap() {
                break status;
            }
            assert!(start.elapsed() < PATIENCE, "{signal}: it goes on");
            std::thread::sleep(Duration::from_millis(10));
        };
        assert_eq!(status.code(), Some(0), "{signal}");
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn members_and_coordinators_end_on_sigterm_as_on_ctrl_c() {
    for signal in ["-TERM", "-INT"] {
        let dir = tempfile::tempdir().unwrap();
        let [data, worker, checker] =
            ["data", "worker", "checker"].map(|name| dir.path().join(name));
        let listen = [
            "coordinator",
            "--listen",
            "127.0.0.1:0",
            "--data-dir",
            text(&data),
        ];
        let (coordinator, listening) = Started::new(&listen);
        let url = listening["url"].as_str().unwrap();
        let to = |role, dir| [role, "--coordinator", url, "--threads", "1", "--dir", dir];
        let (worker, _) = Started::new(&to("worker", text(&worker)));
        let (checker, _) = Started::new(&to("checker", text(&checker)));
        joined(url, "\"worker\"");
        joined(url, "\"checker\"");
        worker.ends_well_on(signal);
        checker.ends_well_on(signal);
        coordinator.ends_well_on(signal);
    }
}
