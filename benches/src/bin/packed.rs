//! Weights that stay packed: the products of one pass over all matrices of a decoder, by format and
//! by number of sequences, against what the machine reads from memory.
//!
//! ```text
//! cargo run --release --manifest-path benches/Cargo.toml --bin packed -- \
//!     --formats F16,Q8_0,Q4_K,codes --batches 1,8 --threads 2
//! ```
//!
//! The shapes are those of TinyLlama 1.1B; the blocks are random, and no two matrices share memory.
//! Tokens a second are those of products alone: attention over a short context adds little to them.

#[path = "../cpu_time.rs"]
mod cpu_time;

use std::sync::OnceLock;
use std::time::Instant;

use anyhow::{Context, bail};
use clap::Parser;
use concord_kernels::coded::{Coded, Precision};
use concord_kernels::packed::{BlockFormat, SharedBytes};
use concord_kernels::rng::Philox;
use concord_kernels::{Device, Tensor, Weight};

use cpu_time::cpu_seconds;

#[derive(Parser)]
struct Args {
    /// Formats by their names in GGUF, and `codes` for integers of 16 bits.
    #[arg(long, value_delimiter = ',', default_value = "F16,Q8_0,Q4_K")]
    formats: Vec<String>,
    /// Sequences of a pass, one after another.
    #[arg(long, value_delimiter = ',', default_value = "1,8")]
    batches: Vec<usize>,
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// Rounds; the best counts.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    #[arg(long, default_value_t = 22)]
    layers: usize,
}

const HIDDEN: usize = 2_048;
const INNER: usize = 5_632;
const KEYS: usize = 256;
const VOCAB: usize = 32_000;

/// Outputs and inputs of the matrices of a layer, and of the head.
const LAYER: [[usize; 2]; 7] = [
    [HIDDEN, HIDDEN],
    [KEYS, HIDDEN],
    [KEYS, HIDDEN],
    [HIDDEN, HIDDEN],
    [INNER, HIDDEN],
    [INNER, HIDDEN],
    [HIDDEN, INNER],
];
const HEAD: [usize; 2] = [VOCAB, HIDDEN];

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let device = Device::cpu(args.threads);
    println!("{}", device.name());
    for format in &args.formats {
        let started = Instant::now();
        let weights = weights(&device, format, args.layers)?;
        let bytes: usize = weights.iter().map(Weight::bytes).sum();
        println!(
            "{format}: {:.2} GB, made in {:.1} s",
            bytes as f64 / 1e9,
            started.elapsed().as_secs_f64()
        );
        for &batch in &args.batches {
            let inputs = inputs(&device, batch)?;
            let mut best = [f64::INFINITY; 4];
            for _ in 0..args.rounds {
                // In turn, since other work of the machine comes and goes.
                let read = measured(&args, || read_memory(&device))?;
                let pass = measured(&args, || pass(&device, &weights, &inputs))?;
                let times = read.into_iter().chain(pass);
                best.iter_mut()
                    .zip(times)
                    .for_each(|(best, time)| *best = best.min(time));
            }
            for (clock, read, pass) in [("wall", best[0], best[2]), ("CPU", best[1], best[3])] {
                let (rate, read) = (bytes as f64 / pass, READ_BYTES as f64 / read);
                println!(
                    "{format:>6}, {batch:>3} sequences, {clock:>4} time: {:>6.1} tokens/s; {:>7.1} \
                     ms a pass; {:>5.1} GB/s, {:>3.0}% of {:.1} GB/s that {} threads read",
                    batch as f64 / pass,
                    pass * 1e3,
                    rate / 1e9,
                    rate / read * 100.0,
                    read / 1e9,
                    args.threads,
                );
            }
        }
    }
    Ok(())
}

/// All matrices of a decoder, in the order in which a pass meets them.
fn weights(device: &Device, format: &str, layers: usize) -> anyhow::Result<Vec<Weight>> {
    let shapes = (0..layers).flat_map(|_| LAYER).chain([HEAD]);
    shapes
        .enumerate()
        .map(|(i, shape)| match format {
            "codes" => Ok(random_codes(i as u64, shape).into()),
            name => {
                let known = BlockFormat::ALL.into_iter().find(|f| f.name() == name);
                let format = known.with_context(|| format!("no format is called {name}"))?;
                let bytes = random_blocks(i as u64, format, shape)?;
                let packed = device.packed_rows(format, shape, bytes, Precision::I16)?;
                packed.check_finite(name)?;
                Ok(packed.into())
            }
        })
        .collect()
}

