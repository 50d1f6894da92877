//! The activation of the feed-forward layer, by its name.

use super::fields::ConfigFields;
use crate::error::ModelError;

/// A function of the feed-forward layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HiddenActivation {
    /// `x * sigmoid(x)`.
    Silu,
    /// `x * Phi(x)`, with the exact distribution.
    Gelu,
    /// The same by its approximation with tanh.
    GeluTanh,
    /// `x * sigmoid(1.702 x)`.
    QuickGelu,
    /// `max(x, 0)`.
    Relu,
    /// Its square.
    ReluSquared,
}

/// The names of transformers. Several stand for one function.
const NAMES: [(&str, HiddenActivation); 9] = [
    ("silu", HiddenActivation::Silu),
    ("swish", HiddenActivation::Silu),
    ("gelu", HiddenActivation::Gelu),
    ("gelu_pytorch_tanh", HiddenActivation::GeluTanh),
    ("gelu_new", HiddenActivation::GeluTanh),
    ("gelu_fast", HiddenActivation::GeluTanh),
    ("quick_gelu", HiddenActivation::QuickGelu),
    ("relu", HiddenActivation::Relu),
    ("relu2", HiddenActivation::ReluSquared),
];

impl HiddenActivation {
    /// The function that `key` names, or the one that `default` is.
    pub(super) fn read(
        fields: &ConfigFields,
        key: &'static str,
        default: &'static str,
    ) -> Result<Self, ModelError> {
        let name = fields.text(key)?.unwrap_or(default);
        let known = NAMES.iter().find(|(known, _)| *known == name);
        known
            .map(|(_, activation)| *activation)
            .ok_or_else(|| ModelError::UnknownActivation {
                path: fields.path.to_path_buf(),
                found: name.to_string(),
            })
    }
}
