//! `tokens`: token ids from a safetensors file, for comparisons with other systems.

use super::text::all_but_first;
use super::{DatasetSource, Grouping, Sequences};
use crate::error::ModelError;
use crate::weights::TensorFile;

/// The name of the tensor.
const NAME: &str = "tokens";

pub(super) fn load(source: &DatasetSource, len: u32) -> Result<Sequences, ModelError> {
    let file = TensorFile::open(&source.path)?;
    if let Some(other) = file.names().find(|name| *name != NAME) {
        return Err(source.fail(format!(
            "it has a tensor `{other}`, which is not read; a file of `type: tokens` has `{NAME}` \
             alone"
        )));
    }
    let ids = file.load_i64(NAME)?;
    let shape = file.shape(NAME).unwrap_or(&[]);
    let axes = shape
        .iter()
        .map(|axis| u32::try_from(*axis))
        .collect::<Result<Vec<u32>, _>>();
    let Ok(&[steps, microbatches, batch, sequence]) = axes.as_deref() else {
        return Err(source.fail(format!(
            "`{NAME}` has shape {shape:?}, but must be [step, microbatch, batch, sequence]"
        )));
    };
    if ids.is_empty() {
        return Err(source.fail(format!("it is empty: `{NAME}` has shape {shape:?}")));
    }
    if sequence != len {
        return Err(source.fail(format!(
            "its sequences have {sequence} tokens, but sequence_len is {len}; make them equal"
        )));
    }
    let tokens = ids
        .iter()
        .map(|id| u32::try_from(*id))
        .collect::<Result<Vec<u32>, _>>();
    let tokens = tokens.map_err(|_| {
        let bad = ids
            .iter()
            .find(|id| u32::try_from(**id).is_err())
            .copied()
            .unwrap_or_default();
        source.fail(format!("{bad} is not a token id"))
    })?;
    let count = tokens.len() / len as usize;
    Ok(Sequences {
        examples: count as u32,
        loss_mask: all_but_first(count, len),
        tokens,
        grouping: Some(Grouping {
            steps,
            microbatches,
            batch,
        }),
        ..Sequences::empty(len)
    })
}
