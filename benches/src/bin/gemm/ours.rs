//! The products of this project.

use std::time::Instant;

use anyhow::{Result, ensure};
use concord_kernels::coded::{Coded, Operand, Precision};
use concord_kernels::cpu::{self, Cpu, code};
use concord_kernels::isa::Isa;
use concord_kernels::reference::matmul::matmul;

use crate::Ceiling;

/// A pair of precisions.
#[derive(Clone, Copy)]
pub struct Mode {
    /// As job specs write it: bits of the weights, bits of the activations.
    pub name: &'static str,
    weights: Precision,
    activations: Precision,
    pub ceiling: Ceiling,
}

/// Those that are timed.
pub const MODES: [Mode; 3] = [
    Mode {
        name: "w16a16",
        weights: Precision::I16,
        activations: Precision::I16,
        ceiling: Ceiling::WordsAndBytes,
    },
    Mode {
        name: "w8a16",
        weights: Precision::I8,
        activations: Precision::I16,
        ceiling: Ceiling::Words,
    },
    Mode {
        name: "w8a8",
        weights: Precision::I8,
        activations: Precision::I8,
        ceiling: Ceiling::Bytes,
    },
];

/// Square matrices, and their codes.
pub struct Ours {
    cpu: Cpu,
    size: usize,
    pub x: Vec<f32>,
    pub w: Vec<f32>,
    x_coded: [Coded; 2],
    w_coded: [Coded; 2],
    out: Vec<f32>,
}

fn index(precision: Precision) -> usize {
    usize::from(precision == Precision::I8)
}

impl Ours {
    /// Makes the matrices, and holds a few rows of each product against the reference.
    pub fn new(threads: usize, size: usize) -> Result<Self> {
        let cpu = Cpu::new(Isa::best(), threads);
        let (x, w) = (gaussian(size * size, 1), gaussian(size * size, 2));
        let code = |data: &[f32]| {
            [Precision::I16, Precision::I8].map(|p| code::code_rows(&cpu, data, size, None, p))
        };
        let (x_coded, w_coded) = (code(&x), code(&w));
        let out = vec![0.0; size * size];
        let mut ours = Self {
            cpu,
            size,
            x,
            w,
            x_coded,
            w_coded,
            out,
        };
        for mode in MODES {
            ours.time(&mode, false, 1);
            let rows = Operand {
                rows: 4,
                ..ours.x_coded[index(mode.activations)].by_rows()
            };
            let want = matmul(rows, ours.w_coded[index(mode.weights)].by_rows());
            let same = want
                .iter()
                .zip(&ours.out)
                .all(|(w, o)| w.to_bits() == o.to_bits());
            ensure!(
                same,
                "{}: the product differs from the reference",
                mode.name
            );
        }
        Ok(ours)
    }

    /// The instruction set in use.
    pub fn instructions(&self) -> Isa {
        self.cpu.isa()
    }

    /// Seconds a call, with or without the coding of the activations.
    pub fn time(&mut self, mode: &Mode, with_coding: bool, calls: usize) -> f64 {
        let w = self.w_coded[index(mode.weights)].by_rows();
        let start = Instant::now();
        for _ in 0..calls {
            if with_coding {
                let x = code::code_rows(&self.cpu, &self.x, self.size, None, mode.activations);
                cpu::matmul::matmul(&self.cpu, x.by_rows(), w, &mut self.out);
            } else {
                let x = self.x_coded[index(mode.activations)].by_rows();
                cpu::matmul::matmul(&self.cpu, x, w, &mut self.out);
            }
        }
        start.elapsed().as_secs_f64() / calls as f64
    }
}

/// Numbers of about a normal distribution: the sum of 4 uniform ones.
fn gaussian(count: usize, seed: u64) -> Vec<f32> {
    let mut state = seed;
    let mut uniform = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1u32 << 24) as f32 - 0.5
    };
    (0..count)
        .map(|_| (0..4).map(|_| uniform()).sum())
        .collect()
}
