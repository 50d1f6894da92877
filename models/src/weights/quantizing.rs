//! Which matrices are quantised as they are read.

use std::collections::BTreeSet;

use concord_kernels::packed::QuantFormat;

/// What is quantised, and to what.
#[derive(Debug)]
pub(super) struct Quantizing {
    pub(super) format: QuantFormat,
    pub(super) names: BTreeSet<String>,
}

impl Quantizing {
    pub(super) fn has(&self, name: &str) -> bool {
        self.names.contains(name)
    }
}
