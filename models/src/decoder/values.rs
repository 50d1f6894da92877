//! Values of trained tensors, wherever they are held.

use std::collections::BTreeMap;

use concord_kernels::Tensor;

/// Values of trained tensors by name. A stage reads them in place, without a copy of them all.
pub trait Values {
    /// The value of the tensor `name`, if it is one of them.
    fn value(&self, name: &str) -> Option<&Tensor>;

    /// All values with their names.
    fn all(&self) -> Box<dyn Iterator<Item = (&str, &Tensor)> + '_>;
}

impl Values for BTreeMap<String, Tensor> {
    fn value(&self, name: &str) -> Option<&Tensor> {
        self.get(name)
    }

    fn all(&self) -> Box<dyn Iterator<Item = (&str, &Tensor)> + '_> {
        Box::new(self.iter().map(|(name, value)| (name.as_str(), value)))
    }
}
