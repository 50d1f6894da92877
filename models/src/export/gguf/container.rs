//! The GGUF container: header, metadata and the places of tensors, as bytes.

use concord_kernels::packed::BlockFormat;

/// Every tensor begins at a multiple of this.
pub(super) const ALIGNMENT: u64 = 32;

/// The version of the container.
const VERSION: u32 = 3;

/// A value of the metadata.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum MetaValue {
    U32(u32),
    F32(f32),
    Bool(bool),
    Text(String),
    Texts(Vec<String>),
    F32s(Vec<f32>),
    I32s(Vec<i32>),
}

/// Keys and values, in their order in the file.
pub(super) type Metadata = Vec<(String, MetaValue)>;

/// A tensor of the file.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Info {
    pub(super) name: String,
    /// Its shape, rows first.
    pub(super) shape: Vec<usize>,
    pub(super) format: BlockFormat,
}

impl Info {
    /// Bytes of its numbers.
    pub(super) fn bytes(&self) -> u64 {
        let cols = self.shape.last().copied().unwrap_or(1);
        let rows: u64 = self
            .shape
            .iter()
            .rev()
            .skip(1)
            .map(|dim| *dim as u64)
            .product();
        // The type was chosen so that rows are whole blocks.
        rows * self.format.row_bytes(cols).unwrap_or(0) as u64
    }
}

/// The bytes before the data: header, metadata, infos and padding.
pub(super) fn head(metadata: &Metadata, tensors: &[Info]) -> Vec<u8> {
    let mut out = b"GGUF".to_vec();
    out.extend(VERSION.to_le_bytes());
    out.extend((tensors.len() as u64).to_le_bytes());
    out.extend((metadata.len() as u64).to_le_bytes());
    for (key, value) in metadata {
        text(&mut out, key);
        write_value(&mut out, value);
    }
    let mut offset = 0_u64;
    for tensor in tensors {
        text(&mut out, &tensor.name);
        out.extend((tensor.shape.len() as u32).to_le_bytes());
        // The innermost dimension is first.
        for dim in tensor.shape.iter().rev() {
            out.extend((*dim as u64).to_le_bytes());
        }
        out.extend(kind(tensor.format).to_le_bytes());
        out.extend(offset.to_le_bytes());
        offset = (offset + tensor.bytes()).next_multiple_of(ALIGNMENT);
    }
    let padded = (out.len() as u64).next_multiple_of(ALIGNMENT);
    out.resize(padded as usize, 0);
    out
}

/// The number of a type.
fn kind(format: BlockFormat) -> u32 {
    match format {
        BlockFormat::F16 => 1,
        BlockFormat::Q5_0 => 6,
        BlockFormat::Q5_1 => 7,
        BlockFormat::Q8_0 => 8,
        BlockFormat::Q4K => 12,
        BlockFormat::Q5K => 13,
        BlockFormat::Q6K => 14,
        BlockFormat::Bf16 => 30,
        // No mix of types has others.
        _ => 0,
    }
}

fn text(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}

fn write_value(out: &mut Vec<u8>, value: &MetaValue) {
    let mut list = |kind: u32, count: usize| {
        out.extend(9_u32.to_le_bytes());
        out.extend(kind.to_le_bytes());
        out.extend((count as u64).to_le_bytes());
    };
    match value {
        MetaValue::Texts(values) => list(8, values.len()),
        MetaValue::F32s(values) => list(6, values.len()),
        MetaValue::I32s(values) => list(5, values.len()),
        MetaValue::U32(_) => out.extend(4_u32.to_le_bytes()),
        MetaValue::F32(_) => out.extend(6_u32.to_le_bytes()),
        MetaValue::Bool(_) => out.extend(7_u32.to_le_bytes()),
        MetaValue::Text(_) => out.extend(8_u32.to_le_bytes()),
    }
    match value {
        MetaValue::U32(value) => out.extend(value.to_le_bytes()),
        MetaValue::F32(value) => out.extend(value.to_le_bytes()),
        MetaValue::Bool(value) => out.push(u8::from(*value)),
        MetaValue::Text(value) => text(out, value),
        MetaValue::Texts(values) => values.iter().for_each(|value| text(out, value)),
        MetaValue::F32s(values) => values.iter().for_each(|v| out.extend(v.to_le_bytes())),
        MetaValue::I32s(values) => values.iter().for_each(|v| out.extend(v.to_le_bytes())),
    }
}
