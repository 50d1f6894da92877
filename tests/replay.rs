//! `concord verify --replay`: what a pool has done is computed again on one machine, with nobody's
//! word, and what is false is found.

mod pool;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use pool::{PROGRAM, Pool, Ran, outcome, run, run_command, shared, small_job};
use serde_json::{Value, json};

const ONE: &[&str] = &["--threads", "1"];
const PORTABLE: &[&str] = &["--threads", "1", "--isa", "portable"];

/// A job that is done.
struct Done {
    pool: Pool,
    job: PathBuf,
    out: PathBuf,
}

impl Done {
    /// A small job on two workers.
    fn on_two(shared: &Path, steps: u32, more: &str, full: bool, train: &[&str]) -> Self {
        let mut pool = Pool::new();
        pool.join("worker", ONE);
        pool.join("worker", PORTABLE);
        let train = [&["--min-workers", "2"], train].concat();
        Self::on(pool, shared, steps, more, full, &train)
    }

    fn on(pool: Pool, shared: &Path, steps: u32, more: &str, full: bool, train: &[&str]) -> Self {
        let job = small_job(pool.dir.path(), shared, steps, 3, more);
        if full {
            let text = fs::read_to_string(&job).unwrap();
            let text = text.replace("adapter: lora\nlora_r: 4\n", "adapter: full\n");
            fs::write(&job, text).unwrap();
        }
        let result = outcome(&pool.train(&job, train)).result;
        let out = PathBuf::from(result["output_dir"].as_str().unwrap());
        Self { pool, job, out }
    }

    fn verify(&self, more: &[&str]) -> Ran {
        let proof = self.out.join("proof");
        run(&[&["--json", "verify", text(&proof)], more].concat())
    }

    /// Verifies with a replay of `count` segments.
    fn replay(&self, count: &str, more: &[&str]) -> Ran {
        let replay = ["--replay", count, "--job", text(&self.job)];
        self.verify(&[&replay, ONE, more].concat())
    }

    /// The files of the states of the proof.
    fn states(&self) -> Vec<PathBuf> {
        let folder = fs::read_dir(self.out.join("proof/states")).unwrap();
        let mut files: Vec<PathBuf> = folder.map(|entry| entry.unwrap().path()).collect();
        files.sort();
        files.retain(|path| !path.ends_with("states.json"));
        files
    }

