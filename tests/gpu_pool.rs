//! Pools with GPUs, emulated ones: nobody can tell from a hash who did what, whatever befalls them.
#![cfg(feature = "emulator")]

mod pool;
#[path = "cli/tiny_model.rs"]
mod tiny_model;

use std::path::{Path, PathBuf};
use std::time::Duration;

use pool::{Outcome, Pool, Process, outcome};
use serde_json::{Value, json};
use tiny_model::TinyModel;

const CPU: &[&str] = &["--threads", "1"];
const GPU: &[&str] = &["--device", "emulated:80"];
const LAYERS: u32 = 3;
const STEPS: u32 = 5;
const SHORT: &str = "sequence_len: 8\nmicro_batch_size: 1";

/// A job of a few steps, each of which an emulated GPU does in well under a second.
struct Job {
    model: TinyModel,
    /// Lines of its file.
    more: &'static str,
    hash: String,
}

impl Job {
    /// The job and its hash, from a CPU alone.
    fn new(more: &'static str) -> Self {
        let model = TinyModel::new();
        model.configure("num_hidden_layers", json!(LAYERS));
        model.write_weights(|_, _| {});
        let hash = String::new();
        let mut job = Self { model, more, hash };
        job.hash = job.run(&[CPU], &[], |_, _| {}).hash();
        println!("the hash of the job: {}", job.hash);
        job
    }

    fn file(&self, dir: &Path) -> PathBuf {
        let text: Vec<String> = (0..1_600).map(|i| format!("w{}", 3 + i * i % 29)).collect();
        let data = dir.join("words.txt");
        std::fs::write(&data, text.join(" ")).unwrap();
        let path = dir.join("job.yaml");
        let job = format!(
            "base_model: {}\ndatasets: [{{path: {}, type: text}}]\nadapter: lora\nlora_r: 4\n\
             gradient_accumulation_steps: 2\nmax_steps: {STEPS}\nlearning_rate: 1e-2\nseed: 3\n\
             output_dir: {}\n{}\n",
            self.model.dir().display(),
            data.display(),
            dir.join("out").display(),
            self.more
        );
        std::fs::write(&path, job).unwrap();
        path
    }

    /// Runs the job over workers with these options.
    fn run(
        &self,
        workers: &[&[&str]],
        train: &[&str],
        meanwhile: impl FnOnce(&mut Pool, &Process),
    ) -> Outcome {
        let mut pool = Pool::new();
        for options in workers {
            pool.join("worker", options);
        }
        self.run_in(&mut pool, workers.len(), train, meanwhile)
    }

    fn run_in(
        &self,
        pool: &mut Pool,
        workers: usize,
        train: &[&str],
        meanwhile: impl FnOnce(&mut Pool, &Process),
    ) -> Outcome {
        let (file, workers) = (self.file(pool.dir.path()), workers.to_string());
        let all = [&["--min-workers", &workers], train].concat();
        let train = pool.train(&file, &all);
        meanwhile(pool, &train);
        outcome(&train)
    }

    /// Runs the job and compares its hash with that of the CPU.
    fn same(
        &self,
        what: &str,
        workers: &[&[&str]],
        train: &[&str],
        meanwhile: impl FnOnce(&mut Pool, &Process),
    ) -> Outcome {
        let outcome = self.run(workers, train, meanwhile);
        println!("{what}: {:.1} s", outcome.seconds);
        assert_eq!(outcome.hash(), self.hash, "{what}");
        outcome
    }
}

/// The slots of a plan that emulated GPUs have.
fn gpu_slots(planned: &Value) -> usize {
    let slots = planned["workers"].as_array().unwrap();
    let is_gpu = |slot: &&Value| slot["device"].as_str().unwrap().starts_with("emulated sm_");
    slots.iter().filter(is_gpu).count()
}

fn planned(train: &Process) -> Value {
    train.until(|object| object["event"] == "planned")
}

