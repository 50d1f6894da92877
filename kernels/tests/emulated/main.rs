//! The operations on emulated GPUs, in several orders of threads, at the edges that the shapes of
//! models do not reach: against the scalar reference, by bits. A file for each operation.
#![cfg(feature = "emulator")]

mod activation;
mod adamw;
mod adamw_8bit;
mod attention;
mod blake3;
mod columns;
mod conformance;
mod cross_entropy;
mod elementary;
mod elementwise;
mod embedding;
mod gpus;
mod keys;
mod layernorm;
mod lion;
mod matmul;
mod noise;
mod reduce;
mod rmsnorm;
mod rope;
mod sample;
mod sgd;
mod soft_cap;
