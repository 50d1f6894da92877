//! Queries, keys and values of a layer's input, by three projections or a fused one.

use concord_kernels::coded::Coded;
use concord_kernels::ops::{AttentionShape, Columns};
use concord_kernels::{KernelError, Tensor};

use super::linear::{Backward, Linear, LinearTape};
use super::pass::LayerPass;
use crate::config::FusedQkv;

/// The projections.
#[derive(Clone, Debug)]
pub(super) enum Qkv {
    /// Three projections.
    Apart(Box<[Linear; 3]>),
    /// A fused projection, with the columns of queries, keys and values in its result.
    Fused(Box<Linear>, [Columns; 3]),
}

/// What the backward pass needs.
#[derive(Debug)]
pub(super) struct QkvTape {
    input: Coded,
    linears: Vec<LinearTape>,
}

impl Qkv {
    /// The columns of queries, keys and values in the result of a fused projection.
    pub(super) fn columns(layout: FusedQkv, shape: &AttentionShape) -> [Columns; 3] {
        let (q, kv) = (
            shape.heads * shape.head_dim,
            shape.kv_heads * shape.head_dim,
        );
        let block = |offset: usize, width: usize| Columns {
            groups: 1,
            group_width: q + 2 * kv,
            offset,
            width,
        };
        let of_head = |part: usize| Columns {
            groups: shape.heads,
            group_width: 3 * shape.head_dim,
            offset: part * shape.head_dim,
            width: shape.head_dim,
        };
        match layout {
            FusedQkv::Blocks => [block(0, q), block(q, kv), block(q + kv, kv)],
            FusedQkv::Heads => [of_head(0), of_head(1), of_head(2)],
        }
    }

    /// q `[m, q]`, k and v `[m, k]` of x `[m, d]`.
    pub(super) fn forward(
        &self,
        pass: &dyn LayerPass,
        x: &Tensor,
    ) -> Result<([Tensor; 3], QkvTape), KernelError> {
        let context = pass.context();
        let (device, p) = (context.device, context.precision);
        match self {
            Self::Apart(linears) => {
                let [q, k, v] = &**linears;
                let input = device.code(x, q.weight.cols, p)?;
                let (q, q_tape) = pass.linear(q, &input)?;
                let (k, k_tape) = pass.linear(k, &input)?;
                let (v, v_tape) = pass.linear(v, &input)?;
                let linears = vec![q_tape, k_tape, v_tape];
                Ok(([q, k, v], QkvTape { input, linears }))
            }
            Self::Fused(linear, columns) => {
                let input = device.code(x, linear.weight.cols, p)?;
                let (all, tape) = pass.linear(linear, &input)?;
                let [q, k, v] = columns;
                let parts = [
                    device.take_columns(&all, q)?,
                    device.take_columns(&all, k)?,
                    device.take_columns(&all, v)?,
                ];
                let linears = vec![tape];
                Ok((parts, QkvTape { input, linears }))
            }
        }
    }

    /// Adds the gradients of what is trained, and returns dx `[m, d]` where it is wanted.
    pub(super) fn backward(
        &self,
        run: &mut Backward<'_>,
        tape: &QkvTape,
        gradients: [Tensor; 3],
        wants_dx: bool,
    ) -> Result<Option<Tensor>, KernelError> {
        let (input, device) = (&tape.input, run.device);
        let mut dx: Option<Tensor> = None;
        let mut through = |linear: &Linear, dy: &Tensor, tape: &LinearTape| {
            if !wants_dx {
                return linear.own_gradients(run, dy, input, tape).map(|_| ());
            }
            let from = linear.backward(run, dy, input, tape)?;
            match &mut dx {
                Some(dx) => device.add_assign(dx, &from),
                none => {
                    *none = Some(from);
                    Ok(())
                }
            }
        };
        match self {
            Self::Apart(linears) => {
                let of_each = linears.iter().zip(&gradients).zip(&tape.linears);
                for ((linear, dy), tape) in of_each {
                    through(linear, dy, tape)?;
                }
            }
            Self::Fused(linear, columns) => {
                let rows = gradients[0].rows_cols().0;
                let mut dy = device.zeros(&[rows, linear.weight.rows])?;
                for (part, columns) in gradients.iter().zip(columns) {
                    device.put_columns(&mut dy, columns, part)?;
                }
                through(linear, &dy, &tape.linears[0])?;
            }
        }
        Ok(dx)
    }

    /// Its matrices.
    pub(super) fn linears_mut(&mut self) -> &mut [Linear] {
        match self {
            Self::Apart(linears) => &mut **linears,
            Self::Fused(linear, _) => std::slice::from_mut(&mut **linear),
        }
    }
}