    fn index(&self) -> Value {
        let text = fs::read(self.out.join("proof/states/states.json")).unwrap();
        serde_json::from_slice::<Value>(&text).unwrap()["updates"].clone()
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// The last object of this kind.
fn object(ran: &Ran, event: &str) -> Value {
    let objects = ran.stdout.lines();
    let objects = objects.map(|line| serde_json::from_str::<Value>(line).unwrap());
    let mut named = objects.filter(|object| object["event"] == event);
    let last = named.next_back();
    last.unwrap_or_else(|| panic!("no {event} in {ran:#?}"))
}

/// What the replay of a proven job says of itself.
#[track_caller]
fn proven(ran: &Ran) -> Value {
    assert_eq!(ran.code, Some(0), "{ran:#?}");
    object(ran, "verified")["replay"].clone()
}

#[test]
fn a_job_with_evaluations_and_dropout_is_replayed_from_its_states() {
    let Some(shared) = shared() else { return };
    let more = "replay_steps: 4\nlora_dropout: 0.1\nval_set_size: 0.1\neval_steps: 3\n\
                eval_on_start: true\nload_best_model_at_end: true";
    let done = Done::on_two(&shared, 12, more, false, &["--plan", "2x1"]);
    assert_eq!(done.index(), json!([4, 8]), "the end is no beginning");
    let whole = proven(&done.replay("all", &["--model", text(&done.out)]));
    assert_eq!(
        (&whole["segments"], &whole["agreed"], &whole["steps"]),
        (&json!(3), &json!(3), &json!(12 + 5)),
        "{whole}"
    );
    assert_eq!(whole["unseen_one"], 0.0);
    assert!(whole["job_seconds"].as_f64().unwrap() > 0.0);

    // One segment, by chance: what goes unseen is said, and the seed repeats the draw.
    let ran = done.replay("1", &[]);
    let one = proven(&ran);
    assert_eq!((&one["drawn"], &one["agreed"]), (&json!(1), &json!(1)));
    let unseen = one["unseen_one"].as_f64().unwrap();
    assert!((unseen - 2.0 / 3.0).abs() < 1e-9, "{one}");
    assert_eq!(one["seen_99"], 3);
    let seed = one["seed"].as_str().unwrap();
    let again = done.replay("1", &["--replay-seed", seed, "--isa", "portable"]);
    proven(&again);
    let segment = |ran: &Ran| object(ran, "segment")["segment"].clone();
    assert_eq!(segment(&again), segment(&ran));

    // Without, the same proof is complete and no more.
    done.verify(&[]).unproven();
    damaged_and_missing_states_are_named(&done);
    another_model_or_other_data_are_refused_before_anything_is_computed(&done, &shared);
}

fn damaged_and_missing_states_are_named(done: &Done) {
    let file = done.states().swap_remove(5);
    let sound = fs::read(&file).unwrap();
    let mut changed = sound.clone();
    // The lowest bit of the last number.
    let at = changed.len() - 4;
    changed[at] ^= 1;
    fs::write(&file, &changed).unwrap();
    let ran = done.replay("all", &[]);
    ran.refused(&[
        "the state after step ",
        "of `",
        "is not the one that was signed",
    ]);
    // What is not drawn is not looked at.
    done.verify(&[]).unproven();

    fs::remove_file(&file).unwrap();
    let ran = done.replay("all", &[]);
    ran.unshown(&[
        "1 of 3 segments that were drawn cannot be replayed",
        "is missing",
    ]);
    let replay = object(&ran, "unproven")["replay"].clone();
    assert_eq!(
        (&replay["drawn"], &replay["agreed"]),
        (&json!(3), &json!(2))
    );
    let unseen = replay["unseen_one"].as_f64().unwrap();
    assert!(
        (unseen - 1.0 / 3.0).abs() < 1e-9,
        "it counts as failed: {replay}"
    );

    // With fewer states, segments are longer: nothing of the job is left out.
    let index = done.out.join("proof/states/states.json");
    let listed = fs::read(&index).unwrap();
    fs::write(&index, "{\"updates\": []}").unwrap();
    let whole = proven(&done.replay("1", &[]));
    assert_eq!(
        (&whole["segments"], &whole["steps"]),
        (&json!(1), &json!(17))
    );
    fs::write(&index, "{\"updates\": [40]}").unwrap();
    done.replay("1", &[])
        .unshown(&["states.json", "after step 40, and the job has 12"]);
    fs::write(&index, listed).unwrap();
    fs::write(&file, sound).unwrap();
    proven(&done.replay("all", &[]));
}

fn another_model_or_other_data_are_refused_before_anything_is_computed(done: &Done, shared: &Path) {
    let few = done.pool.dir.path().join("others.txt");
    fs::write(&few, "These are other lines. ".repeat(400)).unwrap();
    let few = format!("datasets.0.path={}", few.display());
    let model = format!("base_model={}", shared.join("models/tiny-qwen2").display());
    let cases: [(&[&str], &[&str]); 5] = [
        (
            &["--set", &few],
            &["is not the job of the proof", "its data are others"],
        ),
        (
            &["--set", &model],
            &[
                "is not the job of the proof",
                "its base model is another one",
            ],
        ),
        (
            &["--set", "seed=4"],
            &["is not the job of the proof", "its first state"],
        ),
        (
            &["--set", "datasets.0.path=/nowhere/at/all.txt"],
            &["a replay needs the base model", "/nowhere/at/all.txt"],
        ),
        (
            &["--set", "base_model=/nowhere/at/all"],
            &["a replay needs the base model", "/nowhere/at/all"],
        ),
    ];
    for (more, words) in cases {
        let ran = done.replay("all", more);
        ran.unshown(words);
        assert!(!ran.stdout.contains("\"segment\""), "{ran:#?}");
    }
    done.verify(&["--replay", "2"])
        .unshown(&["a replay needs the base model", "--job FILE"]);
}

#[test]
fn every_weight_and_moments_in_8_bits_are_replayed() {
    let Some(shared) = shared() else { return };
    for (more, full) in [
        ("replay_steps: 2", true),
        ("replay_steps: 2\noptimizer: adamw_8bit", true),
        ("replay_steps: 2\noptimizer: lion_8bit", false),
    ] {
        let done = Done::on_two(&shared, 5, more, full, &["--plan", "1x2"]);
        let whole = proven(&done.replay("all", &["--model", text(&done.out)]));
        assert_eq!(
            (&whole["segments"], &whole["agreed"]),
            (&json!(3), &json!(3)),
            "{more}: {whole}"
        );
    }
    // What the options of the command ask for comes first; of an adapter the base may be given by
    // itself. A full fine-tune looks like its base, which must not pass for the result.
    let none = ["--plan", "1x2", "--replay-steps", "0"];
    let done = Done::on_two(&shared, 3, "replay_steps: 1", true, &none);
    assert!(!done.out.join("proof/states").exists());
    let base = shared.join("models/tinystories-260k");
    let gone = ["--set", "base_model=/nowhere", "--model", text(&base)];
    let as_result = done.replay("1", &["--model", text(&base)]);
    assert_eq!(as_result.code, Some(1), "{as_result:#?}");
    assert!(
        as_result.stdout.contains("is not the one that was trained"),
        "{as_result:#?}"
    );
    let done = Done::on_two(&shared, 3, "replay_steps: 1", false, &none);
    let whole = proven(&done.replay("1", &gone));
    assert_eq!(
        (&whole["segments"], &whole["steps"]),
        (&json!(1), &json!(3))
    );
}

/// The states of steps that were done again are those of the proof.
#[test]
fn states_survive_crashes_of_coordinator_and_workers() {
    let Some(shared) = shared() else { return };
    let mut pool = Pool::new();
    for _ in 0..3 {
        pool.join("worker", ONE);
    }
    let job = small_job(
        pool.dir.path(),
        &shared,
        14,
        3,
        "replay_steps: 3\nsave_steps: 4",
    );
    let train = pool.train(&job, &["--plan", "2x1", "--min-workers", "3"]);
    let planned = train.until(|object| object["event"] == "planned");
    train.until(|object| object["event"] == "step" && object["step"] == 4);
    pool.kill_coordinator();
    pool.start_coordinator();
    train.until(|object| object["event"] == "step" && object["step"] == 8);
    let victim = planned["workers"][0]["worker"].clone();
    let index = (0..3).find(|&i| pool.key("worker", i) == victim);
    pool.members[index.unwrap()].kill();
    let result = outcome(&train).result;
    let out = PathBuf::from(result["output_dir"].as_str().unwrap());
    let done = Done { pool, job, out };
    assert_eq!(done.index(), json!([3, 6, 9, 12]));
    let whole = proven(&done.replay("all", &[]));
    assert_eq!(
        (&whole["segments"], &whole["agreed"]),
        (&json!(5), &json!(5))
    );
}

/// A pool that this command starts itself: the states are files of its store.
#[test]
fn the_states_of_a_pool_of_this_machine_are_kept() {
    let Some(shared) = shared() else { return };
    let dir = tempfile::tempdir().unwrap();
    let job = small_job(dir.path(), &shared, 6, 3, "replay_steps: 2");
    let train = |more: &[&str]| {
        let mut command = Command::new(PROGRAM);
        command.args(["--json", "train", text(&job), "--checkers", "0"]);
        run_command(command.args(more))
    };
    let told = object(&train(&["--dry-run"]), "dry_run");
    assert_eq!(told["replay_steps"], 2);
    // 35 pairs of factors of rank 4, each with two moments.
    assert!(told["replay_bytes"].as_u64().unwrap() > 0, "{told}");
    let longer = object(&train(&["--dry-run", "--set", "max_steps=4000"]), "dry_run");
    assert_eq!(longer["replay_steps"], 2, "{longer}");
    let usual = [
        "--dry-run",
        "--set",
        "max_steps=4000",
        "--set",
        "replay_steps=null",
    ];
    assert_eq!(object(&train(&usual), "dry_run")["replay_steps"], 200);

    let result = object(&train(&[]), "result");
    let out = PathBuf::from(result["output_dir"].as_str().unwrap());
    let proof = out.join("proof");
    let replay = [
        "verify",
        text(&proof),
        "--replay",
        "all",
        "--job",
        text(&job),
    ];
    let ran = run(&replay);
    assert_eq!(ran.code, Some(0), "{ran:#?}");
    for words in [
        "proven      job",
        "replay      3 of 3 segments computed again, 6 steps in",
        "; the job took",
        "shown       every step of the job",
    ] {
        assert!(ran.stdout.contains(words), "no {words:?} in {}", ran.stdout);
    }
    let open = ran
        .stdout
        .lines()
        .filter(|line| line.starts_with("not shown"));
    let open: Vec<&str> = open.collect();
    assert_eq!(
        open,
        [
            "not shown   that any weights are those of the result (--model RESULT compares them)",
            "not shown   whose ledger it is (--coordinator KEY compares)"
        ]
    );
    assert!(
        ran.stderr.contains("segment 2 of 3, steps 3 to 4: agrees"),
        "{ran:#?}"
    );
    // The same command finds its result as it was.
    assert_eq!(object(&train(&[]), "result")["already_done"], true);
}

/// All who have taken part lie, and nobody audits: the proof is whole, and false.
#[cfg(feature = "liars")]
#[test]
fn a_lie_of_all_is_found_in_its_segment() {
    let Some(shared) = shared() else { return };
    for (lie, field) in [
        ("wrong-data@5", "another loss"),
        ("skipped-step@5", "another state"),
    ] {
        let mut pool = Pool::new();
        for options in [ONE, PORTABLE] {
            pool.join("worker", &[options, &["--lie", lie]].concat());
        }
        let rates = ["--audit-rate", "0"];
        let train = [&["--min-workers", "2", "--plan", "1x2"][..], &rates].concat();
        let done = Done::on(pool, &shared, 6, "replay_steps: 2", false, &train);
        done.verify(&[])
            .unshown(&["complete, not proven", "nobody has audited it"]);
        let ran = done.replay("all", &[]);
        ran.refused(&[
            "step 6, computed here, has",
            field,
            "the first tensor that differs",
        ]);
        // Whoever draws other segments does not see it, and is told how likely that was.
        let seed = (0..50).map(|n| format!("{n:064x}")).find(|seed| {
            let ran = done.replay("2", &["--replay-seed", seed]);
            ran.code == Some(0)
        });
        let ran = done.replay("2", &["--replay-seed", &seed.unwrap()]);
        let unseen = proven(&ran)["unseen_one"].as_f64().unwrap();
        assert!((unseen - 1.0 / 3.0).abs() < 1e-9, "{ran:#?}");
    }
}
