//! Keys and values of one sequence, as codes. A cache that grows token by token equals one made at
//! once: no key's code depends on another's.

use concord_kernels::ops::CodedKv;

/// One sequence's keys and values in every layer of a stage.
#[derive(Clone, Debug, Default)]
pub struct KvCache {
    layers: Vec<Option<CodedKv>>,
    tokens: usize,
}

impl KvCache {
    /// An empty cache for `layers` layers.
    pub fn new(layers: usize) -> Self {
        Self {
            layers: vec![None; layers],
            tokens: 0,
        }
    }

    /// Tokens in the cache: the position of the next one.
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// Appends the keys and values of new tokens in one layer, and gives all of that layer.
    pub(super) fn extend(&mut self, layer: usize, new: CodedKv) -> &CodedKv {
        let slot = &mut self.layers[layer];
        match slot {
            Some(kv) => {
                kv.k.append(&new.k);
                kv.v.append(&new.v);
            }
            None => *slot = Some(new),
        }
        slot.as_ref().expect("just filled")
    }

    /// Counts tokens that went through all layers.
    pub(super) fn advance(&mut self, tokens: usize) {
        self.tokens += tokens;
    }
}
