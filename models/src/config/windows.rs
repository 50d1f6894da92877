//! Which layers see a sliding window only: `sliding_window` and the keys around it.

use serde_json::Value;

use super::Family;
use super::fields::ConfigFields;
use super::rope::POSITIONS_MAX;
use crate::error::ModelError;

/// The window of Mistral and Qwen where the key is absent; null is no window.
const WINDOW_DEFAULT: u32 = 4_096;
/// The first layer with a window in a Qwen that does not say.
const FIRST_WINDOWED_DEFAULT: u64 = 28;

/// The window of each layer, as transformers 5 gives it to the layer.
pub(super) fn parse(
    fields: &ConfigFields,
    family: Family,
    layers: usize,
    max_positions: usize,
) -> Result<Vec<Option<u32>>, ModelError> {
    // POSITIONS_MAX fits in 32 bits.
    let given = fields
        .size_opt("sliding_window", POSITIONS_MAX)?
        .map(|positions| positions as u32);
    let given_or_default = match fields.has("sliding_window") {
        true => given,
        false => Some(WINDOW_DEFAULT),
    };
    let switch = fields.flag_opt("use_sliding_window")?;
    let first = first_windowed(fields)?;
    let listed = fields.get("layer_types");
    let listed = listed.map(|types| layer_types(fields, types, layers));
    let listed = listed.transpose()?;
    // A window of all positions hides none.
    let hides = |window: Option<u32>| window.is_some_and(|w| (w as usize) < max_positions);
    match family {
        Family::Llama => {
            no_windows(
                fields,
                hides(given) && switch != Some(false),
                listed.as_deref(),
            )?;
            Ok(vec![None; layers])
        }
        Family::Mistral => {
            let window = given_or_default;
            if hides(window) {
                every_layer_has_it(fields, switch, first, listed.is_some())?;
            }
            match listed {
                Some(listed) => windowed(fields, &listed, window),
                None => Ok(vec![window; layers]),
            }
        }
        Family::Qwen2 | Family::Qwen3 => {
            let window = given_or_default.filter(|_| switch == Some(true));
            let first = first.unwrap_or(FIRST_WINDOWED_DEFAULT);
            match listed {
                Some(listed) => windowed(fields, &listed, window),
                None => Ok((0..layers as u64)
                    .map(|layer| window.filter(|_| layer >= first))
                    .collect()),
            }
        }
    }
}

fn first_windowed(fields: &ConfigFields) -> Result<Option<u64>, ModelError> {
    let Some(value) = fields.object.get("max_window_layers") else {
        return Ok(None);
    };
    let bad = || {
        fields.bad(
            "max_window_layers",
            value,
            "must be a whole number of layers",
        )
    };
    value.as_u64().map(Some).ok_or_else(bad)
}

/// transformers' Llama computes no windows, whatever its file says of them.
fn no_windows(
    fields: &ConfigFields,
    window: bool,
    listed: Option<&[bool]>,
) -> Result<(), ModelError> {
    let rule = "a Llama has no sliding windows, in transformers either: the weights may be of \
                another family; where they are not, remove the key";
    if window {
        let value = fields.get("sliding_window").unwrap_or(&Value::Null);
        return Err(fields.bad("sliding_window", value, rule));
    }
    if listed.is_some_and(|types| types.contains(&true)) {
        let value = fields.get("layer_types").unwrap_or(&Value::Null);
        return Err(fields.bad("layer_types", value, rule));
    }
    Ok(())
}

/// The switches of Qwen, which transformers' Mistral does not look at.
fn every_layer_has_it(
    fields: &ConfigFields,
    switch: Option<bool>,
    first: Option<u64>,
    listed: bool,
) -> Result<(), ModelError> {
    let rule = "a Mistral does not look at this key, in transformers either, and has its window on \
                every layer: list the layers in layer_types, or set sliding_window to null";
    if switch == Some(false) {
        return Err(fields.bad("use_sliding_window", false, rule));
    }
    match first {
        Some(first) if first > 0 && !listed => Err(fields.bad("max_window_layers", first, rule)),
        _ => Ok(()),
    }
}

/// Whether each layer has a window, as `layer_types` lists them.
fn layer_types(
    fields: &ConfigFields,
    types: &Value,
    layers: usize,
) -> Result<Vec<bool>, ModelError> {
    let rule = "must list full_attention or sliding_attention for every layer";
    let bad = || fields.bad("layer_types", types, rule);
    let names = types
        .as_array()
        .filter(|names| names.len() == layers)
        .ok_or_else(bad)?;
    names
        .iter()
        .map(|name| match name.as_str() {
            // The first is how it was called before.
            Some("attention" | "full_attention") => Ok(false),
            Some("sliding_attention") => Ok(true),
            _ => Err(bad()),
        })
        .collect()
}

fn windowed(
    fields: &ConfigFields,
    listed: &[bool],
    window: Option<u32>,
) -> Result<Vec<Option<u32>>, ModelError> {
    if window.is_none() && listed.contains(&true) {
        let value = fields.get("layer_types").unwrap_or(&Value::Null);
        let rule = "sliding_attention needs a window: a number as sliding_window, and in a Qwen \
                    use_sliding_window true";
        return Err(fields.bad("layer_types", value, rule));
    }
    Ok(listed
        .iter()
        .map(|is_windowed| window.filter(|_| *is_windowed))
        .collect())
}
