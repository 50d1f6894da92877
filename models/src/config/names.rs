//! The names that families give to the parts of a decoder.

use super::Projection;

/// The modules of a decoder, as the tensors of its weights are named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartNames {
    /// The token embedding.
    pub(crate) embed: &'static str,
    /// The prefix of a layer's number.
    pub(crate) layers: &'static str,
    /// The norm after the last layer.
    pub(crate) final_norm: &'static str,
    /// The projection onto the vocabulary.
    pub(crate) head: &'static str,
    /// The norm before attention.
    pub(crate) attention_in: Option<&'static str>,
    /// The norm on the output of attention.
    pub(crate) attention_out: Option<&'static str>,
    /// The norm before the feed-forward layer. Without it, that layer takes the residual stream as
    /// it is or, in a parallel layer, the same normed input as attention.
    pub(crate) feed_in: Option<&'static str>,
    /// The norm on the output of the feed-forward layer.
    pub(crate) feed_out: Option<&'static str>,
    /// Modules that are named otherwise than in Llama.
    pub(crate) modules: &'static [(Projection, &'static str)],
}

impl PartNames {
    /// The names in Llama, which most families use.
    pub(crate) const LLAMA: PartNames = PartNames {
        embed: "model.embed_tokens",
        layers: "model.layers",
        final_norm: "model.norm",
        head: "lm_head",
        attention_in: Some("input_layernorm"),
        attention_out: None,
        feed_in: Some("post_attention_layernorm"),
        feed_out: None,
        modules: &[],
    };

    /// Norms on inputs and outputs of both parts of a layer, as Gemma 2 names them.
    pub(crate) const GEMMA: PartNames = PartNames {
        attention_out: Some("post_attention_layernorm"),
        feed_in: Some("pre_feedforward_layernorm"),
        feed_out: Some("post_feedforward_layernorm"),
        ..PartNames::LLAMA
    };

    /// Norms on the outputs of both parts only, as OLMo 2 names them.
    pub(crate) const OLMO_2: PartNames = PartNames {
        attention_in: None,
        attention_out: Some("post_attention_layernorm"),
        feed_in: None,
        feed_out: Some("post_feedforward_layernorm"),
        ..PartNames::LLAMA
    };

    /// The module of a projection within a layer.
    pub(crate) fn module(&self, projection: Projection) -> &'static str {
        let own = self.modules.iter().find(|(of, _)| *of == projection);
        own.map_or(projection.llama_module(), |(_, module)| module)
    }

    /// The prefix of all names except the head's.
    pub(crate) fn trunk(&self) -> &'static str {
        self.layers.trim_end_matches("layers")
    }

    /// The tensor of the embedding.
    pub(crate) fn embed_weight(&self) -> String {
        format!("{}.weight", self.embed)
    }

    /// The tensor of the head.
    pub(crate) fn head_weight(&self) -> String {
        format!("{}.weight", self.head)
    }

    /// The tensor of the head's bias.
    pub(crate) fn head_bias(&self) -> String {
        format!("{}.bias", self.head)
    }
}
