//! Training tokens a second of one worker's arithmetic: a Llama of random weights, LoRA r = 16 on
//! all projections, against torch + peft in f32 in the same run.
//!
//! ```text
//! cargo run --release --manifest-path benches/Cargo.toml --bin train -- \
//!     --shape 341m --threads 1 --torch-python /path/to/python
//! ```

mod ours;

use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use clap::{Parser, ValueEnum};

#[derive(Parser)]
struct Args {
    /// Which model.
    #[arg(long, value_enum, default_value = "20m")]
    shape: Size,
    /// Threads of both.
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// Rounds; the median counts.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Python with torch, transformers and peft; without, only ours is timed.
    #[arg(long)]
    torch_python: Option<PathBuf>,
    /// Time the digests that commitments need against the step, instead.
    #[arg(long)]
    commitments: bool,
}

/// Shape of the model and of a round: one microbatch forward and back, and an update.
pub struct ModelShape {
    pub hidden: usize,
    pub intermediate: usize,
    pub layers: usize,
    pub heads: usize,
    pub kv_heads: usize,
    pub vocab: usize,
    pub rank: usize,
    pub sequences: usize,
    pub sequence_len: usize,
}

/// The models, by their parameters.
#[derive(Clone, Copy, ValueEnum)]
enum Size {
    #[value(name = "20m")]
    M20,
    #[value(name = "341m")]
    M341,
    /// The shape of TinyLlama.
    #[value(name = "1.1b")]
    B1,
}

impl Size {
    fn shape(self) -> ModelShape {
        match self {
            Self::M20 => ModelShape {
                hidden: 384,
                intermediate: 1024,
                layers: 8,
                heads: 6,
                kv_heads: 6,
                vocab: 8192,
                rank: 16,
                sequences: 2,
                sequence_len: 512,
            },
            Self::M341 => ModelShape {
                hidden: 1024,
                intermediate: 2736,
                layers: 24,
                heads: 16,
                kv_heads: 16,
                vocab: 32000,
                rank: 16,
                sequences: 1,
                sequence_len: 512,
            },
            Self::B1 => ModelShape {
                hidden: 2048,
                intermediate: 5632,
                layers: 22,
                heads: 32,
                kv_heads: 4,
                vocab: 32000,
                rank: 16,
                sequences: 1,
                sequence_len: 512,
            },
        }
    }
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let shape = args.shape.shape();
    let mut ours = ours::Trainer::new(&shape, args.threads);
    if args.commitments {
        return commitments(&mut ours, args.rounds);
    }
    let mut rival = match &args.torch_python {
        Some(python) => Some(Rival::start(python, &shape, args.threads)?),
        None => None,
    };
    let tokens = (shape.sequences * shape.sequence_len) as f64;
    ours.step();
    let (mut mine, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..args.rounds {
        let start = std::time::Instant::now();
        ours.step();
        mine.push(tokens / start.elapsed().as_secs_f64());
        if let Some(rival) = &mut rival {
            theirs.push(tokens / rival.step()?);
        }
    }
    let mine = median(&mut mine);
    println!("threads {}: concord {mine:.0} tokens/s", args.threads);
    if rival.is_some() {
        let theirs = median(&mut theirs);
        println!("threads {}: torch + peft {theirs:.0} tokens/s", args.threads);
        println!("ratio {:.2}", mine / theirs);
    }
    Ok(())
}

/// What a worker hashes in a step (the gradients of the microbatch, the sum, the new values and
/// moments, hidden states and gradient at a boundary) against the step itself, in turn.
fn commitments(ours: &mut ours::Trainer, rounds: usize) -> anyhow::Result<()> {
    let (mut steps, mut digests) = (Vec::new(), Vec::new());
    let mut bytes = 0;
    for _ in 0..rounds {
        let start = std::time::Instant::now();
        ours.step();
        steps.push(start.elapsed().as_secs_f64() * 1e3);
        let start = std::time::Instant::now();
        bytes = ours.commit();
        digests.push(start.elapsed().as_secs_f64() * 1e3);
    }
    let (step, digest) = (median(&mut steps), median(&mut digests));
    println!(
        "step {step:.1} ms, digests of {:.1} MB {digest:.1} ms ({:.1} GB/s): {:+.2} %",
        bytes as f64 / 1e6,
        bytes as f64 / digest / 1e6,
        digest / step * 100.0
    );
    Ok(())
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// torch + peft in a process of its own, one step at a time, so that both take turns.
struct Rival {
    input: std::process::ChildStdin,
    output: BufReader<std::process::ChildStdout>,
}

impl Rival {
    fn start(python: &PathBuf, s: &ModelShape, threads: usize) -> anyhow::Result<Self> {
        let numbers = [
            s.hidden,
            s.intermediate,
            s.layers,
            s.heads,
            s.kv_heads,
            s.vocab,
            s.rank,
            s.sequences,
            s.sequence_len,
            threads,
        ];
        let mut child = Command::new(python)
            .arg("-c")
            .arg(include_str!("rival.py"))
            .args(numbers.map(|n| n.to_string()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let mut rival = Self {
            input: child.stdin.take().expect("piped"),
            output: BufReader::new(child.stdout.take().expect("piped")),
        };
        rival.step()?;
        Ok(rival)
    }

    /// Seconds of one step.
    fn step(&mut self) -> anyhow::Result<f64> {
        writeln!(self.input, "step")?;
        self.input.flush()?;
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        Ok(line.trim().parse()?)
    }
}
