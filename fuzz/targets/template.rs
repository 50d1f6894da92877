//! Chat templates, over several conversations.

#![no_main]

use concord_fuzz::template;

libfuzzer_sys::fuzz_target!(init: template::write_seeds(), |input: &[u8]| {
    template::read(input);
});
