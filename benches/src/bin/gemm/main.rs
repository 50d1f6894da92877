//! Exact integer products beside the float products of other libraries, in the same run.
//!
//! `cargo run --release --manifest-path benches/Cargo.toml --bin gemm -- --torch-python PYTHON`
//!
//! Prints a table in Markdown. Every time includes packing and the rounding to f32; whether it
//! includes coding the activations (f32 to integers) is said in the row. Weights are coded before.
//! All write into memory that is kept, but for candle, whose products make their own.

mod machine;
mod ours;
mod rivals;

use std::cell::RefCell;
use std::fs::OpenOptions;
use std::io::Write;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use clap::Parser;

use machine::Peaks;
use ours::Ours;
use rivals::{Candle, PYTHON_NAMES, Python};

/// What the threads of candle are set by; read once, so each count gets its own process.
const THREADS_VARIABLE: &str = "RAYON_NUM_THREADS";

/// Compares exact integer products with float products of other libraries.
#[derive(Parser)]
struct Options {
    /// Sides of the square matrices.
    #[arg(long, value_delimiter = ',', default_value = "1024,2048")]
    sizes: Vec<usize>,
    /// Numbers of threads.
    #[arg(long, value_delimiter = ',', default_value = "1,2")]
    threads: Vec<usize>,
    /// Rounds: in each, all take turns; the median round counts.
    #[arg(long, default_value_t = 7)]
    rounds: usize,
    /// A Python with torch and numpy, to compare with them as well.
    #[arg(long)]
    torch_python: Option<PathBuf>,
    /// Appends the rows to this file, a JSON object a line.
    #[arg(long)]
    json: Option<PathBuf>,
}

/// What limits a product.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ceiling {
    Float,
    /// A 16-bit product for each pair of codes.
    Words,
    /// As `Words`, and an 8-bit product for the upper digits.
    WordsAndBytes,
    Bytes,
    Unknown,
}

impl Ceiling {
    fn of(self, peaks: Peaks) -> Option<f64> {
        match self {
            Self::Float => Some(peaks.float),
            Self::Words => Some(peaks.words),
            Self::WordsAndBytes => Some(1.0 / (1.0 / peaks.words + 1.0 / peaks.bytes)),
            Self::Bytes => Some(peaks.bytes),
            Self::Unknown => None,
        }
    }
}

/// A contestant, and the seconds of its rounds.
struct Entry<'a> {
    name: String,
    ceiling: Ceiling,
    time: Box<dyn FnMut(usize) -> Result<f64> + 'a>,
    seconds: Vec<f64>,
}

fn main() -> Result<()> {
    let options = Options::parse();
    if let ([threads], Ok(set)) = (options.threads.as_slice(), std::env::var(THREADS_VARIABLE))
        && set == threads.to_string()
    {
        return options
            .sizes
            .iter()
            .try_for_each(|&size| compare(&options, *threads, size));
    }
    println!("{}", machine::cpu_name());
    for threads in &options.threads {
        let mut command = Command::new(std::env::current_exe()?);
        let sizes: Vec<String> = options.sizes.iter().map(ToString::to_string).collect();
        command.args([
            "--threads",
            &threads.to_string(),
            "--sizes",
            &sizes.join(","),
        ]);
        command.args(["--rounds", &options.rounds.to_string()]);
        let paths = [
            ("--torch-python", &options.torch_python),
            ("--json", &options.json),
        ];
        for (name, path) in paths {
            if let Some(path) = path {
                command.arg(name).arg(path);
            }
        }
        let status = command
            .env(THREADS_VARIABLE, threads.to_string())
            .status()?;
        ensure!(
            status.success(),
            "the run with {threads} threads failed: {status}"
        );
    }
    Ok(())
}

