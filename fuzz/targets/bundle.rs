//! Proofs, what parties keep of them, and receipts.

#![no_main]

use concord_fuzz::bundle;

libfuzzer_sys::fuzz_target!(init: bundle::write_seeds(), |input: &[u8]| {
    bundle::read(input);
});
