//! The expert that every token goes through, with or without a gate of its own.

use concord_kernels::coded::Coded;
use concord_kernels::ops::{RouterKind, Routes, Routing};
use concord_kernels::{Device, Ids, KernelError, Tensor};

use crate::decoder::dense::{Dense, DenseTape};
use crate::decoder::linear::{Backward, Linear, LinearTape};
use crate::decoder::pass::LayerPass;

/// The gate is computed as a router that always chooses its only expert.
const GATE: Routing = Routing {
    kind: RouterKind::Sigmoid,
    chosen: 1,
    normalised: false,
    factor: 1.0,
};

/// A shared expert.
#[derive(Clone, Debug)]
pub(in crate::decoder) struct SharedExpert {
    pub(in crate::decoder) dense: Dense,
    /// `[1, d]`; the expert's result is multiplied by the sigmoid of `gate(x)`.
    pub(in crate::decoder) gate: Option<Linear>,
}

/// What the backward pass needs.
#[derive(Debug)]
pub(super) struct SharedTape {
    dense: DenseTape,
    gate: Option<GateTape>,
}

#[derive(Debug)]
struct GateTape {
    logits: Tensor,
    linear: LinearTape,
    routes: Routes,
    /// The expert's result, `[m, d]`.
    result: Tensor,
}

impl SharedExpert {
    /// From the codes of x `[m, d]` to y `[m, d]`.
    pub(super) fn forward(
        &self,
        pass: &dyn LayerPass,
        input: &Coded,
    ) -> Result<(Tensor, SharedTape), KernelError> {
        let context = pass.context();
        let device = context.device;
        let multiply = |linear: &Linear, x: &Coded| pass.linear(linear, x);
        let (result, dense) = self
            .dense
            .forward_coded(context, input.clone(), &multiply)?;
        let Some(gate) = &self.gate else {
            return Ok((result, SharedTape { dense, gate: None }));
        };
        let (logits, linear) = pass.linear(gate, input)?;
        let routes = device.route(&logits, None, &GATE)?;
        let mut y = device.zeros(result.shape())?;
        let slots = each(device, input.rows)?;
        device.combine(&mut y, &result, &slots, Some(&routes.weights))?;
        let gate = Some(GateTape {
            logits,
            linear,
            routes,
            result,
        });
        Ok((y, SharedTape { dense, gate }))
    }

    /// Adds the gradients of what is trained, and returns dx `[m, d]`: the expert's part plus the
    /// gate's.
    pub(super) fn backward(
        &self,
        run: &mut Backward<'_>,
        tape: &SharedTape,
        input: &Coded,
        dy: &Tensor,
    ) -> Result<Tensor, KernelError> {
        let (Some(gate), Some(of_gate)) = (&self.gate, &tape.gate) else {
            return self.dense.backward(run, &tape.dense, dy);
        };
        let device = run.device;
        let (slots, routes) = (each(device, input.rows)?, &of_gate.routes);
        let (d_result, d_weights) =
            device.combine_backward(dy, &of_gate.result, &slots, &routes.weights)?;
        let mut dx = self.dense.backward(run, &tape.dense, &d_result)?;
        let d_logits = device.route_backward(&of_gate.logits, routes, &d_weights, &GATE)?;
        let from_gate = gate.backward(run, &d_logits, input, &of_gate.linear)?;
        device.add_assign(&mut dx, &from_gate)?;
        Ok(dx)
    }

    /// Its matrices.
    pub(super) fn linears_mut(&mut self) -> impl Iterator<Item = &mut Linear> {
        let dense = self.dense.linears_mut();
        dense.into_iter().chain(&mut self.gate)
    }
}

/// The identity map: row i belongs to token i.
fn each(device: &Device, rows: usize) -> Result<Ids, KernelError> {
    device.ids(&(0..rows as u32).collect::<Vec<_>>())
}
