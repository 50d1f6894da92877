//! Gradients of what is trained, by name.

use std::collections::BTreeMap;
use std::sync::Arc;

use concord_kernels::{Device, KernelError, Tensor};

/// Which use of a tensor a gradient comes from. An embedding that is also the head has two uses.
/// Each is summed over the step separately, because two workers may compute them; then the two sums
/// are added.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TensorUse {
    /// The tensor's only use.
    Own,
    /// A tied embedding, as the embedding.
    TiedEmbed,
    /// A tied embedding, as the head.
    TiedHead,
}

/// Name of a gradient.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct GradientKey {
    /// Which use.
    pub end: TensorUse,
    /// The trained tensor.
    pub name: String,
}

/// Gradients in the order of their keys: sums over tokens, not yet divided by their number.
#[derive(Clone, Debug, Default)]
pub struct Gradients(pub BTreeMap<GradientKey, Tensor>);

impl Gradients {
    /// Inserts the gradient of `name`.
    pub(super) fn insert(&mut self, name: &str, end: TensorUse, gradient: Tensor) {
        self.0.insert(
            GradientKey {
                end,
                name: name.to_string(),
            },
            gradient,
        );
    }

    /// Adds the gradients of a later node of the tree, which has the same keys.
    ///
    /// # Errors
    /// [`KernelError::Cuda`] where a GPU fails.
    pub fn add(&mut self, device: &Device, later: &Self) -> Result<(), KernelError> {
        assert!(
            self.0.keys().eq(later.0.keys()),
            "gradients of different tensors"
        );
        let mut pairs = self.0.values_mut().zip(later.0.values());
        pairs.try_for_each(|(sum, later)| device.add_assign(sum, later))
    }

    /// Turns every -0 into +0.
    ///
    /// # Errors
    /// [`KernelError::NotFinite`] where a gradient overflows, naming it; [`KernelError::Cuda`]
    /// where a GPU fails.
    pub(super) fn canonicalise(&mut self, device: &Device) -> Result<(), KernelError> {
        let name = |key: &GradientKey| format!("gradient of {}", key.name);
        let names: Vec<String> = self.0.keys().map(name).collect();
        let named = names.iter().map(String::as_str).zip(self.0.values_mut());
        device.canonicalise(&mut named.collect::<Vec<_>>())
    }

    /// The gradient of each tensor, where one worker holds all parts: the gradients of both uses of
    /// a tied embedding are added.
    ///
    /// # Errors
    /// [`KernelError::Cuda`] where a GPU fails.
    pub fn joined(self, device: &Device) -> Result<BTreeMap<String, Arc<Tensor>>, KernelError> {
        let mut joined: BTreeMap<String, Arc<Tensor>> = BTreeMap::new();
        // Keys are in the order (end, name), so the embedding's part comes before the head's.
        for (GradientKey { name, .. }, gradient) in self.0 {
            match joined.get_mut(&name) {
                Some(sum) => device.add_assign(Arc::make_mut(sum), &gradient)?,
                None => {
                    joined.insert(name, Arc::new(gradient));
                }
            }
        }
        Ok(joined)
    }
}
