//! Typed, bounded access to the keys of one JSON object, with errors that name file and key.

use std::path::Path;

use serde_json::{Map, Value};

use crate::error::ModelError;
use crate::json::shown;

/// One JSON object of a file.
pub(super) struct ConfigFields<'a> {
    pub(super) path: &'a Path,
    pub(super) object: &'a Map<String, Value>,
}

impl<'a> ConfigFields<'a> {
    /// The value of `key`; a JSON null counts as absent, as in transformers.
    pub(super) fn get(&self, key: &str) -> Option<&'a Value> {
        self.object.get(key).filter(|value| !value.is_null())
    }

    /// Whether `key` is there, even if it is null.
    pub(super) fn has(&self, key: &str) -> bool {
        self.object.contains_key(key)
    }

    /// The error that `key` is missing.
    pub(super) fn missing(&self, key: &'static str) -> ModelError {
        ModelError::MissingKey {
            path: self.path.to_path_buf(),
            key,
        }
    }

    /// The error that `key` has the value `found`, against the rule `expected`.
    pub(super) fn bad(
        &self,
        key: &'static str,
        found: impl ToString,
        expected: impl Into<String>,
    ) -> ModelError {
        ModelError::BadValue {
            path: self.path.to_path_buf(),
            key,
            found: shown(found),
            expected: expected.into(),
        }
    }

    /// A whole number from 1 to `max`, where the key is there.
    pub(super) fn size_opt(
        &self,
        key: &'static str,
        max: usize,
    ) -> Result<Option<usize>, ModelError> {
        let Some(value) = self.get(key) else {
            return Ok(None);
        };
        value
            .as_u64()
            .and_then(|number| usize::try_from(number).ok())
            .filter(|number| (1..=max).contains(number))
            .map(Some)
            .ok_or_else(|| {
                self.bad(
                    key,
                    value,
                    format!("must be a whole number from 1 to {max}"),
                )
            })
    }

    /// A whole number from 1 to `max`.
    pub(super) fn size(&self, key: &'static str, max: usize) -> Result<usize, ModelError> {
        self.size_opt(key, max)?.ok_or_else(|| self.missing(key))
    }

    /// A finite number above 0, where the key is there.
    pub(super) fn positive_opt(&self, key: &'static str) -> Result<Option<f64>, ModelError> {
        let Some(value) = self.get(key) else {
            return Ok(None);
        };
        value
            .as_f64()
            .filter(|number| number.is_finite() && *number > 0.0)
            .map(Some)
            .ok_or_else(|| self.bad(key, value, "must be a number above 0"))
    }

    /// A finite number above 0.
    pub(super) fn positive(&self, key: &'static str) -> Result<f64, ModelError> {
        self.positive_opt(key)?.ok_or_else(|| self.missing(key))
    }

    /// A whole number from 1 to `max`; `default` where the key is absent, but not where it is null.
    pub(super) fn size_or(
        &self,
        key: &'static str,
        max: usize,
        default: usize,
    ) -> Result<usize, ModelError> {
        match self.size_opt(key, max)? {
            Some(size) => Ok(size),
            None if self.has(key) => {
                let rule = format!("must be a whole number from 1 to {max}, or not be there");
                Err(self.bad(key, "null", rule))
            }
            None => Ok(default),
        }
    }

    /// A boolean, where the key is there.
    pub(super) fn flag_opt(&self, key: &'static str) -> Result<Option<bool>, ModelError> {
        let Some(value) = self.get(key) else {
            return Ok(None);
        };
        value
            .as_bool()
            .map(Some)
            .ok_or_else(|| self.bad(key, value, "must be true or false"))
    }

    /// A boolean; `default` where the key is absent.
    pub(super) fn flag(&self, key: &'static str, default: bool) -> Result<bool, ModelError> {
        Ok(self.flag_opt(key)?.unwrap_or(default))
    }

    /// A factor: a number above 0 that f32 can hold, where the key is there.
    pub(super) fn multiplier(&self, key: &'static str) -> Result<Option<f32>, ModelError> {
        let factor = self.positive_opt(key)?;
        factor
            .map(|factor| self.as_multiplier(key, Some(factor)))
            .transpose()
    }

    /// Rounds `factor`, which was computed from the value of `key`, to f32; refuses what is not a
    /// normal f32. Without a factor, 1.
    pub(super) fn as_multiplier(
        &self,
        key: &'static str,
        factor: Option<f64>,
    ) -> Result<f32, ModelError> {
        let rounded = factor.unwrap_or(1.0) as f32;
        if rounded.is_normal() {
            return Ok(rounded);
        }
        let value = self.get(key).unwrap_or(&Value::Null);
        Err(self.bad(key, value, "is too large or too small for a factor in f32"))
    }

    /// Refuses `key` where it is true: it switches on a bias that the family does not have.
    pub(super) fn never(&self, key: &'static str) -> Result<(), ModelError> {
        match self.flag(key, false)? {
            true => Err(self.bad(
                key,
                true,
                "this family has no such bias, in transformers either: set it to false where the \
                 weights have none",
            )),
            false => Ok(()),
        }
    }

    /// A string, where the key is there.
    pub(super) fn text(&self, key: &'static str) -> Result<Option<&'a str>, ModelError> {
        let Some(value) = self.get(key) else {
            return Ok(None);
        };
        value
            .as_str()
            .map(Some)
            .ok_or_else(|| self.bad(key, value, "must be a string"))
    }

    /// A token id or a list of them, below `vocab`; empty where the key is absent.
    pub(super) fn token_ids(
        &self,
        key: &'static str,
        vocab: usize,
    ) -> Result<Vec<u32>, ModelError> {
        let Some(value) = self.get(key) else {
            return Ok(Vec::new());
        };
        let items = match value {
            Value::Array(items) => items.as_slice(),
            single => std::slice::from_ref(single),
        };
        let id = |item: &Value| {
            let number = item.as_u64().and_then(|number| u32::try_from(number).ok());
            number.filter(|id| (*id as usize) < vocab)
        };
        items
            .iter()
            .map(|item| {
                id(item).ok_or_else(|| {
                    self.bad(
                        key,
                        value,
                        format!("token ids must be below vocab_size = {vocab}"),
                    )
                })
            })
            .collect()
    }
}
