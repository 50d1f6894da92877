//! Data sets in every form but columns.

#![no_main]

use concord_fuzz::rows;

libfuzzer_sys::fuzz_target!(init: rows::write_seeds(), |input: &[u8]| {
    rows::read(input);
});
