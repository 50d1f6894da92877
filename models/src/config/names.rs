//! The names that families give to the parts of a decoder.

use super::Projection;

/// The modules of a decoder, as the tensors of its weights are named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartNames {
    /// The token embedding.
    pub(crate) embed: &'static str,
    /// What stands before the number of a layer.
    pub(crate) layers: &'static str,
    /// The norm after the last layer.
    pub(crate) final_norm: &'static str,
    /// The projection onto the vocabulary.
    pub(crate) head: &'static str,
    /// The norm before attention.
    pub(crate) attention_in: Option<&'static str>,
    /// The norm of what attention adds.
    pub(crate) attention_out: Option<&'static str>,
    /// The norm before the feed-forward layer. Without one, it takes the residual stream as it is;
    /// where both stand side by side, what attention takes.
    pub(crate) feed_in: Option<&'static str>,
    /// The norm of what the feed-forward layer adds.
    pub(crate) feed_out: Option<&'static str>,
    /// Modules that are not named as a Llama's are.
    pub(crate) modules: &'static [(Projection, &'static str)],
}

impl PartNames {
    /// Those of a Llama, which most families have.
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

    /// Norms before and after both parts of a layer, as Gemma names them.
    pub(crate) const GEMMA: PartNames = PartNames {
        attention_out: Some("post_attention_layernorm"),
        feed_in: Some("pre_feedforward_layernorm"),
        feed_out: Some("post_feedforward_layernorm"),
        ..PartNames::LLAMA
    };

    /// Norms of what is added alone, as OLMo 2 names them.
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

    /// What all names but the head's begin with.
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
