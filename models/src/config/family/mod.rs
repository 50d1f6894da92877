//! The families of decoders, and how a `config.json` names them.

mod arcee;
mod cohere;
mod ernie4_5;
mod exaone4;
mod experts;
mod gemma;
mod glm;
mod gpt_neox;
mod granite;
mod helium;
mod llama;
mod mistral;
mod olmo;
mod phi;
mod phi3;
mod qwen;
mod seed_oss;
mod smollm3;
mod stablelm;
mod starcoder2;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::PartNames;
use super::fields::ConfigFields;
use super::rules::FamilyRules;
use crate::error::ModelError;

/// A family of decoders, by the name in `architectures`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Family {
    /// `LlamaForCausalLM`: Llama 1 to 3, TinyLlama, SmolLM.
    Llama,
    /// `Qwen2ForCausalLM`: a bias on q, k and v.
    Qwen2,
    /// `Qwen3ForCausalLM`: an RMSNorm on every head of q and k.
    Qwen3,
    /// `MistralForCausalLM`: a sliding window on all layers, or on those that the file lists.
    Mistral,
    /// `Gemma2ForCausalLM`: norms by 1 + w on inputs and outputs of both parts of a layer, soft
    /// caps, every other layer windowed.
    Gemma2,
    /// `Gemma3ForCausalLM`: norms of q and k, another rotary base where there is a window.
    Gemma3,
    /// `PhiForCausalLM`: Phi 1 to 2; attention and feed-forward layer in parallel after one
    /// LayerNorm, a bias on the head.
    Phi,
    /// `Phi3ForCausalLM`: Phi 3 and Phi 4; fused projections, LongRoPE.
    Phi3,
    /// `Olmo2ForCausalLM`: norms on the outputs of attention and feed-forward layer only, norms
    /// over the width of q and k.
    Olmo2,
    /// `SmolLM3ForCausalLM`: some layers without rotary embedding.
    SmolLm3,
    /// `GraniteForCausalLM`: Granite 3; multipliers on embeddings, residuals, scores and logits.
    Granite,
    /// `GlmForCausalLM`: interleaved RoPE on half of each head.
    Glm,
    /// `Glm4ForCausalLM`: as [`Family::Glm`], with norms on inputs and outputs of both parts of a
    /// layer.
    Glm4,
    /// `Starcoder2ForCausalLM`: LayerNorm, no gate, biases.
    Starcoder2,
    /// `GPTNeoXForCausalLM`: Pythia; attention and feed-forward layer in parallel.
    GptNeox,
    /// `GemmaForCausalLM`: norms by 1 + w, scaled embeddings.
    Gemma,
    /// `Olmo3ForCausalLM`: as [`Family::Olmo2`], with windows on most layers, and another rotary
    /// embedding on these.
    Olmo3,
    /// `CohereForCausalLM`: Command R; attention and feed-forward layer in parallel after one
    /// LayerNorm.
    Cohere,
    /// `Cohere2ForCausalLM`: as [`Family::Cohere`], with windows on most layers, and rotary
    /// embedding only on these.
    Cohere2,
    /// `SeedOssForCausalLM`: a bias on q, k and v.
    SeedOss,
    /// `ArceeForCausalLM`: no gate, squared ReLU.
    Arcee,
    /// `HeliumForCausalLM`: interleaved RoPE.
    Helium,
    /// `Ernie4_5ForCausalLM`: interleaved RoPE.
    Ernie45,
    /// `Exaone4ForCausalLM`: norms on the outputs of attention and feed-forward layer, and on the
    /// heads of q and k.
    Exaone4,
    /// `StableLmForCausalLM`: LayerNorm, a quarter of each head rotated.
    StableLm,
    /// `MixtralForCausalLM`: experts on every layer.
    Mixtral,
    /// `Qwen2MoeForCausalLM`: experts, and one that all tokens share.
    Qwen2Moe,
    /// `Qwen3MoeForCausalLM`: experts, and norms on every head of q and k.
    Qwen3Moe,
    /// `OlmoeForCausalLM`: experts, and norms over the width of q and k.
    Olmoe,
    /// `GptOssForCausalLM`: experts with biases, attention sinks, every other layer windowed.
    GptOss,
}

