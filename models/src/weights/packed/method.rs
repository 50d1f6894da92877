//! `quantization_config`: how the weights are packed. Every key is read, known to change nothing,
//! or refused by name. Which weights are packed follows from the tensors that are there.

use std::path::Path;

use serde_json::{Map, Value};

use super::keys;
use crate::error::ModelError;
use crate::json::shown;

/// A way of packing weights.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::weights) enum QuantMethod {
    Gptq(GptqOptions),
    Awq(AwqOptions),
    Compressed(CompressedOptions),
    Fp8(Fp8Options),
    Bitsandbytes,
    Mxfp4,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::weights) struct GptqOptions {
    pub(super) bits: u32,
    /// Inputs that share a scale; `None` means all of them.
    pub(super) group_size: Option<usize>,
    /// Whether zero points are stored as they are, not less 1.
    pub(super) is_v2: bool,
    pub(super) is_symmetric: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::weights) struct AwqOptions {
    pub(super) group_size: Option<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::weights) struct CompressedOptions {
    pub(super) bits: u32,
    pub(super) is_float: bool,
    /// Inputs of a row that share a scale; `None` means all of them.
    pub(super) group: Option<usize>,
    /// Rows and columns that share a scale.
    pub(super) block: Option<[usize; 2]>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::weights) struct Fp8Options {
    /// Rows and columns that share a scale; `None` means one scale for all, or one for each row.
    pub(super) block: Option<[usize; 2]>,
}

/// What to use instead of an unsupported format.
const INSTEAD: &str = "take the model as it was before, or in GPTQ, AWQ, FP8, bitsandbytes, \
                       compressed-tensors or GGUF";

impl QuantMethod {
    /// Reads the object `quantization_config` of the file `path`.
    ///
    /// # Errors
    /// [`ModelError::UnusableKey`] naming the key.
    pub(in crate::weights) fn read(
        path: &Path,
        config: &Map<String, Value>,
    ) -> Result<Self, ModelError> {
        let fields = MethodFields { path, config };
        // The files of AutoGPTQ and AutoAWQ (quantize_config.json) name no method.
        let named = fields.text("quant_method")?;
        let method = named.unwrap_or(match config.contains_key("w_bit") {
            true => "awq",
            false => "gptq",
        });
        match method.to_ascii_lowercase().as_str() {
            "gptq" => fields.gptq(),
            "awq" => fields.awq(),
            "compressed-tensors" => fields.compressed(),
            "fp8" | "fbgemm_fp8" => fields.fp8(),
            "bitsandbytes" => {
                keys::check(path, config, keys::BITSANDBYTES)?;
                Ok(Self::Bitsandbytes)
            }
            "mxfp4" => {
                keys::check(path, config, keys::MXFP4)?;
                Ok(Self::Mxfp4)
            }
            other => Err(fields.refuse(
                "quant_method",
                format!(
                    "weights packed by `{}` are not read: {INSTEAD}",
                    shown(other)
                ),
            )),
        }
    }
}

/// The object, with errors that name its keys.
struct MethodFields<'a> {
    path: &'a Path,
    config: &'a Map<String, Value>,
}

impl<'a> MethodFields<'a> {
    fn refuse(&self, key: &str, reason: String) -> ModelError {
        keys::refuse(self.path, key, self.config.get(key), reason)
    }

