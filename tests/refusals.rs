//! What cannot be done is refused with its cause and its remedy: never a hang, never a panic.

mod pool;

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use concord_proto::address::Address;
use concord_proto::session::{DeviceInfo, Hello, Role, ToCoordinator, ToWorker};
use concord_proto::wire::Envelope;
use concord_proto::wire::coordinator_client::CoordinatorClient;
use concord_proto::{ARITHMETIC_VERSION, Keypair, PROTOCOL_VERSION, Signed, link};
use pool::{Pool, outcome, run, shared, small_job};
use tokio_stream::wrappers::ReceiverStream;

/// An address at which nobody listens.
fn nobody() -> String {
    TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .to_string()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn ports_and_folders_in_use_are_named() {
    let mut pool = Pool::new();
    pool.join("worker", &["--threads", "1"]);
    pool.key("worker", 0);
    let address = &*pool.address();
    let (data, own) = (
        pool.dir.path().join("coordinator"),
        pool.dir.path().join("own"),
    );
    let (data, own) = (text(&data), text(&own));
    let coordinator = |listen, data| run(&["coordinator", "--listen", listen, "--data-dir", data]);
    coordinator(address, own).refused(&[address, "in use", "--listen"]);
    coordinator("127.0.0.1:0", data).refused(&[data, "in use by another coordinator", "stop it"]);

    let to = ["--coordinator", &pool.url];
    let worker = |more: &[&str]| run(&[&["worker"], &to[..], more].concat());
    worker(&["--dir", own, "--listen", address]).refused(&[address, "in use", "--listen"]);
    let held = pool.dir.path().join("worker-0");
    worker(&["--dir", text(&held)]).refused(&[text(&held), "in use", "--dir"]);
    run(&[&["checker"], &to[..], &["--dir", text(&held)]].concat()).refused(&[
        text(&held),
        "in use",
        "--dir",
    ]);
}

#[test]
fn a_coordinator_out_of_reach_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let url = format!("concord://{}", nobody());
    let words = [
        &*url,
        "no coordinator at",
        "concord coordinator",
        "Connection refused",
    ];
    // Both try for a while: the processes of a pool may be started in any order.
    let member = |role: &'static str| {
        let (url, dir) = (url.clone(), dir.path().join(role));
        std::thread::spawn(move || run(&[role, "--coordinator", &url, "--dir", text(&dir)]))
    };
    let members = ["worker", "checker"].map(member);
    if let Some(shared) = shared() {
        let job = small_job(dir.path(), &shared, 2, 0, "");
        run(&["train", text(&job), "--coordinator", &url]).refused(&words);
    }
    members
        .into_iter()
        .for_each(|member| member.join().unwrap().refused(&words));
}

/// Says hello as a worker with these versions; gives the coordinator's answer.
fn hello(url: &str, protocol: u32, arithmetic: u32) -> ToWorker {
    let key = Keypair::from_secret([7; 32]);
    let device = DeviceInfo {
        name: "cpu".to_string(),
        macs_per_second: 1,
        memory_bytes: 1 << 30,
    };
    let endpoint = "concord://127.0.0.1:1".to_string();
    let talk = async {
        let address = Address::parse(url).unwrap();
        let channel = link::connect(&address, &key).await.unwrap();
        let mut client = CoordinatorClient::new(channel);
        let (said, saying) = tokio::sync::mpsc::channel::<Envelope>(2);
        let mut heard = client
            .session(ReceiverStream::new(saying))
            .await
            .unwrap()
            .into_inner();
        let mut next = async || {
            let envelope = heard.message().await.unwrap().expect("an answer");
            Signed::try_from(envelope)
                .unwrap()
                .open::<ToWorker>()
                .unwrap()
        };
        let ToWorker::Challenge { nonce: challenge } = next().await else {
            panic!("no challenge");
        };
        let (role, held) = (Role::Worker, None);
        let hello = Hello {
            role,
            protocol,
            arithmetic,
            device,
            endpoint,
            held,
            challenge,
        };
        let hello = Signed::new(&key, &ToCoordinator::Hello(hello));
        said.send(hello.into()).await.unwrap();
        next().await
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let patience = Duration::from_secs(20);
        tokio::time::timeout(patience, talk)
            .await
            .expect("an answer in time")
    })
}

#[test]
fn another_release_is_refused_by_its_version() {
    let pool = Pool::new();
    for (protocol, arithmetic, words) in [
        (
            PROTOCOL_VERSION + 7,
            ARITHMETIC_VERSION,
            format!("protocol version {}", PROTOCOL_VERSION + 7),
        ),
        (
            PROTOCOL_VERSION,
            ARITHMETIC_VERSION + 9,
            format!("arithmetic version {}", ARITHMETIC_VERSION + 9),
        ),
    ] {
        let ToWorker::Refused { reason } = hello(&pool.url, protocol, arithmetic) else {
            panic!("{words} is taken in");
        };
        assert!(
            reason.contains(&words) && reason.contains("same release"),
            "{reason}"
        );
    }
    let welcome = hello(&pool.url, PROTOCOL_VERSION, ARITHMETIC_VERSION);
    assert!(matches!(welcome, ToWorker::Welcome { .. }), "{welcome:?}");
}

