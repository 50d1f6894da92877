//! Job files of Concord and of other tools.

#![no_main]

use concord_fuzz::recipe;

libfuzzer_sys::fuzz_target!(init: recipe::write_seeds(), |input: &[u8]| {
    recipe::read(input);
});
