//! The file `config.json` of several families.

#![no_main]

use concord_fuzz::models;

libfuzzer_sys::fuzz_target!(init: models::write_seeds("config"), |input: &[u8]| {
    models::read("config", input);
});
