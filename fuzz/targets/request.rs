//! Requests to the gateway.

#![no_main]

use concord_fuzz::request;

libfuzzer_sys::fuzz_target!(init: request::write_seeds(), |input: &[u8]| {
    request::read(input);
});
