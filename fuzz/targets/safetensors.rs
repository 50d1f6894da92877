//! Safetensors files, and the index of several.

#![no_main]

use concord_fuzz::models;

libfuzzer_sys::fuzz_target!(init: models::write_seeds("safetensors"), |input: &[u8]| {
    models::read("safetensors", input);
});