fn random_codes(seed: u64, [rows, cols]: [usize; 2]) -> Coded {
    let random = Philox::new(1, seed);
    let words = (0..(rows * cols).div_ceil(8) as u64).flat_map(|i| random.words(i));
    let q = words.flat_map(|word| [word as i16, (word >> 16) as i16]);
    let q: Vec<i16> = q
        .map(|q| q.clamp(-32_639, 32_639))
        .take(rows * cols)
        .collect();
    Coded {
        rows,
        cols,
        precision: Precision::I16,
        q: q.into(),
        exp: vec![-20; rows].into(),
    }
}

/// Random codes with scales near 2^-6.
fn random_blocks(seed: u64, format: BlockFormat, shape: [usize; 2]) -> anyhow::Result<SharedBytes> {
    let random = Philox::new(2, seed);
    let len = shape[0] * format.row_bytes(shape[1]).context("whole blocks")?;
    let words = (0..len.div_ceil(16) as u64).flat_map(|i| random.words(i));
    let mut bytes: Vec<u8> = words.flat_map(u32::to_le_bytes).take(len).collect();
    let (scales, high): (&[usize], u8) = match format {
        BlockFormat::F16 | BlockFormat::Q8_0 | BlockFormat::Q4_0 => (&[1], 0x24),
        BlockFormat::Q4K | BlockFormat::Q5K => (&[1, 3], 0x24),
        BlockFormat::Bf16 => (&[1], 0x3c),
        BlockFormat::Q6K => (&[209], 0x24),
        other => bail!("no random blocks of {}", other.name()),
    };
    for block in bytes.chunks_exact_mut(format.bytes()) {
        scales
            .iter()
            .for_each(|&at| block[at] = block[at] & 0x83 | high);
    }
    Ok(bytes.into())
}

/// Codes of the inputs of all widths that the matrices have.
fn inputs(device: &Device, batch: usize) -> anyhow::Result<[Coded; 2]> {
    let random = Philox::new(3, 0);
    let coded = |width: usize| -> anyhow::Result<Coded> {
        let values = (0..(batch * width) as u64).map(|i| random.unit(i) - 0.5);
        let x = Tensor::new(&[batch, width], values.collect::<Vec<f32>>())?;
        Ok(device.code(&x, width, Precision::I16)?)
    };
    Ok([coded(HIDDEN)?, coded(INNER)?])
}

/// The products with all matrices, one after another.
fn pass(device: &Device, weights: &[Weight], inputs: &[Coded; 2]) -> anyhow::Result<()> {
    device.on_its_threads(|| {
        for weight in weights {
            let input = inputs.iter().find(|input| input.cols == weight.cols);
            let y = device.matmul(input.context("an input of that width")?, weight)?;
            std::hint::black_box(y);
        }
        Ok(())
    })
}

/// Seconds of some work, by the clock and by the CPU time of all threads over their number: where
/// others use the machine, only the second tells of the work.
fn measured(args: &Args, work: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<[f64; 2]> {
    let (started, cpu) = (Instant::now(), cpu_seconds()?);
    work()?;
    let wall = started.elapsed().as_secs_f64();
    Ok([wall, (cpu_seconds()? - cpu) / args.threads as f64])
}

/// 1 GiB that no cache holds.
const READ_BYTES: usize = 1 << 30;

/// Reads memory with all threads of the device.
fn read_memory(device: &Device) -> anyhow::Result<()> {
    static BLOCK: OnceLock<Vec<u64>> = OnceLock::new();
    let block = BLOCK.get_or_init(|| vec![1; READ_BYTES / 8]);
    let Device::Cpu(cpu) = device else {
        bail!("not a CPU");
    };
    cpu.pool().broadcast(|thread| {
        let len = block.len() / thread.num_threads();
        let part = &block[thread.index() * len..][..len];
        std::hint::black_box(part.iter().fold(0, |a, b| a ^ b));
    });
    Ok(())
}
