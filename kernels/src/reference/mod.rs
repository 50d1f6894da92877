//! Every operation as scalar code, written to be compared with NUMERICS.md. The other back-ends
//! must equal it by `to_bits()`.

pub mod activation;
pub mod adamw;
pub mod adamw_8bit;
pub mod attention;
pub mod code;
pub mod columns;
pub mod cross_entropy;
pub mod elementwise;
pub mod embedding;
pub mod experts;
pub mod layernorm;
pub mod lengths;
pub mod lion;
pub mod lion_8bit;
pub mod logprobs;
pub mod matmul;
pub mod noise;
pub mod pages;
pub mod reduce;
pub mod rmsnorm;
pub mod rope;
pub mod route;
pub mod sample;
pub mod sgd;
pub mod soft_cap;
pub mod tree;
