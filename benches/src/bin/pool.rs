//! A pool of real processes on this machine: step time of one worker against two stages and two
//! replicas on loopback, and how long a kill -9 keeps the job from its next step.
//!
//! ```text
//! cargo build --release && cargo run --release --manifest-path benches/Cargo.toml --bin pool
//! ```

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use anyhow::Context;
use clap::Parser;
use concord_kernels::Tensor;
use concord_kernels::rng::Philox;
use concord_models::config::DecoderConfig;
use concord_models::export::{ExportDtype, write_tensors};
use serde_json::Value;

#[derive(Parser)]
struct Args {
    /// The program.
    #[arg(long, default_value = "target/release/concord")]
    program: PathBuf,
    /// Steps of each run.
    #[arg(long, default_value_t = 12)]
    steps: u32,
}

const CONFIG: &str = r#"{"architectures":["LlamaForCausalLM"],"model_type":"llama",
"hidden_act":"silu","hidden_size":384,"intermediate_size":1024,"num_hidden_layers":8,
"num_attention_heads":6,"num_key_value_heads":6,"vocab_size":8192,"max_position_embeddings":512,
"rms_norm_eps":1e-6,"rope_theta":10000.0,"tie_word_embeddings":false}"#;
const SEQUENCE: usize = 256;
const MICROBATCHES: usize = 4;

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let dir = std::env::temp_dir().join(format!("concord-pool-bench-{}", std::process::id()));
    make_model(&dir)?;
    make_tokens(&dir, args.steps as usize)?;
    make_job(&dir, args.steps)?;
    println!("20M-parameter Llama, LoRA r 16, {MICROBATCHES} microbatches of {SEQUENCE} tokens");
    for (what, workers, plan) in
        [("1 worker", 1, "1x1"), ("2 stages", 2, "2x1"), ("2 replicas", 2, "1x2")]
    {
        let pool = Pool::start(&args.program, &dir, what, workers)?;
        let steps = pool.run(&dir, plan, None)?;
        println!("{what:12} {:7.1} ms a step (one thread each)", median(steps.times_ms));
    }
    let mut pool = Pool::start(&args.program, &dir, "kill", 3)?;
    let victim = pool.members.len() - 1;
    let steps = {
        let child = pool.members.remove(victim);
        pool.run(&dir, "3x1", Some(child))?
    };
    println!(
        "kill -9: noticed after {:.0} ms, next step committed after {:.0} ms more \
         (a step takes {:.0} ms)",
        steps.detected_ms,
        steps.recovered_ms,
        median(steps.times_ms)
    );
    std::fs::remove_dir_all(&dir)?;
    Ok(())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn make_model(dir: &Path) -> anyhow::Result<()> {
    let folder = dir.join("model");
    std::fs::create_dir_all(&folder)?;
    std::fs::write(folder.join("config.json"), CONFIG)?;
    let config = DecoderConfig::from_json(CONFIG)?;
    let mut tensors = BTreeMap::new();
    for (index, spec) in config.tensors().into_iter().enumerate() {
        let stream = Philox::new(1, index as u64);
        let is_norm = spec.shape.len() == 1;
        let value = |i| if is_norm { 1.0 } else { (stream.unit(i) - 0.5) * 0.07 };
        let len = spec.shape.iter().product::<usize>() as u64;
        let values: Vec<f32> = (0..len).map(value).collect();
        tensors.insert(spec.name, Tensor::new(&spec.shape, values)?);
    }
    write_tensors(&folder.join("model.safetensors"), &tensors, |_| ExportDtype::F32)?;
    Ok(())
}

/// A file of random token ids, `[step, microbatch, 1, sequence]`, as `type: tokens` takes it.
fn make_tokens(dir: &Path, steps: usize) -> anyhow::Result<()> {
    let stream = Philox::new(2, 0);
    let count = steps * MICROBATCHES * SEQUENCE;
    let ids = (0..count as u64).flat_map(|i| i64::from(stream.words(i)[0] % 8192).to_le_bytes());
    let header = format!(
        r#"{{"tokens":{{"dtype":"I64","shape":[{steps},{MICROBATCHES},1,{SEQUENCE}],"data_offsets":[0,{}]}}}}"#,
        8 * count
    );
    let header = format!("{header:<width$}", width = header.len().next_multiple_of(8));
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.into_bytes());
    bytes.extend(ids);
    std::fs::write(dir.join("tokens.safetensors"), bytes)?;
    Ok(())
}

