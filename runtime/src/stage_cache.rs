//! Loaded stages, cached from one audit to the next within a bound of memory.

use std::sync::{Mutex, MutexGuard, PoisonError};

use concord_models::decoder::Stage;
use concord_proto::{Digest, Layers};

/// The address of a job's spec, or a deployment, both of which name the precision; and the layers.
pub(crate) type StageKey = (Digest, Layers);

struct CachedStage {
    key: StageKey,
    bytes: u64,
    stage: Stage,
}

/// Stages of deployments and of low-rank jobs: their quantized weights stay the same from step to
/// step, and only the small factors are replaced. A job that trains every tensor has other weights
/// after each step: caching its stage would save nothing.
pub(crate) struct StageCache {
    /// Bytes of weights that they may take together.
    limit: u64,
    /// Those used longest ago first.
    stages: Mutex<Vec<CachedStage>>,
}

impl StageCache {
    pub(crate) fn new(limit: u64) -> Self {
        Self {
            limit,
            stages: Mutex::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<CachedStage>> {
        self.stages.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a stage of so many bytes may be cached at all.
    pub(crate) fn holds(&self, bytes: u64) -> bool {
        bytes <= self.limit
    }

    /// Takes a stage out of the cache, if it is there. The caller puts it back.
    pub(crate) fn take(&self, key: StageKey) -> Option<Stage> {
        let mut cached = self.lock();
        let place = cached.iter().position(|stage| stage.key == key)?;
        Some(cached.remove(place).stage)
    }

    /// Drops stages, those used longest ago first, until `bytes` more are within the bound or none
    /// is left. To be called before another is loaded.
    pub(crate) fn make_room(&self, bytes: u64) {
        let mut cached = self.lock();
        let mut held: u64 = cached.iter().map(|stage| stage.bytes).sum();
        while held.saturating_add(bytes) > self.limit && !cached.is_empty() {
            held -= cached.remove(0).bytes;
        }
    }

    /// Caches a stage, unless it exceeds the bound on its own.
    pub(crate) fn put(&self, key: StageKey, bytes: u64, stage: Stage) {
        self.make_room(bytes);
        if self.holds(bytes) {
            self.lock().push(CachedStage { key, bytes, stage });
        }
    }

    /// Bytes of all cached stages.
    #[cfg(test)]
    fn bytes(&self) -> u64 {
        self.lock().iter().map(|stage| stage.bytes).sum()
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::collections::BTreeMap;

    use crate::spec;
    use concord_kernels::coded::Precision;
    use concord_kernels::{Device, Tensor};
    use concord_models::ModelError;
    use concord_models::config::DecoderConfig;
    use concord_models::decoder::{Precisions, StageOptions, TensorSource, WeightBytes};

    use super::*;

    /// A model of zeros that counts how often each tensor is read.
    struct Counting<'a> {
        config: &'a DecoderConfig,
        reads: RefCell<BTreeMap<String, u32>>,
    }

    impl TensorSource for Counting<'_> {
        fn tensor(&self, name: &str) -> Result<Tensor, ModelError> {
            let mut reads = self.reads.borrow_mut();
            *reads.entry(name.to_string()).or_default() += 1;
            let tensors = self.config.tensors().into_iter();
            let spec = { tensors }.find(|spec| spec.name == name).unwrap();
            Ok(Tensor::zeros(&spec.shape))
        }
    }

    fn config() -> DecoderConfig {
        DecoderConfig::from_json(
            r#"{"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 8,
                "intermediate_size": 16, "num_hidden_layers": 4, "num_attention_heads": 2,
                "num_key_value_heads": 1, "vocab_size": 10, "max_position_embeddings": 32,
                "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "tie_word_embeddings": false}"#,
        )
        .unwrap()
    }

    /// Audits leaves of stages of two layers in turn; returns how often each tensor was read, and
    /// the most bytes that were cached.
    fn audit(leaves: u32, limit: u64) -> (BTreeMap<String, u32>, u64) {
        let config = config();
        let source = Counting {
            config: &config,
            reads: RefCell::default(),
        };
        let (stages, mut most) = (StageCache::new(limit), 0);
        for leaf in 0..leaves {
            let start = 2 * (leaf % 2);
            let layers = Layers::new(start, start + 2);
            let key = (Digest::default(), layers);
            let bytes = bytes(&config, layers);
            let stage = stages.take(key).unwrap_or_else(|| {
                stages.make_room(bytes);
                let bits = Precision::I16;
                let options = StageOptions {
                    device: Device::Reference,
                    config: config.clone().into(),
                    layers: spec::span(layers),
                    precisions: Precisions {
                        weights: bits,
                        activations: bits,
                        key_values: bits,
                    },
                    lora: None,
                    trains_all: false,
                    positions: 4,
                };
                Stage::load(options, &source, &BTreeMap::new()).unwrap()
            });
            stages.put(key, bytes, stage);
            most = most.max(stages.bytes());
        }
        (source.reads.into_inner(), most)
    }

    fn bytes(config: &DecoderConfig, layers: Layers) -> u64 {
        WeightBytes::of(config).stage(config, spec::span(layers), 4)
    }

    #[test]
    fn twenty_leaves_read_the_model_once_where_memory_holds_it() {
        let config = config();
        let half = |start| bytes(&config, Layers::new(start, start + 2));
        let both = half(0) + half(2);
        let (reads, most) = audit(20, both);
        assert_eq!(reads.len(), config.tensors().len());
        assert!(reads.values().all(|&count| count == 1), "{reads:?}");
        assert_eq!(most, both);
    }

    #[test]
    fn the_bound_holds_and_nothing_is_kept_beyond_it() {
        let config = config();
        let one = bytes(&config, Layers::new(0, 2));
        let other = bytes(&config, Layers::new(2, 4));
        let limit = one.max(other);
        let (reads, most) = audit(6, limit);
        assert!(reads.values().all(|&count| count == 3), "{reads:?}");
        assert_eq!(most, limit);
        assert_eq!(audit(6, 0).1, 0);
    }
}