    fn get(&self, key: &str) -> Option<&'a Value> {
        self.config.get(key).filter(|value| !value.is_null())
    }

    fn text(&self, key: &str) -> Result<Option<&'a str>, ModelError> {
        let Some(value) = self.get(key) else {
            return Ok(None);
        };
        let text = value.as_str().map(Some);
        text.ok_or_else(|| self.refuse(key, "it must be a text".to_string()))
    }

    fn flag(&self, key: &str, default: bool) -> Result<bool, ModelError> {
        let value = self.get(key).map_or(Some(default), Value::as_bool);
        value.ok_or_else(|| self.refuse(key, "it must be true or false".to_string()))
    }

    /// A number of bits, which must be one of `known`.
    fn bits(&self, key: &str, known: &[u64]) -> Result<u32, ModelError> {
        let bits = self.get(key).and_then(Value::as_u64);
        let bits = bits.filter(|bits| known.contains(bits));
        bits.map(|bits| bits as u32).ok_or_else(|| {
            let known: Vec<String> = known.iter().map(u64::to_string).collect();
            self.refuse(
                key,
                format!("weights of {} bits are read: {INSTEAD}", known.join(", ")),
            )
        })
    }

    /// A number of inputs; `None` (all of them) where the key is -1 or absent.
    fn group(&self, key: &str) -> Result<Option<usize>, ModelError> {
        match self.get(key) {
            None => Ok(None),
            Some(value) if value.as_i64() == Some(-1) => Ok(None),
            Some(value) => {
                let size = value.as_u64().filter(|size| (1..=1 << 20).contains(size));
                let size = size.ok_or_else(|| {
                    self.refuse(
                        key,
                        "it must be a number of inputs, or -1 for all".to_string(),
                    )
                })?;
                Ok(Some(size as usize))
            }
        }
    }

    /// Rows and columns of a block.
    fn block(&self, key: &str) -> Result<Option<[usize; 2]>, ModelError> {
        let Some(value) = self.get(key) else {
            return Ok(None);
        };
        let side = |value: &Value| {
            let side = value.as_u64().filter(|side| (1..=1 << 20).contains(side));
            side.map(|side| side as usize)
        };
        let block = match value.as_array().map(Vec::as_slice) {
            Some([high, wide]) => side(high).zip(side(wide)),
            _ => None,
        };
        let (high, wide) = block.ok_or_else(|| {
            self.refuse(
                key,
                "it must be a list of two sizes, rows and columns".to_string(),
            )
        })?;
        Ok(Some([high, wide]))
    }

    fn gptq(&self) -> Result<QuantMethod, ModelError> {
        keys::check(self.path, self.config, keys::GPTQ)?;
        let named = match self.text("checkpoint_format")? {
            Some(format) => Some(("checkpoint_format", format)),
            None => self.text("format")?.map(|format| ("format", format)),
        };
        let is_v2 = match named {
            None | Some((_, "gptq")) => false,
            Some((_, "gptq_v2")) => true,
            Some((key, _)) => {
                let reason = format!(
                    "of the ways in which GPTQ's codes are laid out, \"gptq\" and \"gptq_v2\" are \
                     read: {INSTEAD}"
                );
                return Err(self.refuse(key, reason));
            }
        };
        Ok(QuantMethod::Gptq(GptqOptions {
            bits: self.bits("bits", &[2, 4, 8])?,
            group_size: self.group("group_size")?,
            is_v2,
            is_symmetric: self.flag("sym", true)?,
        }))
    }

    fn awq(&self) -> Result<QuantMethod, ModelError> {
        keys::check(self.path, self.config, keys::AWQ)?;
        let either = |new: &'static str, old: &'static str| match self.get(new) {
            Some(_) => new,
            None => old,
        };
        self.bits(either("bits", "w_bit"), &[4])?;
        if !self.flag("zero_point", true)? {
            let reason = format!("AWQ without zeros is not read: {INSTEAD}");
            return Err(self.refuse("zero_point", reason));
        }
        let version = self.text("version")?.unwrap_or("gemm");
        if !version.eq_ignore_ascii_case("gemm") {
            let reason = format!("of AWQ's layouts \"gemm\" is read: {INSTEAD}");
            return Err(self.refuse("version", reason));
        }
        Ok(QuantMethod::Awq(AwqOptions {
            group_size: self.group(either("group_size", "q_group_size"))?,
        }))
    }

    fn fp8(&self) -> Result<QuantMethod, ModelError> {
        keys::check(self.path, self.config, keys::FP8)?;
        let format = self.text("fmt")?.unwrap_or("e4m3");
        if !["e4m3", "float8_e4m3fn", "e4m3fn"].contains(&format) {
            let reason = format!("of FP8 the numbers of e4m3 are read: {INSTEAD}");
            return Err(self.refuse("fmt", reason));
        }
        Ok(QuantMethod::Fp8(Fp8Options {
            block: self.block("weight_block_size")?,
        }))
    }

    fn compressed(&self) -> Result<QuantMethod, ModelError> {
        keys::check(self.path, self.config, keys::COMPRESSED)?;
        let whole = self.text("format")?;
        let groups = self.get("config_groups").and_then(Value::as_object);
        let groups = groups.ok_or_else(|| {
            self.refuse(
                "config_groups",
                "it must be an object of groups".to_string(),
            )
        })?;
        let mut found: Option<CompressedOptions> = None;
        for group in groups.values() {
            let options = self.compressed_group(whole, group)?;
            if found.is_some_and(|other| other != options) {
                let reason =
                    format!("weights that are packed in several ways are not read: {INSTEAD}");
                return Err(self.refuse("config_groups", reason));
            }
            found = Some(options);
        }
        let found = found.map(QuantMethod::Compressed);
        found.ok_or_else(|| self.refuse("config_groups", "it has no group".to_string()))
    }

    fn compressed_group(
        &self,
        whole: Option<&str>,
        group: &Value,
    ) -> Result<CompressedOptions, ModelError> {
        let bad = |reason: String| self.refuse("config_groups", reason);
        let empty = Map::new();
        let group = group.as_object().unwrap_or(&empty);
        keys::check(self.path, group, keys::COMPRESSED_GROUP)?;
        let Some(weights) = group.get("weights").and_then(Value::as_object) else {
            return Err(bad(
                "a group must say how its `weights` are packed".to_string()
            ));
        };
        keys::check(self.path, weights, keys::COMPRESSED_WEIGHTS)?;
        let own = MethodFields {
            path: self.path,
            config: weights,
        };
        let format = group.get("format").and_then(Value::as_str).or(whole);
        let is_float = own.text("type")?.unwrap_or("int") == "float";
        let bits = match format {
            Some("pack-quantized") if !is_float => {
                own.bits("num_bits", &[1, 2, 3, 4, 5, 6, 7, 8])?
            }
            Some("int-quantized") if !is_float => own.bits("num_bits", &[8])?,
            Some("float-quantized") if is_float => own.bits("num_bits", &[8])?,
            Some("naive-quantized") => own.bits("num_bits", &[8])?,
            _ => {
                let reason = format!(
                    "of compressed-tensors the formats pack-quantized, int-quantized and \
                     float-quantized are read: {INSTEAD}"
                );
                return Err(self.refuse("format", reason));
            }
        };
        let strategy = own.text("strategy")?.unwrap_or("tensor");
        if !["tensor", "channel", "group", "block"].contains(&strategy) {
            let reason = "of these tensor, channel, group and block are read".to_string();
            return Err(own.refuse("strategy", reason));
        }
        Ok(CompressedOptions {
            bits,
            is_float,
            group: match strategy {
                "group" => own.group("group_size")?,
                _ => None,
            },
            block: match strategy {
                "block" => own.block("block_structure")?,
                _ => None,
            },
        })
    }
}
