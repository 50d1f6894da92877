//! bitsandbytes: 4-bit levels with a scale for each block of the flattened matrix (NF4, FP4), and
//! 8-bit integers with a scale for each row (LLM.int8).

use std::ops::Range;

use concord_kernels::packed::{BlockFormat, INT8_STEP, NF4_LEVELS};
use safetensors::Dtype;
use serde_json::{Map, Value};

use super::PackedMatrix;
use super::codes::{Codes, fitting};
use super::parts::{PackedParts, StoredPart};
use crate::error::ModelError;
use crate::json::{self, shown};

pub(super) fn open(parts: PackedParts<'_>) -> Result<PackedMatrix<'_>, ModelError> {
    match parts.find(".weight.absmax") {
        Some(absmax) => open_levels(parts, absmax),
        None => open_int8(parts),
    }
}

fn open_int8(parts: PackedParts<'_>) -> Result<PackedMatrix<'_>, ModelError> {
    let weight = parts.typed(".weight", Dtype::I8)?;
    let [rows, cols] = weight.matrix()?;
    let scb = parts.typed(".SCB", Dtype::F32)?;
    let scb = scb.shaped(&[rows], "the rows of the weight")?;
    if let Some(format) = parts.find(".weight_format")
        && format.bytes.iter().any(|byte| *byte != 0)
    {
        return Err(format.bad(
            "the weight is in the order of a kernel, and only that of rows (0) is read: load the \
             model with a present bitsandbytes and save it again",
        ));
    }
    let format = move || fitting(BlockFormat::Int8x64, cols, cols);
    Ok(PackedMatrix::of_codes([rows, cols], format, move || {
        Ok(Int8 {
            cols,
            scales: scb.floats()?,
            codes: weight.bytes,
        })
    }))
}

struct Int8<'a> {
    cols: usize,
    /// The largest magnitude of each row.
    scales: Vec<f32>,
    codes: &'a [u8],
}

impl Codes for Int8<'_> {
    fn cols(&self) -> usize {
        self.cols
    }

    fn read(&self, rows: Range<usize>, out: &mut [u8]) {
        out.copy_from_slice(&self.codes[rows.start * self.cols..rows.end * self.cols]);
    }

    fn group(&self, row: usize, _: usize) -> (f32, i32) {
        (self.scales[row], 0)
    }

    /// Two roundings, in this order.
    fn number(&self, code: u8, (scale, _): (f32, i32)) -> f32 {
        f32::from(code as i8) * scale * INT8_STEP
    }
}

/// The JSON in `weight.quant_state.bitsandbytes__nf4`.
struct QuantState {
    shape: [usize; 2],
    block: usize,
    /// Where the scales are codes, too: how many of them share a scale, and the offset.
    nested: Option<(usize, f32)>,
}

/// Largest block size that is accepted, above those of the library.
const BLOCK_MAX: u64 = 1 << 20;

impl QuantState {
    fn read(part: &StoredPart) -> Result<Self, ModelError> {
        let path = part.path();
        let object = json::object(&path, part.bytes)?;
        let size = |key: &str| {
            let found = object.get(key).and_then(Value::as_u64);
            let found = found.filter(|size| (1..=BLOCK_MAX).contains(size));
            found.map(|size| size as usize).ok_or_else(|| {
                part.bad(format!(
                    "`{key}` must be a whole number from 1 to {BLOCK_MAX}"
                ))
            })
        };
        let nested = match object.get("nested_offset") {
            None | Some(Value::Null) => None,
            Some(value) => {
                let offset = value.as_f64().map(|offset| offset as f32);
                let offset = offset.filter(|offset| offset.is_finite());
                let offset = offset
                    .ok_or_else(|| part.bad(format!("`nested_offset` is {}", shown(value))))?;
                Some((size("nested_blocksize")?, offset))
            }
        };
        check_keys(part, &object)?;
        Ok(Self {
            shape: shape(part, object.get("shape"))?,
            block: size("blocksize")?,
            nested,
        })
    }
}

/// Refuses unknown keys. `dtype` is only the type to which the library rounds its results, and
/// `quant_type` only the name of the table of levels, which is in the file.
fn check_keys(part: &StoredPart, object: &Map<String, Value>) -> Result<(), ModelError> {
    const KNOWN: [&str; 7] = [
        "quant_type",
        "blocksize",
        "dtype",
        "shape",
        "nested_blocksize",
        "nested_dtype",
        "nested_offset",
    ];
    if let Some(key) = object.keys().find(|key| !KNOWN.contains(&key.as_str())) {
        return Err(part.bad(format!("nothing is known of its key `{key}`")));
    }
    match object.get("nested_dtype").and_then(Value::as_str) {
        None | Some("float32") => Ok(()),
        Some(other) => Err(part.bad(format!("`nested_dtype` is {other}, and must be float32"))),
    }
}

