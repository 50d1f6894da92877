//! Files of `torch.save`.

#![no_main]

use concord_fuzz::models;

libfuzzer_sys::fuzz_target!(init: models::write_seeds("pickle"), |input: &[u8]| {
    models::read("pickle", input);
});
