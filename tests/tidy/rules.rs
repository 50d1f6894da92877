//! What the compiler does not check: who may import whom, and the rules of CONTRIBUTING.md on text.

mod benches;
mod circles;
mod columns;
mod documents;
mod glossary;
mod imports;
mod names;
mod operations;
mod sources;
mod text;
