//! The metadata that begin with the name of the architecture.

use serde_json::{Number, Value};

use super::architectures::Architecture;
use super::container::GgufFile;
use super::values::GgufValue;
use crate::error::ModelError;

/// The keys of the architecture.
pub(super) struct Fields<'a> {
    pub(super) file: &'a GgufFile,
    pub(super) architecture: &'static Architecture,
}

impl Fields<'_> {
    pub(super) fn key(&self, key: &str) -> String {
        format!("{}.{key}", self.architecture.name)
    }

    pub(super) fn get(&self, key: &str) -> Option<GgufValue<'_>> {
        self.file.get(&self.key(key))
    }

    pub(super) fn bad(&self, key: &str, reason: impl Into<String>) -> ModelError {
        self.file.bad_key(&self.key(key), reason)
    }

    pub(super) fn whole(&self, key: &str) -> Result<Option<u64>, ModelError> {
        match self.get(key) {
            None => Ok(None),
            // One number for each layer, which are all the same in what is read.
            Some(GgufValue::List(list)) => {
                let mut values = list.values().map(GgufValue::whole);
                let first = values.next().flatten();
                match values.all(|value| value == first) {
                    true if first.is_some() => Ok(first),
                    _ => Err(self.bad(key, "layers of several sizes are not read")),
                }
            }
            Some(value) => {
                let whole = value.whole();
                whole
                    .map(Some)
                    .ok_or_else(|| self.bad(key, "it must be a whole number"))
            }
        }
    }

    /// A float, as the decimal that it was written from: the shortest one that it is nearest to.
    pub(super) fn number(&self, key: &str) -> Result<Option<Value>, ModelError> {
        let decimal = match self.get(key) {
            None => return Ok(None),
            Some(GgufValue::Float32(number)) => number.to_string().parse().ok(),
            Some(GgufValue::Float64(number)) => Some(number),
            Some(value) => value.whole().map(|number| number as f64),
        };
        let number = decimal.and_then(Number::from_f64).map(Value::Number);
        number
            .map(Some)
            .ok_or_else(|| self.bad(key, "it must be a finite number"))
    }
}
