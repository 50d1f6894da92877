//! What the compiler does not check: who may import whom, and the rules of CONTRIBUTING.md on text.

mod imports;
mod sources;
mod text;
