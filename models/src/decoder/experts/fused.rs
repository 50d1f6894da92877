//! Experts that are fused in the weights (gpt-oss): `gate_up_proj` `[experts, d, 2 f]`, whose
//! columns alternate between gate and up, and `down_proj` `[experts, f, d]`, both transposed.
//!
//! They are computed like separate experts. This module splits their values into the matrices of
//! each expert, and joins gradients again, on the host.

use std::collections::BTreeMap;

use concord_kernels::{KernelError, Tensor};

use crate::decoder::dense::Dense;
use crate::decoder::gradients::{Gradients, TensorUse};
use crate::decoder::linear::Backward;

/// The names of the fused tensors of a layer.
#[derive(Clone, Debug)]
pub(in crate::decoder) struct FusedExperts {
    pub(in crate::decoder) gate_up: String,
    pub(in crate::decoder) gate_up_bias: String,
    pub(in crate::decoder) down: String,
    pub(in crate::decoder) down_bias: String,
    pub(in crate::decoder) trains: bool,
}

/// The matrices that one expert's part of a tensor becomes, by their internal names.
type Parts = Vec<(String, Tensor)>;

impl FusedExperts {
    /// The internal names of an expert's gate, up and down projection, each with that of its bias.
    pub(in crate::decoder) fn names(&self, expert: usize) -> [[String; 2]; 3] {
        let of = |weight: &str, bias: &str, part: &str| {
            let name = |tensor: &str| format!("{tensor}[{expert}]{part}");
            [name(weight), name(bias)]
        };
        [
            of(&self.gate_up, &self.gate_up_bias, ".gate"),
            of(&self.gate_up, &self.gate_up_bias, ".up"),
            of(&self.down, &self.down_bias, ""),
        ]
    }

    /// Whether `name` is one of the fused tensors.
    pub(in crate::decoder) fn has(&self, name: &str) -> bool {
        [
            &self.gate_up,
            &self.gate_up_bias,
            &self.down,
            &self.down_bias,
        ]
        .iter()
        .any(|own| *own == name)
    }

    /// The matrices of an expert from its part `values` of the tensor `name`, rows of `cols`.
    pub(in crate::decoder) fn parts(
        &self,
        name: &str,
        expert: usize,
        values: &[f32],
        cols: usize,
    ) -> Result<Parts, KernelError> {
        let [[gate, gate_bias], [up, up_bias], [down, down_bias]] = self.names(expert);
        let (half, rows) = (cols / 2, values.len() / cols);
        let every_second = |first: usize| values.iter().skip(first).step_by(2).copied().collect();
        let pairs = [(gate, gate_bias, 0), (up, up_bias, 1)];
        if name == self.down {
            let weight = Tensor::new(&[cols, rows], transposed(values, cols))?;
            return Ok(vec![(down, weight)]);
        }
        if name == self.down_bias {
            return Ok(vec![(down_bias, Tensor::new(&[cols], values.to_vec())?)]);
        }
        let part = |(weight, bias, first): (String, String, usize)| {
            let side: Vec<f32> = every_second(first);
            if name == self.gate_up_bias {
                return Ok((bias, Tensor::new(&[half], side)?));
            }
            Ok((weight, Tensor::new(&[half, rows], transposed(&side, half))?))
        };
        pairs.into_iter().map(part).collect()
    }

    /// The matrices of all experts from the tensor `name`.
    pub(in crate::decoder) fn all_parts(
        &self,
        name: &str,
        experts: usize,
        value: &Tensor,
    ) -> Result<Parts, KernelError> {
        let cols = value.rows_cols().1;
        let values = value.values()?;
        let mut parts = Vec::new();
        for (expert, values) in values.chunks_exact(values.len() / experts).enumerate() {
            parts.extend(self.parts(name, expert, values, cols)?);
        }
        Ok(parts)
    }

    /// Runs `work`, which adds gradients of the experts' matrices, and joins these into gradients
    /// of the fused tensors.
    pub(super) fn backward(
        &self,
        run: &mut Backward<'_>,
        experts: &[Dense],
        work: impl FnOnce(&mut Backward<'_>) -> Result<Tensor, KernelError>,
    ) -> Result<Tensor, KernelError> {
        let mut apart = Gradients::default();
        let d_rows = work(&mut Backward {
            device: run.device,
            atoms: run.atoms,
            rows: run.rows,
            precision: run.precision,
            drops: run.drops,
            gradients: &mut apart,
        })?;
        if self.trains {
            let mut found = BTreeMap::new();
            for (key, gradient) in apart.0 {
                found.insert(key.name, gradient.into_values()?);
            }
            self.insert(run, experts, &found)?;
        }
        Ok(d_rows)
    }

    fn insert(
        &self,
        run: &mut Backward<'_>,
        experts: &[Dense],
        apart: &BTreeMap<String, Vec<f32>>,
    ) -> Result<(), KernelError> {
        let [mut gate_up, mut gate_up_bias] = [const { Vec::new() }; 2];
        let [mut down, mut down_bias] = [const { Vec::new() }; 2];
        let (mut width, mut hidden) = (0, 0);
        for (index, expert) in experts.iter().enumerate() {
            (hidden, width) = (expert.down.weight.rows, expert.down.weight.cols);
            let names = self.names(index);
            let [gate, up, own_down] = names.each_ref().map(|[name, _]| &apart[name]);
            let [gate_bias, up_bias, own_bias] = names.each_ref().map(|[_, name]| &apart[name]);
            let (gate, up) = (transposed(gate, hidden), transposed(up, hidden));
            gate_up.extend(in_turns(&gate, &up));
            gate_up_bias.extend(in_turns(gate_bias, up_bias));
            down.extend(transposed(own_down, width));
            down_bias.extend_from_slice(own_bias);
        }
        let count = experts.len();
        let tensors = [
            (&self.gate_up, vec![count, hidden, 2 * width], gate_up),
            (&self.gate_up_bias, vec![count, 2 * width], gate_up_bias),
            (&self.down, vec![count, width, hidden], down),
            (&self.down_bias, vec![count, hidden], down_bias),
        ];
        for (name, shape, values) in tensors {
            let gradient = run.device.place(Tensor::new(&shape, values)?)?;
            run.gradients.insert(name, TensorUse::Own, gradient);
        }
        Ok(())
    }
}

fn in_turns<'a>(a: &'a [f32], b: &'a [f32]) -> impl Iterator<Item = f32> + 'a {
    a.iter().zip(b).flat_map(|(a, b)| [*a, *b])
}

/// `[rows, cols]` to `[cols, rows]`.
fn transposed(values: &[f32], cols: usize) -> Vec<f32> {
    let rows = values.len() / cols;
    let mut turned = vec![0.0; values.len()];
    for (row, line) in values.chunks_exact(cols).enumerate() {
        for (col, value) in line.iter().enumerate() {
            turned[col * rows + row] = *value;
        }
    }
    turned
}