#[test]
fn too_little_memory_is_told_with_what_would_help() {
    let Some(shared) = shared() else { return };
    let mut pool = Pool::new();
    pool.join("worker", &["--threads", "1", "--memory", "1K"]);
    let job = small_job(pool.dir.path(), &shared, 2, 0, "");
    let train = pool.train(&job, &[]);
    let waiting = train.until(|object| {
        object["event"] == "waiting" && object["for"].as_str().unwrap().contains("memory")
    });
    let why = waiting["for"].as_str().unwrap();
    assert!(
        why.contains("no plan fits") && why.contains("more on each"),
        "{why}"
    );
    // `concord jobs` says so, too, to those who ask later.
    let jobs = run(&["jobs", "--coordinator", &pool.url, "--json"]);
    assert!(jobs.stdout.contains("no plan fits"), "{jobs:?}");
    // What would help does help.
    pool.join("worker", &["--threads", "1", "--memory", "1G"]);
    assert_eq!(outcome(&train).result["steps"], 2);
}

/// A file system of its own for a coordinator; none where the system does not let us mount one.
struct Disk(PathBuf);

impl Disk {
    fn mount(path: &Path, size: &str) -> Option<Self> {
        std::fs::create_dir_all(path).unwrap();
        let options = format!("size={size}");
        let mut mount = Command::new("mount");
        mount
            .args(["-t", "tmpfs", "-o", &options, "tmpfs"])
            .arg(path);
        let mounted = mount.output().is_ok_and(|output| output.status.success());
        if !mounted {
            println!("skipped: this system does not let the test mount a small disk");
        }
        mounted.then(|| Self(path.to_path_buf()))
    }

    /// Leaves no room.
    fn fill(&self) {
        let chunk = vec![0; 1 << 12];
        let mut filler = std::fs::File::create(self.0.join("filler")).unwrap();
        while std::io::Write::write_all(&mut filler, &chunk).is_ok() {}
    }

    fn make_room(&self) {
        std::fs::remove_file(self.0.join("filler")).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).output();
    }
}

/// What is on the disk that is full for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Full {
    /// Everything that the coordinator keeps: it waits.
    All,
    /// The same, and the coordinator is killed meanwhile.
    AllAndKilled,
    /// Checkpoints alone.
    Checkpoints,
}

/// Runs a job while a disk is full. Gives its hash, and how many steps were told after there was
/// room again; nothing where the system does not let us mount a disk.
fn on_a_full_disk(shared: &Path, steps: u32, full: Full) -> Option<(String, usize)> {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("coordinator");
    let place = if full == Full::Checkpoints {
        data.join("blobs")
    } else {
        data.clone()
    };
    let disk = Disk::mount(&place, "64M")?;
    let mut pool = Pool::within(dir);
    // Unmounted before the folder is removed.
    let disk = disk;
    pool.join("worker", &["--threads", "1"]);
    let job = small_job(pool.dir.path(), shared, steps, 5, "save_steps: 20");
    let train = pool.train(&job, &[]);
    train.until(|object| object["event"] == "step" && object["step"] == 4);
    disk.fill();
    if full == Full::Checkpoints {
        let lost = train.until(|object| object["event"] == "lost");
        assert!(
            lost["reason"].as_str().unwrap().contains("no room is left"),
            "{lost}"
        );
    }
    std::thread::sleep(Duration::from_secs(1));
    if full == Full::AllAndKilled {
        // The next coordinator starts and waits for room, too.
        pool.kill_coordinator();
        pool.start_coordinator();
        std::thread::sleep(Duration::from_secs(1));
    }
    disk.make_room();
    let done = outcome(&train);
    assert_eq!(done.convictions, []);
    Some((done.hash(), done.count("step")))
}

#[test]
fn a_full_disk_loses_nothing() {
    let Some(shared) = shared() else { return };
    let steps = 80;
    let undisturbed = {
        let mut pool = Pool::new();
        pool.join("worker", &["--threads", "1"]);
        let job = small_job(pool.dir.path(), &shared, steps, 5, "");
        outcome(&pool.train(&job, &[])).hash()
    };
    for full in [Full::All, Full::AllAndKilled, Full::Checkpoints] {
        let Some((hash, done)) = on_a_full_disk(&shared, steps, full) else {
            return;
        };
        assert_eq!(hash, undisturbed);
        println!("full: {full:?}; {done} of {steps} steps done after that");
        assert!(done < steps as usize + 20, "{done}");
    }
}
