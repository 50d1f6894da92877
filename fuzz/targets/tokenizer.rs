//! The file `tokenizer.json`.

#![no_main]

use concord_fuzz::tokenizer;

libfuzzer_sys::fuzz_target!(init: tokenizer::write_seeds(), |input: &[u8]| {
    tokenizer::read(input);
});
