//! Keys and values of one sequence, as codes. A cache that grows token by token equals one that is
//! filled at once, because no key's code depends on another key.

use concord_kernels::ops::KeyValues;

/// One sequence's keys and values in every layer of a stage.
#[derive(Debug)]
pub struct KvCache {
    layers: Vec<KeyValues>,
    tokens: usize,
}

impl KvCache {
    /// A cache of these empty layers.
    pub(super) fn new(layers: Vec<KeyValues>) -> Self {
        Self { layers, tokens: 0 }
    }

    /// Tokens in the cache: the position of the next one.
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// The keys and values of one layer.
    pub(super) fn layer(&mut self, layer: usize) -> &mut KeyValues {
        &mut self.layers[layer]
    }

    /// Counts tokens that went through all layers.
    pub(super) fn advance(&mut self, tokens: usize) {
        self.tokens += tokens;
    }
}
