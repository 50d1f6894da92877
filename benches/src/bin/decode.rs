//! Tokens a second that one worker decodes, by the number of sequences in a pass: a model of a
//! folder or a GGUF file, or a Llama of 110M parameters with random weights.
//!
//! ```text
//! cargo run --release --manifest-path benches/Cargo.toml --bin decode -- \
//!     --threads 1,2 --batches 1,8,32,128 [--model ../shared/models/tinystories-260k]
//! ```

#[path = "../cpu_time.rs"]
mod cpu_time;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Parser;
use concord_kernels::coded::Precision;
use concord_kernels::ops::sample::{Candidates, RowSample, Sampling};
use concord_kernels::ops::{KvPages, PAGE_TOKENS, PagedRun};
use concord_kernels::rng::Philox;
use concord_kernels::{Device, Tensor};
use concord_models::ModelError;
use concord_models::config::DecoderConfig;
use concord_models::decoder::{PassInput, Precisions, Stage, StageOptions, StageRun, TensorSource};
use concord_models::weights::ModelFolder;

use cpu_time::cpu_seconds;

#[derive(Parser)]
struct Args {
    /// Threads, one after another.
    #[arg(long, value_delimiter = ',', default_value = "1,2")]
    threads: Vec<usize>,
    /// Sequences of a pass, one after another.
    #[arg(long, value_delimiter = ',', default_value = "1,8,32,128")]
    batches: Vec<usize>,
    /// Tokens of each sequence before the first round.
    #[arg(long, default_value_t = 128)]
    context: usize,
    /// Tokens that each sequence decodes in a round.
    #[arg(long, default_value_t = 16)]
    steps: usize,
    /// Rounds; the best counts.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Temperature; 0 takes the most probable token.
    #[arg(long, default_value_t = 0.0)]
    temperature: f32,
    /// A model's folder or GGUF file; without, the made Llama.
    #[arg(long)]
    model: Option<PathBuf>,
}

/// Random tensors of the shapes that the configuration names.
struct Random(BTreeMap<String, Vec<usize>>);

impl TensorSource for Random {
    fn tensor(&self, name: &str) -> Result<Tensor, ModelError> {
        let shape = &self.0[name];
        let stream = Philox::new(1, name.len() as u64);
        let is_norm = shape.len() == 1;
        let value = |i| {
            if is_norm {
                1.0
            } else {
                (stream.unit(i) - 0.5) * 0.07
            }
        };
        let len = shape.iter().product::<usize>() as u64;
        Ok(Tensor::new(
            shape,
            (0..len).map(value).collect::<Vec<f32>>(),
        )?)
    }
}

const MADE: &str = r#"{"architectures":["LlamaForCausalLM"],"model_type":"llama",
    "hidden_act":"silu","hidden_size":768,"intermediate_size":2048,"num_hidden_layers":12,"num_attention_heads":12,
    "num_key_value_heads":12,"vocab_size":32000,"max_position_embeddings":2048,
    "rms_norm_eps":1e-6,"rope_theta":10000.0,"tie_word_embeddings":false}"#;

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let (config, source): (DecoderConfig, Box<dyn TensorSource>) = match &args.model {
        Some(path) => {
            let folder = ModelFolder::open(path)?;
            (folder.config().clone(), Box::new(folder))
        }
        None => {
            let config = DecoderConfig::from_json(MADE)?;
            let specs = config.tensors().into_iter();
            let shapes = specs.map(|spec| (spec.name, spec.shape)).collect();
            (config, Box::new(Random(shapes)))
        }
    };
    let weights = weight_bytes(&config, &*source)?;
    println!("{} MB of weights a step", weights >> 20);
    for &threads in &args.threads {
        let stage = load(&config, &*source, threads)?;
        let read = read_rate(threads);
        println!("threads {threads}: reads {:.1} GB/s", read / 1e9);
        for &batch in &args.batches {
            let mut served = Served::new(&stage, batch, &args)?;
            let (mut best, mut cpu) = (Times::default(), f64::INFINITY);
            for _ in 0..args.rounds {
                let before = cpu_seconds()?;
                let times = served.round(&args)?;
                cpu = cpu.min(cpu_seconds()? - before);
                if best.total().is_zero() || times.total() < best.total() {
                    best = times;
                }
            }
            let step = best.total().as_secs_f64() / args.steps as f64;
            let each = |time: Duration| time.as_secs_f64() * 1e3 / args.steps as f64;
            println!(
                "threads {threads}, {batch:>3} sequences: {:>8.1} tokens/s; {:.3} ms a step \
                 (layers {:.3}, logits {:.3}, draws {:.3}), {:.3} ms of CPU time a thread; \
                 weights at {:.1} GB/s, {:.0}% of reading",
                batch as f64 / step,
                step * 1e3,
                each(best.layers),
                each(best.logits),
                each(best.draws),
                cpu * 1e3 / (args.steps * threads) as f64,
                weights as f64 / step / 1e9,
                weights as f64 / step / read * 100.0,
            );
        }
    }
    Ok(())
}

