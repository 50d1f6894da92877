//! A proof of a job that had trouble on its way, and what is left of it after one byte is changed.

mod pool;

use std::fs;
use std::path::{Path, PathBuf};

use concord_verify::training::bundle::{self, Bundle, FILES};
use pool::{Pool, outcome, run, shared, small_job};
use serde_json::Value;

/// Bytes of each file that are flipped, one at a time, and checked by a process.
const FLIPS: usize = 12;
/// Bytes of each file that are flipped, one at a time, and checked in this process.
const MORE_FLIPS: usize = 150;

/// A job whose plan was changed in mid-run, because a worker was killed.
struct Job {
    pool: Pool,
    result: Value,
}

fn done(shared: &Path) -> Job {
    let mut pool = Pool::new();
    for _ in 0..2 {
        pool.join("worker", &["--threads", "1"]);
    }
    pool.join("checker", &["--threads", "1", "--isa", "portable"]);
    let job = small_job(pool.dir.path(), shared, 6, 3, "save_steps: 2");
    let options = ["--plan", "2x1", "--min-workers", "2", "--min-checkers", "1"];
    let rates = ["--audit-rate", "1"];
    let train = pool.train(&job, &[&options[..], &rates].concat());
    train.until(|object| object["event"] == "step" && object["step"] == 2);
    pool.members[0].kill();
    let result = outcome(&train).result;
    Job { pool, result }
}

#[test]
fn a_proof_holds_until_a_byte_of_it_is_changed() {
    let Some(shared) = shared() else { return };
    let job = done(&shared);
    the_proof_says_who_did_what(&job);
    a_flipped_byte_in_any_file_is_found(&job);
    many_flipped_bytes_are_each_found(&job);
    a_missing_a_cut_and_a_longer_file_are_named(&job);
    a_changed_weight_is_named(&job);
}

impl Job {
    fn out(&self) -> PathBuf {
        self.result["output_dir"].as_str().unwrap().into()
    }