/// Waits for the next plan, in which so many slots must be GPUs.
fn with_gpus(count: usize) -> impl Fn(&mut Pool, &Process) {
    move |_: &mut Pool, train: &Process| {
        let planned = planned(train);
        assert_eq!(gpu_slots(&planned), count, "{planned}");
    }
}

fn step(train: &Process, step: u32) {
    train.until(|object| object["event"] == "step" && object["step"] == step);
}

/// Asserts that the first member is lost, and that the others go on without it.
fn first_is_lost(pool: &Pool, train: &Process) -> Value {
    let lost = train.until(|object| object["event"] == "lost");
    assert_eq!(lost["worker"], pool.key("worker", 0), "{lost}");
    let planned = planned(train);
    assert_eq!(gpu_slots(&planned), 0, "{planned}");
    lost
}

#[test]
fn gpus_give_the_hash_of_the_cpu() {
    let job = Job::new(SHORT);
    job.same(
        "1 GPU, sm_61",
        &[&["--device", "emulated:61"]],
        &[],
        with_gpus(1),
    );
    job.same("1 GPU, sm_80", &[GPU], &[], with_gpus(1));
    let two = ["--plan", "2x1"];
    job.same("GPU and CPU, 2 stages", &[GPU, CPU], &two, with_gpus(1));
    let half = &[GPU, &["--memory", "64M"]].concat()[..];
    job.same(
        "2 workers with half a GPU each",
        &[half, half],
        &two,
        with_gpus(2),
    );
}

#[test]
fn a_gpu_that_goes_leaves_the_hash_as_it_is() {
    let job = Job::new(SHORT);
    let three = ["--plan", "3x1"];
    job.same(
        "GPU killed in mid-step",
        &[GPU, CPU, CPU],
        &three,
        |pool, train| {
            with_gpus(1)(pool, train);
            step(train, 1);
            // Its part of the next step takes longer than the others' and than this.
            std::thread::sleep(Duration::from_millis(20));
            pool.members[0].kill();
            first_is_lost(pool, train);
        },
    );
    let lost = ["--device", "emulated:80:1500"];
    job.same(
        "GPU lost in mid-step",
        &[&lost, CPU, CPU],
        &three,
        |pool, train| {
            with_gpus(1)(pool, train);
            step(train, 0);
            let lost = first_is_lost(pool, train);
            assert!(
                lost["reason"].as_str().unwrap().contains("the GPU is lost"),
                "{lost}"
            );
            let end = pool.members[0].until(|object| object["event"] == "error");
            let error = end["error"].as_str().unwrap();
            assert!(error.contains("Start the worker again"), "{error}");
            assert!(!pool.members[0].ends_well());
        },
    );
}

/// The planner counts all that a stage takes: a GPU without room for any gets nothing to do.
#[test]
fn a_gpu_without_memory_leaves_the_job_to_others() {
    let job = Job::new(SHORT);
    let small = &[GPU, &["--memory", "192K"]].concat()[..];
    job.same("GPU without memory", &[small, CPU], &[], with_gpus(0));
}

#[test]
fn a_gpu_audits_cpus() {
    let job = Job::new(SHORT);
    let mut pool = Pool::new();
    for _ in 0..2 {
        pool.join("worker", CPU);
    }
    pool.join("checker", GPU);
    let train = ["--plan", "2x1", "--min-checkers", "1"];
    let rates = ["--audit-rate", "1"];
    let audited = job.run_in(&mut pool, 2, &[&train[..], &rates].concat(), |_, _| {});
    println!("a GPU audits CPUs: {:.1} s", audited.seconds);
    assert_eq!(audited.hash(), job.hash);
    assert_eq!(audited.convictions, []);
    assert_eq!(audited.result["inconclusive"], 0, "{}", audited.result);
    // Two stages: two microbatches forward and back, a sum, norms and an update.
    assert_eq!(audited.count("audited"), 2 * 7 * STEPS as usize);
}
