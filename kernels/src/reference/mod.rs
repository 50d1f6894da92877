//! Every operation as scalar code, written to be read against NUMERICS.md. It is the judge: the
//! other back-ends equal it by `to_bits()`.

pub mod adamw;
pub mod attention;
pub mod code;
pub mod cross_entropy;
pub mod matmul;
pub mod reduce;
pub mod rmsnorm;
pub mod rope;
pub mod swiglu;