impl Family {
    /// Every family, in the order in which error messages list them.
    pub const ALL: [Family; 30] = [
        Family::Llama,
        Family::Qwen2,
        Family::Qwen3,
        Family::Mistral,
        Family::Gemma2,
        Family::Gemma3,
        Family::Phi,
        Family::Phi3,
        Family::Olmo2,
        Family::SmolLm3,
        Family::Granite,
        Family::Glm,
        Family::Glm4,
        Family::Starcoder2,
        Family::GptNeox,
        Family::Gemma,
        Family::Olmo3,
        Family::Cohere,
        Family::Cohere2,
        Family::SeedOss,
        Family::Arcee,
        Family::Helium,
        Family::Ernie45,
        Family::Exaone4,
        Family::StableLm,
        Family::Mixtral,
        Family::Qwen2Moe,
        Family::Qwen3Moe,
        Family::Olmoe,
        Family::GptOss,
    ];

    /// The name in `architectures`.
    pub fn architecture(self) -> &'static str {
        self.rules().names.0
    }

    /// Its `model_type`.
    pub(crate) fn model_type(self) -> &'static str {
        self.rules().names.1
    }

    /// The names of its parts.
    pub(crate) fn parts(self) -> &'static PartNames {
        &self.rules().parts
    }

    pub(super) fn rules(self) -> &'static FamilyRules {
        match self {
            Family::Llama => &llama::RULES,
            Family::Qwen2 => &qwen::QWEN_2,
            Family::Qwen3 => &qwen::QWEN_3,
            Family::Mistral => &mistral::RULES,
            Family::Gemma2 => &gemma::GEMMA_2,
            Family::Gemma3 => &gemma::GEMMA_3,
            Family::Phi => &phi::RULES,
            Family::Phi3 => &phi3::RULES,
            Family::Olmo2 => &olmo::OLMO_2,
            Family::SmolLm3 => &smollm3::RULES,
            Family::Granite => &granite::RULES,
            Family::Glm => &glm::GLM,
            Family::Glm4 => &glm::GLM_4,
            Family::Starcoder2 => &starcoder2::RULES,
            Family::GptNeox => &gpt_neox::RULES,
            Family::Gemma => &gemma::GEMMA,
            Family::Olmo3 => &olmo::OLMO_3,
            Family::Cohere => &cohere::COHERE,
            Family::Cohere2 => &cohere::COHERE_2,
            Family::SeedOss => &seed_oss::RULES,
            Family::Arcee => &arcee::RULES,
            Family::Helium => &helium::RULES,
            Family::Ernie45 => &ernie4_5::RULES,
            Family::Exaone4 => &exaone4::RULES,
            Family::StableLm => &stablelm::RULES,
            Family::Mixtral => &experts::MIXTRAL,
            Family::Qwen2Moe => &experts::QWEN_2_MOE,
            Family::Qwen3Moe => &experts::QWEN_3_MOE,
            Family::Olmoe => &experts::OLMOE,
            Family::GptOss => &experts::GPT_OSS,
        }
    }
}

/// Further names of a family. transformers 5 loads a Mistral whose layers differ in their windows
/// as its class Ministral, and saves it under that name.
const OTHER_NAMES: [(&str, &str, Family); 1] =
    [("MinistralForCausalLM", "ministral", Family::Mistral)];

/// Every family by its names: (`architectures`, `model_type`, family).
fn names() -> impl Iterator<Item = (&'static str, &'static str, Family)> {
    let own = |family: Family| {
        let (architecture, model_type) = family.rules().names;
        (architecture, model_type, family)
    };
    Family::ALL.into_iter().map(own).chain(OTHER_NAMES)
}

/// The family that `architectures` and `model_type` name. One of the two is enough; where both are
/// given, they must name the same family.
pub(super) fn parse(fields: &ConfigFields) -> Result<Family, ModelError> {
    let model_type = fields.text("model_type")?;
    let of_type = model_type.and_then(|name| names().find(|known| known.1 == name));
    let Some(value) = fields.get("architectures") else {
        let family = of_type.map(|known| known.2);
        return family.ok_or_else(|| fields.missing("architectures"));
    };
    let found = match value.as_array().map(Vec::as_slice) {
        Some([Value::String(name)]) => name,
        _ => return Err(fields.bad("architectures", value, "must be a list of one name")),
    };
    let known = names().find(|known| known.0 == found);
    let family = known.ok_or_else(|| ModelError::UnknownArchitecture {
        path: fields.path.to_path_buf(),
        found: found.clone(),
        known: Family::ALL.map(Family::architecture).join(", "),
    })?;
    match model_type {
        Some(name) if of_type.map(|known| known.2) != Some(family.2) => Err(fields.bad(
            "model_type",
            format!("{name:?}"),
            format!(
                "`architectures` names {found}, whose model_type is {:?}: one of the two is wrong",
                family.1
            ),
        )),
        _ => Ok(family.2),
    }
}