    /// A copy of what the job wrote, for a test to spoil.
    fn copy(&self, name: &str) -> PathBuf {
        let to = self.pool.dir.path().join(name);
        copy(&self.out(), &to);
        to
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let (from, to) = (
            entry.as_ref().unwrap().path(),
            to.join(entry.unwrap().file_name()),
        );
        if from.is_dir() {
            copy(&from, &to);
        } else {
            fs::copy(from, to).unwrap();
        }
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Positions spread over a file: its first and last byte, and between them no regular grid. Where
/// nothing was void, the file of void claims is empty.
fn positions(len: usize, count: usize) -> impl Iterator<Item = usize> {
    let last = len.checked_sub(1);
    last.into_iter().flat_map(move |last| {
        let between = (1..count - 1).map(move |i| (i * len / count + i * 7_919) % len);
        [0, last].into_iter().chain(between)
    })
}

fn the_proof_says_who_did_what(job: &Job) {
    let out = job.out();
    let proof = out.join("proof");
    let report = |more: &[&str]| {
        let ran = run(&[&["--json", "verify", text(&proof)], more].concat());
        let report = ran.stdout.lines().next().unwrap_or_default().to_string();
        (ran, serde_json::from_str::<Value>(&report).unwrap())
    };
    // Whoever names the coordinator alone has to believe checkers that it chose.
    let checker = job.pool.key("checker", 2);
    let (ran, told) = report(&["--checker", &checker]);
    assert_eq!(ran.code, Some(0), "{ran:#?}");
    let coordinator = told["coordinator"].as_str().unwrap().to_string();
    report(&["--coordinator", &coordinator]).0.unproven();
    let stranger = job.pool.key("worker", 0);
    let (ran, told) = report(&["--coordinator", &coordinator, "--checker", &stranger]);
    ran.unshown(&[&stranger[..8]]);
    assert_eq!(told["event"], "unproven", "{told}");
    run(&["verify", text(&proof), "--coordinator", &stranger])
        .refused(&["--coordinator asks for", &stranger]);
    let ran = run(&[
        "verify",
        text(&out.join("proof")),
        "--model",
        text(&out),
        "--checker",
        &checker,
        "--coordinator",
        &coordinator,
        "--json",
    ]);
    assert_eq!(ran.code, Some(0), "{ran:#?}");
    let report: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(report["record_digest"], job.result["record_digest"]);
    assert_eq!(report["steps"], 6);
    let shares = report["workers"].as_array().unwrap();
    let keys = [job.pool.key("worker", 0), job.pool.key("worker", 1)];
    assert!(
        shares
            .iter()
            .all(|share| keys.iter().any(|key| share["worker"] == **key)),
        "{report}"
    );
    let own = &report["checkers"][0];
    assert_eq!(own["checker"], checker);
    // What the killed worker had was not re-run.
    let [agreed, drawn] = ["agreed", "drawn"].map(|key| own[key].as_u64().unwrap());
    assert!(0 < agreed && agreed <= drawn, "{own}");
    assert_eq!(report["audits_agreed"], agreed);
    assert_eq!(report["convicted"], serde_json::json!([]));
    // The ledger is the one that the worker which stayed and the checker saw.
    let seen = |name: &str| job.pool.dir.path().join(name);
    let folders = ["worker-1", "checker-2"].map(seen);
    let [worker, checker] = folders.each_ref().map(|folder| text(folder));
    let ran = run(&[
        "verify",
        text(&proof),
        "--heads",
        worker,
        "--heads",
        checker,
    ]);
    ran.unproven();
    let words = "the one that 2 parties have kept, up to entry";
    assert!(ran.stdout.contains(words), "{}", ran.stdout);
    // A folder without heads of the job shows nothing.
    let empty = seen("empty");
    fs::create_dir(&empty).unwrap();
    run(&["verify", text(&proof), "--heads", text(&empty)]).unshown(&["--heads", "of this job"]);
}

fn a_flipped_byte_in_any_file_is_found(job: &Job) {
    let proof = job.copy("flipped").join("proof");
    for name in FILES {
        let path = proof.join(name);
        let sound = fs::read(&path).unwrap();
        for at in positions(sound.len(), FLIPS) {
            let mut flipped = sound.clone();
            flipped[at] ^= 1 << (at % 8);
            fs::write(&path, &flipped).unwrap();
            let ran = run(&["verify", text(&proof), "--json"]);
            ran.refused(&[name]);
            let object: Value = serde_json::from_str(ran.stdout.lines().next().unwrap()).unwrap();
            let what = (&object["event"], &object["file"]);
            assert_eq!(
                what,
                (&"refuted".into(), &name.into()),
                "byte {at}: {object}"
            );
            for key in ["statement", "reason"] {
                assert_ne!(
                    object[key].as_str().unwrap_or_default(),
                    "",
                    "byte {at}: {object}"
                );
            }
        }
        fs::write(&path, &sound).unwrap();
    }
    // It is sound again.
    run(&["verify", text(&proof)]).unproven();
}

fn many_flipped_bytes_are_each_found(job: &Job) {
    let proof = job.out().join("proof");
    let read = |name: &&str| (name.to_string(), fs::read(proof.join(name)).unwrap());
    let sound: Vec<(String, Vec<u8>)> = FILES.iter().map(read).collect();
    for (index, name) in FILES.iter().enumerate() {
        let len = sound[index].1.len();
        for at in positions(len, MORE_FLIPS) {
            let mut files = sound.clone();
            files[index].1[at] ^= 1 << ((at / 3) % 8);
            let found = Bundle::from_files(&files).and_then(|bundle| bundle::verify(&bundle));
            let error = found.expect_err(&format!("{name}, byte {at} of {len}"));
            assert_eq!(error.file, *name, "byte {at} of {len}: {error}");
        }
    }
}

fn a_missing_a_cut_and_a_longer_file_are_named(job: &Job) {
    let proof = job.copy("missing").join("proof");
    for name in FILES {
        let path = proof.join(name);
        let sound = fs::read(&path).unwrap();
        fs::remove_file(&path).unwrap();
        run(&["verify", text(&proof)]).refused(&[name, "missing"]);
        if let Some(shorter) = sound.len().checked_sub(1) {
            fs::write(&path, &sound[..shorter]).unwrap();
            run(&["verify", text(&proof)]).refused(&[name]);
        }
        fs::write(&path, [&sound[..], &[0]].concat()).unwrap();
        run(&["verify", text(&proof)]).refused(&[name]);
        // Who drops what was void only shows less.
        if name != "claims.void" {
            fs::write(&path, b"").unwrap();
            run(&["verify", text(&proof)]).refused(&[name]);
        }
        fs::write(&path, &sound).unwrap();
    }
}

fn a_changed_weight_is_named(job: &Job) {
    let out = job.copy("weights");
    let path = out.join("adapter_model.safetensors");
    let sound = fs::read(&path).unwrap();
    let header = u64::from_le_bytes(sound[..8].try_into().unwrap()) as usize;
    let tensors: Value = serde_json::from_slice(&sound[8..8 + header]).unwrap();
    let tensors = tensors
        .as_object()
        .unwrap()
        .iter()
        .filter(|(name, _)| *name != "__metadata__");
    for (name, tensor) in tensors.step_by(9) {
        let mut changed = sound.clone();
        // The lowest bit of the first number.
        changed[8 + header + tensor["data_offsets"][0].as_u64().unwrap() as usize] ^= 1;
        fs::write(&path, &changed).unwrap();
        let ran = run(&["verify", text(&out.join("proof")), "--model", text(&out)]);
        ran.refused(&[
            "adapter_model.safetensors",
            &format!("`{name}`"),
            "not the one",
        ]);
    }
}
