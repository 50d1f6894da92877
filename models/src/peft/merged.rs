//! A base model with an adapter merged into it.

use super::Adapter;
use crate::error::ModelError;
use crate::export::ExportSource;
use crate::weights::{ModelFolder, TakeRows, squared_norm};

/// The numbers of a base model, with those of an adapter added: `W + s * (B A)`, where each
/// module has its own s.
///
/// Each number is computed in f32 (NUMERICS.md, section 1): the products of B's row and A's columns
/// are added in the order of the rank, from +0, then `s` times the sum is added to W. Each product
/// and each sum is rounded; none is fused. With DoRA, the row is then multiplied by its magnitude
/// over its norm.
#[derive(Clone, Copy, Debug)]
pub struct MergedModel<'a> {
    /// The base model. Packed weights are decoded first.
    pub base: &'a ModelFolder,
    /// The adapter, which must be of this model.
    pub adapter: &'a Adapter,
}

impl ExportSource for MergedModel<'_> {
    fn folder(&self) -> &ModelFolder {
        self.base
    }

    fn rows(&self, name: &str, take: &mut TakeRows<'_>) -> Result<(), ModelError> {
        if let Some(whole) = self.adapter.tensors.get(&Adapter::saved_key(name)) {
            return take(whole.rows_cols().0, whole.on_host()?.into_owned());
        }
        let module = name.strip_suffix(".weight").unwrap_or(name);
        let factors = Adapter::keys(module).map(|key| self.adapter.tensors.get(&key));
        let [Some(a), Some(b)] = factors else {
            return self.base.load_rows(name, take);
        };
        let magnitudes = self.adapter.tensors.get(&Adapter::magnitude_key(module));
        let magnitudes = magnitudes.map(|m| m.on_host()).transpose()?;
        let (a, b) = (a.on_host()?, b.on_host()?);
        let rank = a.rows_cols().0;
        let scale = self.scale(module);
        let (mut sums, mut first) = (Vec::new(), 0);
        self.base.load_rows(name, &mut |total, mut rows| {
            let (count, cols) = rows.rows_cols();
            let of_b = b.data()[first * rank..].chunks(rank.max(1));
            let merged = rows.values_mut()?.chunks_mut(cols.max(1)).zip(of_b);
            for (index, (row, b)) in merged.enumerate() {
                add_row(row, b, a.data(), scale, &mut sums);
                if let Some(magnitudes) = &magnitudes {
                    bring_to(row, magnitudes.data()[first + index]);
                }
            }
            first += count;
            take(total, rows)
        })
    }
}

impl MergedModel<'_> {
    /// What the product of the factors of a module is multiplied by.
    fn scale(&self, module: &str) -> f32 {
        let lora = &self.adapter.lora;
        let mut adapted = lora.adapted(self.base.config()).into_iter();
        let found = adapted.find(|adapted| adapted.matrix.module == module);
        found.map_or(lora.common, |adapted| adapted.update).scale()
    }
}

/// Adds `scale * (b A)` to a row.
fn add_row(row: &mut [f32], b: &[f32], a: &[f32], scale: f32, sums: &mut Vec<f32>) {
    sums.clear();
    sums.resize(row.len(), 0.0);
    for (b, a) in b.iter().zip(a.chunks(row.len().max(1))) {
        for (sum, a) in sums.iter_mut().zip(a) {
            *sum += b * a;
        }
    }
    for (number, sum) in row.iter_mut().zip(sums) {
        *number += scale * *sum;
    }
}

/// Brings a row to a length; a row of zeros stays so.
fn bring_to(row: &mut [f32], magnitude: f32) {
    let norm = squared_norm(row).sqrt();
    if norm > 0.0 {
        let gain = (f64::from(magnitude) / norm) as f32;
        row.iter_mut().for_each(|number| *number *= gain);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_brought_to_its_magnitude() {
        let mut row = [3.0, -4.0];
        bring_to(&mut row, 10.0);
        assert_eq!(row, [6.0, -8.0]);
        let mut empty = [0.0, 0.0];
        bring_to(&mut empty, 10.0);
        assert_eq!(empty, [0.0, 0.0]);
    }

    #[test]
    fn a_row_gets_its_share_of_the_product() {
        // B's row (2, -1), A = ((1, 0, 3), (4, 5, 6)), scale 0.5.
        let mut row = [10.0, 20.0, 30.0];
        let a = [1.0, 0.0, 3.0, 4.0, 5.0, 6.0];
        add_row(&mut row, &[2.0, -1.0], &a, 0.5, &mut Vec::new());
        assert_eq!(row, [9.0, 17.5, 30.0]);
    }
}
