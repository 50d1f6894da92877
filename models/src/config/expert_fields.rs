//! The keys of a `config.json` that are about experts.

use serde_json::Value;

use super::fields::ConfigFields;
use crate::error::ModelError;

/// Four times as many as any published decoder has in a layer.
pub(super) const EXPERTS_MAX: usize = 1 << 10;
/// Experts of all layers together: eight times as many as any published decoder has. It bounds
/// every list of the model's matrices.
pub(super) const ALL_EXPERTS_MAX: usize = 1 << 17;
const INTERMEDIATE_MAX: usize = 1 << 20;
const LAYERS_MAX: u64 = 1 << 16;

impl ConfigFields<'_> {
    /// How many experts a layer has, and to how many a token is routed. The first number has two
    /// keys: published files use one, and files that transformers 5 saves may use the other.
    pub(super) fn experts(
        &self,
        (count, chosen): (usize, usize),
        layers: usize,
    ) -> Result<(usize, usize), ModelError> {
        let names = ["num_experts", "num_local_experts"];
        let [a, b] = names.map(|name| self.size_opt(name, EXPERTS_MAX));
        let count = match (a?, b?) {
            (Some(a), Some(b)) if a != b => {
                let rule =
                    format!("num_local_experts is {b}, another number: remove one of the two");
                return Err(self.bad("num_experts", a, rule));
            }
            (a, b) => a.or(b).unwrap_or(count),
        };
        if count * layers > ALL_EXPERTS_MAX {
            let rule = format!("in {layers} layers these are more than {ALL_EXPERTS_MAX} experts");
            return Err(self.bad("num_experts", count, rule));
        }
        let chosen = self.size_or("num_experts_per_tok", EXPERTS_MAX, chosen)?;
        if chosen > count {
            let rule = format!("must be at most the number of experts, {count}");
            return Err(self.bad("num_experts_per_tok", chosen, rule));
        }
        Ok((count, chosen))
    }

    /// The width of an expert.
    pub(super) fn intermediate_or(
        &self,
        key: &'static str,
        default: usize,
    ) -> Result<usize, ModelError> {
        self.size_or(key, INTERMEDIATE_MAX, default)
    }

    /// A number of layers, from 0; `default` where the key is absent.
    pub(super) fn layer_count_or(
        &self,
        key: &'static str,
        default: usize,
    ) -> Result<usize, ModelError> {
        let Some(value) = self.get(key) else {
            return Ok(default);
        };
        layer(value).ok_or_else(|| self.bad(key, value, "must be a whole number of layers"))
    }

    /// A list of layers, by their index; empty where the key is absent.
    pub(super) fn layers(&self, key: &'static str) -> Result<Vec<usize>, ModelError> {
        let Some(value) = self.get(key) else {
            return Ok(Vec::new());
        };
        let bad = || self.bad(key, value, "must be a list of layers by their index");
        let items = value.as_array().ok_or_else(bad)?;
        items
            .iter()
            .map(|item| layer(item).ok_or_else(bad))
            .collect()
    }
}

fn layer(value: &Value) -> Option<usize> {
    let number = value.as_u64().filter(|number| *number <= LAYERS_MAX)?;
    usize::try_from(number).ok()
}
