//! Data sets: files in, sequences out, and what is refused.
//!
//! One test binary, since linking many is slow. Tests that need the real models of `shared/` say
//! so and pass where it is not there.

mod broken;
mod broken_forms;
mod broken_shapes;
mod byte_tokenizer;
mod chat;
mod fixtures;
mod kinds;
mod rows;
mod selection;
mod shapes;
mod templates;
