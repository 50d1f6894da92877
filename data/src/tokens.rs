//! `tokens`: token ids from a safetensors file, for comparisons with other systems.

use std::fs;

use safetensors::{Dtype, SafeTensors};

use crate::error::DataError;
use crate::loader::DataLoader;
use crate::sequences::{DataCounts, Grouping, Sequencer, Sink};
use crate::source::{DatasetSource, ExcessLength};

/// The name of the tensor.
const NAME: &str = "tokens";

pub(crate) fn load(
    source: &DatasetSource,
    loader: &DataLoader,
    sink: &mut Sink,
) -> Result<(DataCounts, Grouping), DataError> {
    let len = loader.sequence_len;
    let bytes = fs::read(&source.path).map_err(DataError::io("read", &source.path))?;
    let file = SafeTensors::deserialize(&bytes);
    let file = file.map_err(|error| source.fail(format!("not a safetensors file: {error}")))?;
    if let Some(other) = file.names().into_iter().find(|name| *name != NAME) {
        return Err(source.fail(format!(
            "it has a tensor `{other}`, which is not read; a file of `type: tokens` has `{NAME}` \
             alone"
        )));
    }
    let tensor = file.tensor(NAME);
    let tensor = tensor.map_err(|_| source.fail(format!("the tensor `{NAME}` is missing")))?;
    if tensor.dtype() != Dtype::I64 {
        let found = tensor.dtype();
        return Err(source.fail(format!("the tensor `{NAME}` is {found:?}, but must be I64")));
    }
    let shape = tensor.shape();
    let axes = shape.iter().map(|axis| u32::try_from(*axis));
    let axes = axes.collect::<Result<Vec<u32>, _>>();
    let Ok(&[steps, microbatches, batch, sequence]) = axes.as_deref() else {
        return Err(source.fail(format!(
            "`{NAME}` has shape {shape:?}, but must be [step, microbatch, batch, sequence]"
        )));
    };
    if tensor.data().is_empty() {
        return Err(source.fail(format!("it is empty: `{NAME}` has shape {shape:?}")));
    }
    if sequence != len {
        return Err(source.fail(format!(
            "its sequences have {sequence} tokens, but sequence_len is {len}; make them equal"
        )));
    }
    let ids = tensor.data().as_chunks().0.iter();
    let ids = ids.map(|bytes: &[u8; 8]| i64::from_le_bytes(*bytes));
    let tokens = ids.enumerate().map(|(index, id)| match u32::try_from(id) {
        Err(_) => Err(source.fail(format!("{id} is not a token id"))),
        Ok(id) if id as usize >= loader.vocab => Err(source.fail(loader.beyond(index as u64, id))),
        Ok(id) => Ok(id),
    });
    let tokens = tokens.collect::<Result<Vec<u32>, DataError>>()?;
    let mut sink = |view: crate::sequences::SequenceView| sink(view);
    let mut sequencer = Sequencer::new(len, ExcessLength::Error, &mut sink);
    for sequence in tokens.chunks_exact(len as usize) {
        sequencer.add_full(sequence);
    }
    let count = sequencer.counts.sequences;
    let counts = DataCounts {
        rows: count,
        examples: count,
        ..sequencer.counts
    };
    let grouping = Grouping {
        steps,
        microbatches,
        batch,
    };
    Ok((counts, grouping))
}