fn make_job(dir: &Path, steps: u32) -> anyhow::Result<()> {
    let text = format!(
        "base_model: {0}/model\ndatasets: [{{path: {0}/tokens.safetensors, type: tokens}}]\n\
         adapter: lora\nlora_r: 16\nlora_alpha: 32\nsequence_len: {SEQUENCE}\n\
         micro_batch_size: 1\ngradient_accumulation_steps: {MICROBATCHES}\nmax_steps: {steps}\n\
         learning_rate: 1e-4\nsave_steps: 1\noutput_dir: {0}/out\n",
        dir.display()
    );
    std::fs::write(dir.join("job.yaml"), text)?;
    Ok(())
}

struct Pool {
    program: PathBuf,
    url: String,
    coordinator: Child,
    members: Vec<Child>,
}

struct Steps {
    times_ms: Vec<f64>,
    detected_ms: f64,
    recovered_ms: f64,
}

impl Pool {
    fn start(program: &Path, dir: &Path, name: &str, workers: usize) -> anyhow::Result<Self> {
        let dir = dir.join(name.replace(' ', "-"));
        let mut coordinator = Command::new(program)
            .args(["--json", "coordinator", "--listen", "127.0.0.1:0", "--data-dir"])
            .arg(dir.join("coordinator"))
            .stdout(Stdio::piped())
            .spawn()
            .context("build the program first: cargo build --release")?;
        let mut line = String::new();
        BufReader::new(coordinator.stdout.take().expect("piped")).read_line(&mut line)?;
        let listening: Value = serde_json::from_str(&line)?;
        let url = listening["url"].as_str().context("no address")?.to_string();
        let mut members = Vec::new();
        // One more than is needed where one is to be killed: it takes over.
        let spares = usize::from(name == "kill");
        for index in 0..workers + spares {
            members.push(
                Command::new(program)
                    .args(["worker", "--threads", "1", "--coordinator", &url, "--dir"])
                    .arg(dir.join(format!("worker-{index}")))
                    .stdout(Stdio::null())
                    .spawn()?,
            );
        }
        Ok(Self { program: program.to_path_buf(), url, coordinator: coordinator, members })
    }

    /// Runs the job; kills `victim` in the middle, if there is one.
    fn run(&self, dir: &Path, plan: &str, mut victim: Option<Child>) -> anyhow::Result<Steps> {
        let workers = (self.members.len() + usize::from(victim.is_some())).to_string();
        let mut train = Command::new(&self.program)
            .args(["--json", "train", "--coordinator", &self.url, "--plan", plan])
            .args(["--min-workers", &workers, "--audit-rate", "0"])
            // One job over several pools: its result is there from the first one on.
            .arg("--overwrite")
            .arg(dir.join("job.yaml"))
            .stdout(Stdio::piped())
            .spawn()?;
        let mut steps = Steps { times_ms: Vec::new(), detected_ms: 0.0, recovered_ms: 0.0 };
        let (mut killed, mut noticed): (Option<Instant>, Option<Instant>) = (None, None);
        for line in BufReader::new(train.stdout.take().expect("piped")).lines() {
            let event: Value = serde_json::from_str(&line?)?;
            match event["event"].as_str() {
                Some("step") => {
                    if let Some(at) = noticed.filter(|_| event["step"].as_u64() >= Some(5)) {
                        noticed = None;
                        steps.recovered_ms = at.elapsed().as_secs_f64() * 1e3;
                    } else if noticed.is_none() && event["step"] != 0 {
                        steps.times_ms.push(event["micros"].as_f64().unwrap_or(0.0) / 1e3);
                    }
                    if event["step"] == 4
                        && let Some(mut victim) = victim.take()
                    {
                        victim.kill()?;
                        victim.wait()?;
                        killed = Some(Instant::now());
                    }
                }
                Some("lost") => {
                    if let Some(at) = killed.take() {
                        steps.detected_ms = at.elapsed().as_secs_f64() * 1e3;
                        noticed = Some(Instant::now());
                    }
                }
                Some("failed" | "error") => anyhow::bail!("{event}"),
                _ => {}
            }
        }
        train.wait()?;
        Ok(steps)
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        for child in self.members.iter_mut().chain([&mut self.coordinator]) {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
