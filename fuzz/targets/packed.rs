//! Safetensors files with packed weights, of every method.

#![no_main]

use concord_fuzz::models;

libfuzzer_sys::fuzz_target!(init: models::write_seeds("packed"), |input: &[u8]| {
    models::read("packed", input);
});
