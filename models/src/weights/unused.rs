//! Refuses tensors that the model would not use: they show that the weights are of another model.

use std::collections::BTreeSet;

use super::folder::ModelFolder;
use crate::config::{Family, TensorPlace};
use crate::error::ModelError;

impl ModelFolder {
    /// Refuses weights with a tensor that the configuration has no use for. transformers only warns
    /// about such tensors; but without, say, a bias, the model would compute something else.
    pub(super) fn check_unused(&self) -> Result<(), ModelError> {
        let specs = self.config().tensors();
        let used: BTreeSet<&str> = specs.iter().map(|spec| spec.name.as_str()).collect();
        let unused: Vec<&str> = self
            .names()
            .filter(|name| !used.contains(name) && !self.is_harmless(name))
            .collect();
        let Some(first) = unused.first() else {
            return Ok(());
        };
        Err(ModelError::UnusedTensors {
            path: self.place(first),
            tensor: (*first).to_string(),
            count: unused.len(),
            reason: self.why(first),
        })
    }

    /// Whether a tensor may be ignored: a tied head that equals the embedding, and buffers in old
    /// files that every program computes itself, which are the frequencies of RoPE and the causal
    /// mask of GPT-NeoX.
    fn is_harmless(&self, name: &str) -> bool {
        let config = self.config();
        let parts = config.parts();
        let computed = match config.family {
            Family::GptNeox => {
                [".inv_freq", ".attention.bias", ".attention.masked_bias"].as_slice()
            }
            _ => &["rotary_emb.inv_freq"],
        };
        (name == parts.head_weight() && config.tie_embeddings)
            || self.is_empty_bias(name)
            || (name.starts_with(parts.trunk()) && computed.iter().any(|end| name.ends_with(end)))
    }

    fn why(&self, name: &str) -> String {
        let layers = self.config().layers;
        let ends = |ends: &[&str]| ends.iter().any(|end| name.ends_with(end));
        let beyond = match TensorPlace::of(name) {
            Some(TensorPlace::Layer(layer)) => layer as usize >= layers,
            _ => false,
        };
        let what = if beyond {
            format!("config.json has num_hidden_layers = {layers}")
        } else if name.contains("lora_") || name.contains(".base_layer.") {
            "they are of an adapter: merge it into the weights, or give its folder as the adapter"
                .to_string()
        } else if ends(&[
            "qweight",
            "qzeros",
            "scales",
            "g_idx",
            "_scale",
            "_scale_inv",
            "absmax",
        ]) {
            "the weights are packed, and config.json does not say how (quantization_config), or \
             says another way"
                .to_string()
        } else if ends(&[".bias"]) {
            "config.json makes no such bias (attention_bias, mlp_bias)".to_string()
        } else if ends(&["q_norm.weight", "k_norm.weight"]) {
            "this family has no norms on q and k".to_string()
        } else {
            "the model that config.json describes has no such part".to_string()
        };
        format!(
            "{what}. Take the config.json that was saved with the weights, or remove the tensors \
             where they are of no use"
        )
    }
}
