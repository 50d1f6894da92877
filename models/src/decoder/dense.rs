//! A feed-forward layer that every token goes through: `down(act(gate(x)) * up(x))`.

use concord_kernels::coded::Coded;
use concord_kernels::{KernelError, Tensor};

use super::linear::{Backward, Linear, LinearTape};
use super::pass::LayerPass;

/// Its matrices.
#[derive(Clone, Debug)]
pub(super) struct Dense {
    pub(super) gate: Linear,
    pub(super) up: Linear,
    pub(super) down: Linear,
}

/// What the backward pass needs.
#[derive(Debug)]
pub(super) struct DenseTape {
    input: Coded,
    g: Tensor,
    u: Tensor,
    gate_up: [LinearTape; 2],
    down_input: Coded,
    down: LinearTape,
}

impl Dense {
    /// x `[m, d]` to `[m, d]`.
    pub(super) fn forward(
        &self,
        pass: &dyn LayerPass,
        x: &Tensor,
    ) -> Result<(Tensor, DenseTape), KernelError> {
        let context = pass.context();
        let (device, p) = (context.device, context.precision);
        let input = device.code(x, self.gate.weight.cols, p)?;
        let (g, gate_tape) = pass.linear(&self.gate, &input)?;
        let (u, up_tape) = pass.linear(&self.up, &input)?;
        let hidden = device.swiglu(&g, &u)?;
        let down_input = device.code(&hidden, self.down.weight.cols, p)?;
        let (y, down) = pass.linear(&self.down, &down_input)?;
        let tape = DenseTape {
            input,
            g,
            u,
            gate_up: [gate_tape, up_tape],
            down_input,
            down,
        };
        Ok((y, tape))
    }

    /// Gradients of what is trained, and dx `[m, d]`.
    pub(super) fn backward(
        &self,
        run: &mut Backward<'_>,
        tape: &DenseTape,
        dy: &Tensor,
    ) -> Result<Tensor, KernelError> {
        let d_hidden = self.down.backward(run, dy, &tape.down_input, &tape.down)?;
        let (dg, du) = run.device.swiglu_backward(&d_hidden, &tape.g, &tape.u)?;
        let [gate_tape, up_tape] = &tape.gate_up;
        let mut dx = self.gate.backward(run, &dg, &tape.input, gate_tape)?;
        let from_up = self.up.backward(run, &du, &tape.input, up_tape)?;
        run.device.add_assign(&mut dx, &from_up)?;
        Ok(dx)
    }

    /// Its matrices.
    pub(super) fn linears_mut(&mut self) -> Vec<&mut Linear> {
        vec![&mut self.gate, &mut self.up, &mut self.down]
    }
}
