//! A feed-forward layer that every token goes through: `down(act(gate(x)) * up(x))`, with separate
//! or fused gate and up projections; or, without a gate, `down(act(up(x)))`.

use concord_kernels::coded::Coded;
use concord_kernels::ops::{Activation, Columns};
use concord_kernels::{Device, KernelError, Tensor};

use super::linear::{Backward, Linear, LinearTape};
use super::pass::{LayerPass, PassContext};

/// Its matrices.
#[derive(Clone, Debug)]
pub(super) struct Dense {
    pub(super) widening: Widening,
    pub(super) down: Linear,
    pub(super) activation: Activation,
}

/// The projections to the inner activations.
#[derive(Clone, Debug)]
pub(super) enum Widening {
    /// Gate and up projection.
    Gated(Box<[Linear; 2]>),
    /// Gate and up projection fused, the rows of the gate first.
    Fused(Box<Linear>),
    /// An up projection alone.
    Plain(Box<Linear>),
}

/// Computes y `[m, out]` of a projection from the codes of x `[m, in]`.
pub(super) type Multiply<'a> =
    dyn Fn(&Linear, &Coded) -> Result<(Tensor, LinearTape), KernelError> + 'a;

/// What the backward pass needs.
#[derive(Debug)]
pub(super) struct DenseTape {
    input: Coded,
    /// The results of gate and up, or of up alone, before the activation.
    wide: Vec<Tensor>,
    widening: Vec<LinearTape>,
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
        let input = context.device.code(x, x.rows_cols().1, context.precision)?;
        self.forward_coded(context, input, &|linear, x| pass.linear(linear, x))
    }

    /// From the codes of x `[m, d]` to y `[m, d]`; `multiply` computes the products.
    pub(super) fn forward_coded(
        &self,
        context: PassContext<'_>,
        input: Coded,
        multiply: &Multiply<'_>,
    ) -> Result<(Tensor, DenseTape), KernelError> {
        let (device, p) = (context.device, context.precision);
        let (wide, widening) = self.widening.forward(device, &input, multiply)?;
        let hidden = match wide.as_slice() {
            [g, u] => device.gated(g, u, self.activation)?,
            all => device.activation(&all[0], self.activation)?,
        };
        let down_input = device.code(&hidden, self.down.weight.cols, p)?;
        let (y, down) = multiply(&self.down, &down_input)?;
        let tape = DenseTape {
            input,
            wide,
            widening,
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
        let gradients = match tape.wide.as_slice() {
            [g, u] => {
                let (dg, du) = run
                    .device
                    .gated_backward(&d_hidden, g, u, self.activation)?;
                vec![dg, du]
            }
            all => {
                let device = run.device;
                vec![device.activation_backward(&d_hidden, &all[0], self.activation)?]
            }
        };
        let (input, tapes) = (&tape.input, &tape.widening);
        self.widening.backward(run, &gradients, input, tapes)
    }

    /// Zeros as the gradients of what is trained, for an expert that has no tokens.
    pub(super) fn no_gradients(&self, run: &mut Backward<'_>) -> Result<(), KernelError> {
        let widening = self.widening.linears().iter();
        widening
            .chain([&self.down])
            .try_for_each(|linear| linear.no_gradients(run))
    }

    /// Its matrices.
    pub(super) fn linears_mut(&mut self) -> Vec<&mut Linear> {
        let mut linears: Vec<&mut Linear> = self.widening.linears_mut().iter_mut().collect();
        linears.push(&mut self.down);
        linears
    }
}

impl Widening {
    /// The results of gate and up, or of up alone, from the codes of x.
    fn forward(
        &self,
        device: &Device,
        x: &Coded,
        multiply: &Multiply<'_>,
    ) -> Result<(Vec<Tensor>, Vec<LinearTape>), KernelError> {
        match self {
            Self::Gated(linears) => {
                let [gate, up] = &**linears;
                let (g, gate_tape) = multiply(gate, x)?;
                let (u, up_tape) = multiply(up, x)?;
                Ok((vec![g, u], vec![gate_tape, up_tape]))
            }
            Self::Fused(linear) => {
                let (both, tape) = multiply(linear, x)?;
                let parts = halves(both.rows_cols().1);
                let part = |columns| device.take_columns(&both, columns);
                Ok((vec![part(&parts[0])?, part(&parts[1])?], vec![tape]))
            }
            Self::Plain(linear) => {
                let (u, tape) = multiply(linear, x)?;
                Ok((vec![u], vec![tape]))
            }
        }
    }

    /// dx `[m, d]` from the gradients of the results of [`Self::forward`].
    fn backward(
        &self,
        run: &mut Backward<'_>,
        gradients: &[Tensor],
        x: &Coded,
        tapes: &[LinearTape],
    ) -> Result<Tensor, KernelError> {
        match self {
            Self::Gated(linears) => {
                let [gate, up] = &**linears;
                let mut dx = gate.backward(run, &gradients[0], x, &tapes[0])?;
                let from_up = up.backward(run, &gradients[1], x, &tapes[1])?;
                run.device.add_assign(&mut dx, &from_up)?;
                Ok(dx)
            }
            Self::Fused(linear) => {
                let dy = joined(run.device, gradients)?;
                linear.backward(run, &dy, x, &tapes[0])
            }
            Self::Plain(linear) => linear.backward(run, &gradients[0], x, &tapes[0]),
        }
    }

    fn linears(&self) -> &[Linear] {
        match self {
            Self::Gated(linears) => &**linears,
            Self::Fused(linear) | Self::Plain(linear) => std::slice::from_ref(&**linear),
        }
    }

    fn linears_mut(&mut self) -> &mut [Linear] {
        match self {
            Self::Gated(linears) => &mut **linears,
            Self::Fused(linear) | Self::Plain(linear) => std::slice::from_mut(&mut **linear),
        }
    }
}

/// The left and right halves of the columns of rows of `width`.
fn halves(width: usize) -> [Columns; 2] {
    [0, width / 2].map(|offset| Columns {
        groups: 1,
        group_width: width,
        offset,
        width: width / 2,
    })
}

/// Two matrices of equal shape as the left and right halves of one.
fn joined(device: &Device, parts: &[Tensor]) -> Result<Tensor, KernelError> {
    let (rows, half) = parts[0].rows_cols();
    let mut whole = device.zeros(&[rows, 2 * half])?;
    for (part, columns) in parts.iter().zip(&halves(2 * half)) {
        device.put_columns(&mut whole, columns, part)?;
    }
    Ok(whole)
}