fn shape(part: &StoredPart, value: Option<&Value>) -> Result<[usize; 2], ModelError> {
    let dims = value.and_then(Value::as_array).map(Vec::as_slice);
    let dim = |value: &Value| usize::try_from(value.as_u64()?).ok();
    let shape = match dims {
        Some([rows, cols]) => dim(rows).zip(dim(cols)),
        _ => None,
    };
    let shape = shape.filter(|(rows, cols)| rows.checked_mul(*cols).is_some());
    let (rows, cols) = shape.ok_or_else(|| part.bad("`shape` must be two sizes"))?;
    Ok([rows, cols])
}

fn open_levels<'a>(
    parts: PackedParts<'a>,
    absmax: StoredPart<'a>,
) -> Result<PackedMatrix<'a>, ModelError> {
    let state = parts
        .find(".weight.quant_state.bitsandbytes__nf4")
        .or_else(|| parts.find(".weight.quant_state.bitsandbytes__fp4"));
    let state = match state {
        Some(state) => state,
        None => parts.part(".weight.quant_state.bitsandbytes__nf4")?,
    };
    let QuantState {
        shape,
        block,
        nested,
    } = QuantState::read(&state)?;
    let elements = shape[0] * shape[1];
    // The codes may be stored under any dtype; only the bytes count.
    let weight = parts.part(".weight")?;
    let needed = elements.div_ceil(2);
    let unit = (weight.dtype.bitsize() / 8).max(1);
    if weight.bytes.len() < needed || weight.bytes.len() - needed >= unit {
        return Err(weight.bad(format!(
            "it has {} bytes, but the shape {shape:?} needs {needed}",
            weight.bytes.len()
        )));
    }
    let levels = parts.typed(".weight.quant_map", Dtype::F32)?;
    let levels = levels.shaped(&[16], "codes of four bits")?;
    let blocks = elements.div_ceil(block);
    let why = "shape and blocksize";
    let absmax = absmax.shaped(&[blocks], why)?;
    let nested = nested
        .map(|(block, offset)| Nested::open(&parts, absmax, block, offset))
        .transpose()?;
    let format = move || {
        let is_nf4 = levels.bytes == NF4_LEVELS.map(f32::to_le_bytes).as_flattened();
        // Blocks go over the flat matrix: those of its rows begin where one of them does.
        let kept = fitting(BlockFormat::Nf4, shape[1], BlockFormat::Nf4.elements());
        let is_split = block.is_multiple_of(BlockFormat::Nf4.elements());
        kept.filter(|_| is_nf4 && is_split)
    };
    Ok(PackedMatrix::of_codes(shape, format, move || {
        Ok(Levels {
            cols: shape[1],
            block,
            scales: match nested {
                Some(nested) => nested.scales()?,
                None => absmax.floats()?,
            },
            levels: levels.floats()?,
            codes: weight.bytes,
        })
    }))
}

/// Scales that are codes themselves ("double quantisation").
#[derive(Clone, Copy)]
struct Nested<'a> {
    codes: &'a [u8],
    block: usize,
    offset: f32,
    levels: StoredPart<'a>,
    absmax: StoredPart<'a>,
}

impl<'a> Nested<'a> {
    fn open(
        parts: &PackedParts<'a>,
        codes: StoredPart<'a>,
        block: usize,
        offset: f32,
    ) -> Result<Self, ModelError> {
        if codes.dtype != Dtype::U8 {
            return Err(codes.bad(format!("it is {:?}, and nested scales are U8", codes.dtype)));
        }
        let blocks = codes.bytes.len().div_ceil(block);
        let levels = parts.typed(".weight.nested_quant_map", Dtype::F32)?;
        let absmax = parts.typed(".weight.nested_absmax", Dtype::F32)?;
        Ok(Self {
            codes: codes.bytes,
            block,
            offset,
            levels: levels.shaped(&[256], "codes of eight bits")?,
            absmax: absmax.shaped(&[blocks], "the scales and nested_blocksize")?,
        })
    }

    fn scales(&self) -> Result<Vec<f32>, ModelError> {
        let (levels, absmax) = (self.levels.floats()?, self.absmax.floats()?);
        let codes = self.codes.iter().enumerate();
        // Two roundings, never one fused operation.
        Ok(codes
            .map(|(i, code)| levels[usize::from(*code)] * absmax[i / self.block] + self.offset)
            .collect())
    }
}

struct Levels<'a> {
    cols: usize,
    /// Elements of the flattened matrix that share a scale; blocks may cross rows.
    block: usize,
    scales: Vec<f32>,
    levels: Vec<f32>,
    codes: &'a [u8],
}

impl Codes for Levels<'_> {
    fn cols(&self) -> usize {
        self.cols
    }

    fn read(&self, rows: Range<usize>, out: &mut [u8]) {
        for (element, out) in (rows.start * self.cols..).zip(out) {
            let byte = self.codes[element / 2];
            // The first of two codes is in the high half of the byte.
            *out = match element % 2 {
                0 => byte >> 4,
                _ => byte & 15,
            };
        }
    }

    fn group(&self, row: usize, col: usize) -> (f32, i32) {
        (self.scales[(row * self.cols + col) / self.block], 0)
    }

    fn number(&self, code: u8, (scale, _): (f32, i32)) -> f32 {
        self.levels[usize::from(code)] * scale
    }
}
