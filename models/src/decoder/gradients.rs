//! Gradients of what is trained, by name.

use std::collections::BTreeMap;
use std::sync::Arc;

use concord_kernels::{Device, Tensor};

/// Which use of a tensor a gradient comes from. An embedding that is also the head has two; they
/// are summed over the step on their own and then added, because two workers may compute them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum End {
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
    pub end: End,
    /// The trained tensor.
    pub name: String,
}

/// Gradients in the order of their keys: sums over tokens, not yet divided by their number.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Gradients(pub BTreeMap<GradientKey, Tensor>);

impl Gradients {
    /// Puts in the gradient of `name`.
    pub(super) fn insert(&mut self, name: &str, end: End, gradient: Tensor) {
        self.0.insert(
            GradientKey {
                end,
                name: name.to_string(),
            },
            gradient,
        );
    }

    /// Adds the gradients of a later node of the tree. Both have the same keys.
    pub fn add(&mut self, device: &Device, later: &Self) {
        assert!(
            self.0.keys().eq(later.0.keys()),
            "gradients of different tensors"
        );
        for (sum, later) in self.0.values_mut().zip(later.0.values()) {
            device.add_assign(sum.data_mut(), later.data());
        }
    }

    /// The gradient of each tensor, where one worker holds all parts: both ends of a tied embedding
    /// are added.
    pub fn joined(self, device: &Device) -> BTreeMap<String, Arc<Tensor>> {
        let mut joined: BTreeMap<String, Arc<Tensor>> = BTreeMap::new();
        // Keys are in the order (end, name), so the embedding's part comes before the head's.
        for (GradientKey { name, .. }, gradient) in self.0 {
            match joined.get_mut(&name) {
                Some(sum) => device.add_assign(Arc::make_mut(sum).data_mut(), gradient.data()),
                None => {
                    joined.insert(name, Arc::new(gradient));
                }
            }
        }
        joined
    }
}
