//! Writes tensors to one safetensors file.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::Path;

use concord_kernels::{KernelError, Tensor};
use half::{bf16, f16};
use serde::Serialize;

use super::replace_file;
use crate::error::ModelError;

/// The dtype in which a tensor is written. Rounding is to nearest, ties to even.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum ExportDtype {
    /// 32-bit floats: exact.
    F32,
    /// bfloat16.
    BF16,
    /// IEEE half.
    F16,
}

impl ExportDtype {
    /// The name in torch, and so in `config.json`.
    pub fn torch_name(self) -> &'static str {
        match self {
            ExportDtype::F32 => "float32",
            ExportDtype::BF16 => "bfloat16",
            ExportDtype::F16 => "float16",
        }
    }

    pub(super) fn width(self) -> u64 {
        match self {
            ExportDtype::F32 => 4,
            ExportDtype::BF16 | ExportDtype::F16 => 2,
        }
    }

    /// `value` rounded to the dtype, as f32.
    fn rounded(self, value: f32) -> f32 {
        match self {
            ExportDtype::F32 => value,
            ExportDtype::BF16 => bf16::from_f32(value).to_f32(),
            ExportDtype::F16 => f16::from_f32(value).to_f32(),
        }
    }

    pub(super) fn write(self, values: &[f32], out: &mut dyn Write) -> io::Result<()> {
        match self {
            ExportDtype::F32 => values
                .iter()
                .try_for_each(|v| out.write_all(&v.to_le_bytes())),
            ExportDtype::BF16 => values
                .iter()
                .try_for_each(|v| out.write_all(&bf16::from_f32(*v).to_le_bytes())),
            ExportDtype::F16 => values
                .iter()
                .try_for_each(|v| out.write_all(&f16::from_f32(*v).to_le_bytes())),
        }
    }
}

/// A tensor to write: its dtype, its name, and its values on the host.
type Entry<'a> = (ExportDtype, &'a String, Cow<'a, Tensor>);

/// One entry of a safetensors header.
#[derive(Serialize)]
struct HeaderEntry<'a> {
    dtype: ExportDtype,
    shape: &'a [usize],
    data_offsets: [u64; 2],
}

/// Writes tensors, each in the dtype that `dtype_of` gives for its name, as safetensors with the
/// `format: pt` that transformers asks for. Wider dtypes come first, then names in order, as in the
/// safetensors library, so equal tensors give equal bytes. The file is never in memory as a whole.
///
/// # Errors
/// [`ModelError::Io`], leaving an older file as it was; [`ModelError::BadTensor`] where a value
/// is not finite, or becomes infinite in its dtype; [`ModelError::Kernel`] where a tensor cannot
/// be fetched from its GPU.
pub fn write_tensors(
    path: &Path,
    tensors: &BTreeMap<String, Tensor>,
    dtype_of: impl Fn(&str) -> ExportDtype,
) -> Result<(), ModelError> {
    let mut order = tensors
        .iter()
        .map(|(name, tensor)| Ok((dtype_of(name), name, tensor.on_host()?)))
        .collect::<Result<Vec<Entry<'_>>, KernelError>>()?;
    order.sort_by_key(|(dtype, name, _)| (*dtype, *name));
    for (dtype, name, tensor) in &order {
        check_fits(*dtype, (name, 0), tensor).map_err(|source| ModelError::BadTensor {
            path: path.to_path_buf(),
            source,
        })?;
    }
    let entries = order
        .iter()
        .map(|(dtype, name, tensor)| (*dtype, name.as_str(), tensor.shape()));
    let header = header(entries).map_err(ModelError::json(path))?;
    replace_file(path, |out| {
        out.write_all(&(header.len() as u64).to_le_bytes())?;
        out.write_all(header.as_bytes())?;
        order
            .iter()
            .try_for_each(|(dtype, _, tensor)| dtype.write(tensor.data(), out))
    })
}

/// Refuses a value that is not finite, or becomes infinite in the dtype. `tensor` may be a part of
/// the one that is named, from an element on.
pub(super) fn check_fits(
    dtype: ExportDtype,
    (name, first): (&str, usize),
    tensor: &Tensor,
) -> Result<(), KernelError> {
    match tensor
        .data()
        .iter()
        .position(|value| !dtype.rounded(*value).is_finite())
    {
        None => Ok(()),
        Some(index) => Err(KernelError::NotFinite {
            tensor: format!("{name} as {dtype:?}"),
            index: first + index,
            value: tensor.data()[index],
        }),
    }
}

/// The header's JSON, padded with spaces so that the data begin at a multiple of eight. `order` has
/// the dtype, name and shape of each tensor, in the order of their bytes.
pub(super) fn header<'a>(
    order: impl Iterator<Item = (ExportDtype, &'a str, &'a [usize])>,
) -> serde_json::Result<String> {
    // The object is built by hand: a map would sort the entries by name, not by offset.
    let mut text = String::from(r#"{"__metadata__":{"format":"pt"}"#);
    let mut offset = 0;
    for (dtype, name, shape) in order {
        let elements: u64 = shape.iter().map(|&dim| dim as u64).product();
        let end = offset + elements * dtype.width();
        let entry = HeaderEntry {
            dtype,
            shape,
            data_offsets: [offset, end],
        };
        let (name, entry) = (serde_json::to_string(name)?, serde_json::to_string(&entry)?);
        text.push_str(&format!(",{name}:{entry}"));
        offset = end;
    }
    text.push('}');
    text.push_str(&" ".repeat(text.len().next_multiple_of(8) - text.len()));
    Ok(text)
}
