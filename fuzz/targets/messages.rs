//! Messages between coordinator, workers, checkers and clients.

#![no_main]

use concord_fuzz::messages;

libfuzzer_sys::fuzz_target!(init: messages::write_seeds(), |input: &[u8]| {
    messages::read(input);
});
