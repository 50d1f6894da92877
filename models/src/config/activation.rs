//! The activation of the feed-forward layer, by its name.

use concord_kernels::ops::Activation;
use serde::{Deserialize, Serialize};

use super::fields::ConfigFields;
use crate::error::ModelError;

/// The names in transformers. Several of them name the same function.
const NAMES: [(&str, Activation); 9] = [
    ("silu", Activation::Silu),
    ("swish", Activation::Silu),
    ("gelu", Activation::Gelu),
    ("gelu_pytorch_tanh", Activation::GeluTanh),
    ("gelu_new", Activation::GeluTanh),
    ("gelu_fast", Activation::GeluTanh),
    ("quick_gelu", Activation::QuickGelu),
    ("relu", Activation::Relu),
    ("relu2", Activation::ReluSquared),
];

/// The function that `key` names, or `default` where the key is absent.
pub(super) fn read(
    fields: &ConfigFields,
    key: &'static str,
    default: &'static str,
) -> Result<Activation, ModelError> {
    let name = fields.text(key)?.unwrap_or(default);
    let known = NAMES.iter().find(|(known, _)| *known == name);
    known
        .map(|(_, activation)| *activation)
        .ok_or_else(|| ModelError::UnknownActivation {
            path: fields.path.to_path_buf(),
            found: name.to_string(),
        })
}

/// The serialized form of an [`Activation`].
#[derive(Serialize, Deserialize)]
#[serde(remote = "Activation")]
pub(super) enum ActivationText {
    Silu,
    Gelu,
    GeluTanh,
    QuickGelu,
    Relu,
    ReluSquared,
    ClampedSwiglu { alpha: f32, limit: f32 },
}
