//! What is compared with: float products of other libraries.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result};
use candle_core::{Device, Tensor};

/// Names that the Python process knows.
pub const PYTHON_NAMES: [&str; 3] = ["torch-f32", "openblas-f32", "torch-bf16"];

/// A Python process with torch and numpy, asked for one timing at a time.
pub struct Python {
    child: Child,
    asks: ChildStdin,
    answers: BufReader<ChildStdout>,
    /// The versions of its libraries.
    pub versions: String,
}

impl Python {
    /// Starts a process whose products take `threads` threads.
    pub fn start(python: &Path, threads: usize) -> Result<Self> {
        let mut child = Command::new(python)
            .args(["-c", include_str!("rivals.py"), &threads.to_string()])
            .env("OPENBLAS_NUM_THREADS", threads.to_string())
            // The quickest of its kernels here: on AMD it takes those of AVX2 by itself.
            .env(
                "OPENBLAS_CORETYPE",
                if is_avx512() { "SkylakeX" } else { "Haswell" },
            )
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {}", python.display()))?;
        let asks = child.stdin.take().context("no standard input")?;
        let mut answers = BufReader::new(child.stdout.take().context("no standard output")?);
        let mut versions = String::new();
        answers.read_line(&mut versions)?;
        Ok(Self {
            child,
            asks,
            answers,
            versions: versions.trim().to_owned(),
        })
    }

    /// Seconds a call of a product of square matrices.
    pub fn time(&mut self, name: &str, size: usize, calls: usize) -> Result<f64> {
        writeln!(self.asks, "{name} {size} {calls}")?;
        let mut answer = String::new();
        self.answers.read_line(&mut answer)?;
        answer
            .trim()
            .parse()
            .with_context(|| format!("{name}: '{answer}' is not a time"))
    }
}

impl Drop for Python {
    fn drop(&mut self) {
        // It ends by itself once its input is closed, too; nothing is left to do on failure.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn is_avx512() -> bool {
    concord_kernels::isa::Isa::Avx512.is_available()
}

/// A product of candle, whose threads are those of `RAYON_NUM_THREADS`.
pub struct Candle {
    x: Tensor,
    w: Tensor,
}

impl Candle {
    /// Square matrices; the second is transposed by stride, as a linear layer's weight is.
    pub fn new(x: &[f32], w: &[f32], size: usize) -> Result<Self> {
        let make = |data: &[f32]| Tensor::from_slice(data, (size, size), &Device::Cpu);
        Ok(Self {
            x: make(x)?,
            w: make(w)?.t()?,
        })
    }

    /// Seconds a call.
    pub fn time(&self, calls: usize) -> Result<f64> {
        let start = Instant::now();
        for _ in 0..calls {
            std::hint::black_box(self.x.matmul(&self.w)?);
        }
        Ok(start.elapsed().as_secs_f64() / calls as f64)
    }
}
