//! Which layers have a sliding window: `sliding_window` and the keys around it.

use serde_json::Value;

use super::DecoderConfig;
use super::fields::ConfigFields;
use super::rope::POSITIONS_MAX;
use crate::error::ModelError;

/// The window of Mistral and Qwen where the key is absent; null is no window.
const WINDOW_DEFAULT: u32 = 4_096;
/// The first layer with a window in a Qwen, by default.
const FIRST_WINDOWED_DEFAULT: u64 = 28;

/// The window of each layer.
type Windows = Vec<Option<u32>>;

/// A Llama has no windows.
pub(super) fn of_llama(
    fields: &ConfigFields,
    config: &DecoderConfig,
) -> Result<Windows, ModelError> {
    let keys = Keys::read(fields, config)?;
    let window = keys.hides(keys.given) && keys.switch != Some(false);
    no_windows(fields, window, keys.listed.as_deref())?;
    Ok(vec![None; config.layers])
}

/// A Mistral has a window on every layer, or on those that the file lists.
pub(super) fn of_mistral(
    fields: &ConfigFields,
    config: &DecoderConfig,
) -> Result<Windows, ModelError> {
    let keys = Keys::read(fields, config)?;
    let window = keys.given_or(fields, WINDOW_DEFAULT);
    if keys.hides(window) {
        every_layer_has_it(fields, keys.switch, keys.first, keys.listed.is_some())?;
    }
    match keys.listed {
        Some(listed) => windowed(fields, &listed, window),
        None => Ok(vec![window; config.layers]),
    }
}

/// A Qwen has windows only where they are switched on: on the layers that the file lists, or from
/// a first layer on.
pub(super) fn of_qwen(
    fields: &ConfigFields,
    config: &DecoderConfig,
) -> Result<Windows, ModelError> {
    let keys = Keys::read(fields, config)?;
    let window = keys.given_or(fields, WINDOW_DEFAULT);
    let window = window.filter(|_| keys.switch == Some(true));
    let first = keys.first.unwrap_or(FIRST_WINDOWED_DEFAULT);
    match keys.listed {
        Some(listed) => windowed(fields, &listed, window),
        None => Ok((0..config.layers as u64)
            .map(|layer| window.filter(|_| layer >= first))
            .collect()),
    }
}

/// The windows of a file that switches them off: none. Such a file may still list layers, but none
/// with a window: transformers would mask every position there.
pub(super) fn switched_off(
    fields: &ConfigFields,
    config: &DecoderConfig,
) -> Result<Windows, ModelError> {
    if let Some(types) = fields.get("layer_types") {
        let listed = layer_types(fields, types, config.layers)?;
        if listed.contains(&true) {
            let rule = "use_sliding_window is false: no layer can have a window";
            return Err(fields.bad("layer_types", types, rule));
        }
    }
    Ok(vec![None; config.layers])
}

/// `sliding_window` on every layer, if it is given.
pub(super) fn everywhere(
    fields: &ConfigFields,
    config: &DecoderConfig,
) -> Result<Windows, ModelError> {
    let window = fields.size_opt("sliding_window", POSITIONS_MAX)?;
    Ok(vec![window.map(|w| w as u32); config.layers])
}

/// `sliding_window` (`default` where the key is absent) on the layers that `layer_types` lists, or
/// without such a list on the layers for which `is_windowed` is true.
pub(super) fn alternating(
    fields: &ConfigFields,
    config: &DecoderConfig,
    default: Option<usize>,
    is_windowed: impl Fn(usize) -> bool,
) -> Result<Windows, ModelError> {
    let keys = Keys::read(fields, config)?;
    let window = match fields.has("sliding_window") {
        true => keys.given,
        false => default.map(|window| window as u32),
    };
    match keys.listed {
        Some(listed) => windowed(fields, &listed, window),
        None => Ok((0..config.layers)
            .map(|layer| window.filter(|_| is_windowed(layer)))
            .collect()),
    }
}

/// What a file says about windows.
struct Keys {
    given: Option<u32>,
    switch: Option<bool>,
    first: Option<u64>,
    /// Whether each layer has a window, where the file lists them.
    listed: Option<Vec<bool>>,
    max_positions: usize,
}

impl Keys {
    fn read(fields: &ConfigFields, config: &DecoderConfig) -> Result<Self, ModelError> {
        // POSITIONS_MAX fits in 32 bits.
        let given = fields.size_opt("sliding_window", POSITIONS_MAX)?;
        let listed = fields.get("layer_types");
        let listed = listed.map(|types| layer_types(fields, types, config.layers));
        Ok(Self {
            given: given.map(|positions| positions as u32),
            switch: fields.flag_opt("use_sliding_window")?,
            first: first_windowed(fields)?,
            listed: listed.transpose()?,
            max_positions: config.max_positions,
        })
    }

    fn given_or(&self, fields: &ConfigFields, default: u32) -> Option<u32> {
        match fields.has("sliding_window") {
            true => self.given,
            false => Some(default),
        }
    }

    /// Whether the window hides any position: one as long as the model's context does not.
    fn hides(&self, window: Option<u32>) -> bool {
        window.is_some_and(|w| (w as usize) < self.max_positions)
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

/// Refuses windows in a file of Llama, whose class in transformers never computes them.
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

/// Refuses Qwen's switches of windows in a file of Mistral, whose class does not read them.
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
            // `attention` is the older name.
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
) -> Result<Windows, ModelError> {
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
