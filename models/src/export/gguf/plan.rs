//! The tensors of a GGUF file, and what each is made of.

use std::collections::BTreeMap;

use concord_kernels::packed::BlockFormat;

use super::container::Info;
use super::types::GgufKind;
use crate::config::DecoderConfig;
use crate::error::ModelError;
use crate::export::ExportSource;
use crate::weights::{Architecture, RowOrder, stored};

/// A tensor of the file.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct PlannedTensor {
    pub(super) info: Info,
    /// The tensors of transformers that it consists of: several for the experts of a layer.
    pub(super) names: Vec<String>,
    /// Rows of a head, where those of its two halves alternate.
    head_rows: Option<usize>,
    /// Whether 1 is added to the numbers.
    adds_one: bool,
}

/// The tensors of a model, in the order of the computation.
///
/// # Errors
/// A sentence that names a tensor for which GGUF has no name.
pub(super) fn of(
    config: &DecoderConfig,
    architecture: &Architecture,
    kind: GgufKind,
) -> Result<Vec<PlannedTensor>, String> {
    let mut all: Vec<PlannedTensor> = Vec::new();
    let mut places: BTreeMap<String, usize> = BTreeMap::new();
    for spec in config.tensors() {
        let found = stored(architecture, &spec.name);
        let found = found.ok_or_else(|| {
            format!(
                "files of `{}` have no place for its tensor `{}`",
                architecture.name, spec.name
            )
        })?;
        if let Some(place) = places.get(&found.name) {
            let planned = &mut all[*place];
            planned.info.shape[0] += 1;
            planned.names.push(spec.name);
            continue;
        }
        // One row is stored as a vector.
        let own = match spec.shape.as_slice() {
            [1, cols] => vec![*cols],
            shape => shape.to_vec(),
        };
        let cols = own.last().copied().unwrap_or(1);
        let is_matrix = own.len() > 1 && found.name.ends_with(".weight");
        let heads = match found.order {
            RowOrder::Same => None,
            RowOrder::QueryHeads => Some(config.heads),
            RowOrder::KeyHeads => Some(config.kv_heads),
        };
        let head_rows = heads.map(|heads| own[0] / heads);
        places.insert(found.name.clone(), all.len());
        all.push(PlannedTensor {
            info: Info {
                format: match is_matrix {
                    true => kind.of(config, &found.name, cols),
                    false => BlockFormat::F32,
                },
                shape: match found.expert {
                    Some(_) => [&[1], own.as_slice()].concat(),
                    None => own,
                },
                name: found.name,
            },
            names: vec![spec.name],
            head_rows,
            adds_one: found.adds_one,
        });
    }
    Ok(all)
}

/// Gives the numbers of one of a tensor's parts to `take`, as the file has them, some rows at a
/// time; all at once where their order is another.
pub(super) fn each_part(
    source: &dyn ExportSource,
    planned: &PlannedTensor,
    name: &str,
    take: &mut dyn FnMut(&[f32]) -> Result<(), ModelError>,
) -> Result<(), ModelError> {
    let Some(head_rows) = planned.head_rows else {
        return source.rows(name, &mut |_, mut rows| {
            if planned.adds_one {
                rows.values_mut()?
                    .iter_mut()
                    .for_each(|number| *number += 1.0);
            }
            take(rows.data())
        });
    };
    let (mut all, mut cols) = (Vec::new(), 1);
    source.rows(name, &mut |_, rows| {
        // The elements of a bias have the order of its weight's rows.
        cols = match rows.shape() {
            [_, cols] => *cols,
            _ => 1,
        };
        all.extend_from_slice(rows.data());
        Ok(())
    })?;
    take(&interleaved(&all, cols, head_rows))
}

/// Of each head the rows of its two halves, one of each in turn.
fn interleaved(values: &[f32], cols: usize, head_rows: usize) -> Vec<f32> {
    let half = head_rows / 2;
    let mut out = Vec::with_capacity(values.len());
    for head in values.chunks(head_rows * cols) {
        for row in 0..head_rows {
            let from = (row / 2 + row % 2 * half) * cols;
            out.extend_from_slice(&head[from..from + cols]);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_of_heads_alternate() {
        let rows = [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0];
        assert_eq!(
            interleaved(&rows, 1, 4),
            [0.0, 2.0, 1.0, 3.0, 4.0, 6.0, 5.0, 7.0]
        );
        assert_eq!(interleaved(&rows, 2, 4), rows_of_two());
    }

    fn rows_of_two() -> [f32; 8] {
        [0.0, 1.0, 4.0, 5.0, 2.0, 3.0, 6.0, 7.0]
    }
}
