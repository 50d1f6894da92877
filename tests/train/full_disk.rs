//! A disk that is full, in the middle of a job or when its result is written: nothing that was
//! trained is lost.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::jobs::Home;

/// Steps of a job that takes longer than a disk is full.
const STEPS: u32 = 400;

/// Long enough for all that is under way, and for a look at the disk.
const A_WHILE: Duration = Duration::from_secs(3);

/// A file system of its own; none where the system does not let us mount one.
struct Disk(PathBuf);

impl Disk {
    fn mount(path: &Path, size: &str) -> Option<Self> {
        fs::create_dir_all(path).unwrap();
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
        let mut filler = fs::File::create(self.0.join("filler")).unwrap();
        while filler.write_all(&[0; 1 << 12]).is_ok() {}
    }

    fn make_room(&self) {
        fs::remove_file(self.0.join("filler")).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).output();
    }
}

#[test]
fn the_same_command_writes_the_result_once_there_is_room() {
    let home = Home::new();
    let Some(disk) = Disk::mount(&home.path("disk"), "8M") else {
        return;
    };
    let undisturbed = home.job("undisturbed", 150, "").run(&[]).result();
    let job = home.job("disk/out", 150, "");
    let state = home.path("state");
    let state = ["--pool-dir", state.to_str().unwrap()];
    let mut train = job.start(&state);
    train.until_step(4);
    disk.fill();
    let full = train.end();
    assert_eq!(full.code, Some(1), "{full:#?}");
    for words in [
        "the training is done and kept",
        "make room",
        "the same command",
    ] {
        assert!(full.stderr.contains(words), "no {words:?} in {full:#?}");
    }
    let names = job.entries();
    assert!(
        !names.contains(&"adapter_config.json".to_string()),
        "{names:?}"
    );
    disk.make_room();
    let written = job.run(&state).good();
    let steps: Vec<_> = written
        .objects
        .iter()
        .filter(|object| object["event"] == "step")
        .collect();
    assert_eq!(
        steps.len(),
        150,
        "they are told again, and none is done again"
    );
    let result = written.result();
    assert_eq!(result["record_digest"], undisturbed["record_digest"]);
    job.log_is_whole(150, &result);
}

#[test]
fn a_disk_without_room_for_the_result_is_refused() {
    let home = Home::new();
    let Some(_disk) = Disk::mount(&home.path("disk"), "256K") else {
        return;
    };
    let job = home.job("disk/out", 2, "");
    job.run(&[])
        .refused(&["output_dir", "the result takes", "make room"]);
}

/// Everything that a job writes is on a disk that fills up in its middle: it waits, and goes on by
/// itself once there is room.
#[test]
fn a_job_waits_for_room_on_a_disk_that_fills_up_in_its_middle() {
    let home = Home::new();
    let Some(disk) = Disk::mount(&home.path("disk"), "16M") else {
        return;
    };
    let undisturbed = home.job("undisturbed", STEPS, "").run(&[]).result();
    let job = home.job("disk/out", STEPS, "");
    let mut train = job.start(&[]);
    train.until_step(20);
    disk.fill();
    std::thread::sleep(A_WHILE);
    disk.make_room();
    let done = train.end().good();
    assert!(
        done.stderr.contains("no room is left on the disk of"),
        "{done:#?}"
    );
    let result = done.result();
    assert_eq!(result["record_digest"], undisturbed["record_digest"]);
    job.log_is_whole(u64::from(STEPS), &result);
}

/// The same, but somebody ends it while it waits.
#[test]
fn a_job_that_is_ended_on_a_full_disk_goes_on_once_there_is_room() {
    let home = Home::new();
    let Some(disk) = Disk::mount(&home.path("disk"), "16M") else {
        return;
    };
    let undisturbed = home.job("undisturbed", STEPS, "").run(&[]).result();
    let job = home.job("disk/out", STEPS, "");
    let mut train = job.start(&[]);
    train.until_step(20);
    disk.fill();
    std::thread::sleep(A_WHILE);
    train.signal("INT");
    let stopped = train.end();
    assert_eq!(stopped.code, Some(130), "{stopped:#?}");
    for words in [
        "no room is left on the disk of",
        "free some, nothing is lost",
        "the same command goes on",
    ] {
        assert!(
            stopped.stderr.contains(words),
            "no {words:?} in {stopped:#?}"
        );
    }
    let done = stopped.count("step");
    assert!(done < STEPS as usize, "it was to wait: {done} steps");
    // Without room the same command says so, and does not begin anew.
    let again = job.run(&[]);
    again.refused(&["cannot be written: make room on its disk"]);

    disk.make_room();
    let resumed = job.run(&[]).good();
    assert!(resumed.last_start() > 0, "it goes on: {resumed:#?}");
    let result = resumed.result();
    assert_eq!(result["record_digest"], undisturbed["record_digest"]);
    job.log_is_whole(u64::from(STEPS), &result);
}
