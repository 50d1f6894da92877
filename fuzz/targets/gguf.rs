//! GGUF files, with a tokenizer and without.

#![no_main]

use concord_fuzz::models;

libfuzzer_sys::fuzz_target!(init: models::write_seeds("gguf"), |input: &[u8]| {
    models::read("gguf", input);
});