fn load(
    config: &DecoderConfig,
    source: &dyn TensorSource,
    threads: usize,
) -> anyhow::Result<Stage> {
    let options = StageOptions {
        device: Device::cpu(threads),
        layers: (0..config.layers as u32).into(),
        positions: config.max_positions,
        config: Arc::new(config.clone()),
        precisions: Precisions {
            weights: Precision::I16,
            activations: Precision::I16,
            key_values: Precision::I16,
        },
        lora: None,
        trains_all: false,
    };
    Ok(Stage::load(options, source, &BTreeMap::new())?)
}

/// Bytes that a step reads of every matrix but the embedding, which the head may be: those of the
/// file where they stay packed, else two an element.
fn weight_bytes(config: &DecoderConfig, source: &dyn TensorSource) -> anyhow::Result<usize> {
    let mut bytes = 0;
    for spec in config.tensors() {
        let is_read = config.tie_embeddings || !spec.name.contains("embed_tokens");
        if spec.shape.len() == 2 && is_read {
            bytes += match source.blocks(&spec.name)? {
                Some(blocks) => blocks.range.len(),
                None => 2 * spec.shape.iter().product::<usize>(),
            };
        }
    }
    Ok(bytes)
}

/// Bytes a second that `threads` threads read from memory.
fn read_rate(threads: usize) -> f64 {
    let block = vec![1u64; 32 << 20];
    let share = block.len() / threads;
    let once = || {
        let start = Instant::now();
        std::thread::scope(|scope| {
            for part in block.chunks(share) {
                scope.spawn(|| std::hint::black_box(part.iter().fold(0u64, |a, b| a ^ b)));
            }
        });
        (block.len() * 8) as f64 / start.elapsed().as_secs_f64()
    };
    (0..4).map(|_| once()).fold(0.0, f64::max)
}

/// Where the time of a round goes.
#[derive(Default)]
struct Times {
    layers: Duration,
    logits: Duration,
    draws: Duration,
}

impl Times {
    fn total(&self) -> Duration {
        self.layers + self.logits + self.draws
    }
}

/// Sequences that are being decoded.
struct Served<'a> {
    stage: &'a Stage,
    pages: KvPages,
    tables: Vec<Vec<u32>>,
    tokens: Vec<u32>,
}

impl<'a> Served<'a> {
    /// `batch` sequences, with the tokens before the first round.
    fn new(stage: &'a Stage, batch: usize, args: &Args) -> anyhow::Result<Self> {
        let each = (args.context + args.steps).div_ceil(PAGE_TOKENS);
        let table = |s: usize| (0..each).map(|i| (s * each + i) as u32).collect();
        let tables: Vec<Vec<u32>> = (0..batch).map(table).collect();
        let mut pages = stage.kv_pages((each * batch) as u32)?;
        let vocab = stage.options().config.vocab as u32;
        for (s, table) in tables.iter().enumerate() {
            let words = Philox::new(7, s as u64);
            let prompt = (0..args.context as u64).map(|i| words.words(i)[0] % vocab);
            let run = PagedRun {
                pages: table,
                first: 0,
                count: args.context,
            };
            let prompt: Vec<u32> = prompt.collect();
            stage.pass(
                &mut pages,
                &[StageRun { run, adapter: None }],
                PassInput::Tokens(&prompt),
            )?;
        }
        let tokens = vec![1; batch];
        Ok(Self {
            stage,
            pages,
            tables,
            tokens,
        })
    }

    /// Decodes `steps` tokens of each sequence, after those from before the first round.
    fn round(&mut self, args: &Args) -> anyhow::Result<Times> {
        let device = &self.stage.options().device;
        let sampling = Sampling {
            temperature: args.temperature,
            top_k: 0,
            top_p: 1.0,
            seed: 1,
        };
        let mut times = Times::default();
        for first in args.context..args.context + args.steps {
            let runs: Vec<StageRun<'_>> = self
                .tables
                .iter()
                .map(|pages| StageRun {
                    run: PagedRun {
                        pages,
                        first,
                        count: 1,
                    },
                    adapter: None,
                })
                .collect();
            let start = Instant::now();
            let out = self
                .stage
                .pass(&mut self.pages, &runs, PassInput::Tokens(&self.tokens))?;
            times.layers += start.elapsed();
            let start = Instant::now();
            let logits = self.stage.logits(&out.hidden)?;
            times.logits += start.elapsed();
            let start = Instant::now();
            let draws: Vec<RowSample<'_>> = (0..runs.len())
                .map(|row| RowSample {
                    row,
                    sampling,
                    candidates: Candidates::default(),
                    position: first as u64,
                })
                .collect();
            self.tokens = device.sample_rows(&logits, &draws)?;
            times.draws += start.elapsed();
        }
        Ok(times)
    }
}