/// Runs all rounds of one size and prints their table.
fn compare(options: &Options, threads: usize, size: usize) -> Result<()> {
    let peaks = Peaks::measure(threads);
    let ours = RefCell::new(Ours::new(threads, size)?);
    let candle = Candle::new(&ours.borrow().x, &ours.borrow().w, size)?;
    let python = options
        .torch_python
        .as_deref()
        .map(|path| Python::start(path, threads));
    let python = python.transpose()?;
    let versions = python
        .as_ref()
        .map_or("no Python", |p| p.versions.as_str())
        .to_owned();
    let python = python.map(RefCell::new);
    let mut entries = Vec::new();
    let mut enter = |name: &str, ceiling, time: Box<dyn FnMut(usize) -> Result<f64>>| {
        entries.push(Entry {
            name: name.to_owned(),
            ceiling,
            time,
            seconds: Vec::new(),
        });
    };
    for name in PYTHON_NAMES.into_iter().filter(|_| python.is_some()) {
        let ceiling = if name.ends_with("f32") {
            Ceiling::Float
        } else {
            Ceiling::Unknown
        };
        let python = &python;
        let time = move |calls| {
            let process = python.as_ref().context("no Python")?;
            process.borrow_mut().time(name, size, calls)
        };
        enter(name, ceiling, Box::new(time));
    }
    enter(
        "candle-f32",
        Ceiling::Float,
        Box::new(|calls| candle.time(calls)),
    );
    for mode in ours::MODES {
        let ours = &ours;
        enter(
            mode.name,
            mode.ceiling,
            Box::new(move |calls| Ok(ours.borrow_mut().time(&mode, false, calls))),
        );
        let name = format!("{} + coding", mode.name);
        enter(
            &name,
            mode.ceiling,
            Box::new(move |calls| Ok(ours.borrow_mut().time(&mode, true, calls))),
        );
    }
    let calls = (30e9 / (size as f64).powi(3)).ceil() as usize * threads;
    for _ in 0..options.rounds.max(1) {
        for entry in &mut entries {
            entry.seconds.push((entry.time)(calls)?);
        }
    }
    println!(
        "\n{size}^3, {threads} thread(s), {versions}, {}",
        ours.borrow().instructions()
    );
    report(options, threads, size, peaks, &mut entries)
}

fn report(
    options: &Options,
    threads: usize,
    size: usize,
    peaks: Option<Peaks>,
    entries: &mut [Entry<'_>],
) -> Result<()> {
    if let Some(peaks) = peaks {
        let Peaks {
            float,
            words,
            bytes,
        } = peaks;
        println!(
            "ceilings in Gop/s: f32 FMA {:.0}, vpdpwssd {:.0}, vpdpbusd {:.0}",
            float * 1e-9,
            words * 1e-9,
            bytes * 1e-9
        );
    }
    let median = |entry: &mut Entry<'_>| {
        entry.seconds.sort_by(f64::total_cmp);
        entry.seconds[entry.seconds.len() / 2]
    };
    let seconds: Vec<f64> = entries.iter_mut().map(median).collect();
    let of = |name: &str| {
        entries
            .iter()
            .position(|e| e.name == name)
            .map(|i| seconds[i])
    };
    let bases = ["torch-f32", "openblas-f32", "torch-bf16", "candle-f32"];
    println!(
        "\n| product | ms | Gop/s | of its ceiling | x {} |",
        bases.join(" | x ")
    );
    println!("|---|---|---|---|---|---|---|---|");
    for (entry, &time) in entries.iter().zip(&seconds) {
        let rate = 2.0 * (size as f64).powi(3) / time;
        let share = peaks
            .and_then(|p| entry.ceiling.of(p))
            .map(|ceiling| 100.0 * rate / ceiling);
        let share = share.map_or("-".to_owned(), |share| format!("{share:.0} %"));
        let ratio = |name| of(name).map_or("-".to_owned(), |base| format!("{:.2}", base / time));
        let ratios: Vec<String> = bases.iter().map(|name| ratio(name)).collect();
        let (name, ratios) = (&entry.name, ratios.join(" | "));
        println!(
            "| {name} | {:.2} | {:.0} | {share} | {ratios} |",
            time * 1e3,
            rate * 1e-9
        );
    }
    let Some(path) = &options.json else {
        return Ok(());
    };
    let file = OpenOptions::new().create(true).append(true).open(path);
    let mut file = file.with_context(|| format!("cannot open {}", path.display()))?;
    for (entry, seconds) in entries.iter().zip(&seconds) {
        let name = &entry.name;
        let row = serde_json::json!({
            "bench": "gemm", "product": name, "size": size, "threads": threads, "seconds": seconds,
        });
        writeln!(file, "{row}")?;
    }
    Ok(())
}
