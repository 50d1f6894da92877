//! The rest of a layer that is cut between its experts: those that stages before do not have.

use concord_kernels::{KernelError, Tensor};

use super::cut_rows::{CutGradients, CutRows, CutShape};
use super::experts::{BankTape, ExpertBank};
use super::linear::Backward;
use super::pass::LayerPass;

/// The experts of a layer that the stages before do not have.
#[derive(Clone, Debug)]
pub(super) struct LayerRest {
    /// The layer's index in the model.
    pub(super) layer: u32,
    pub(super) bank: ExpertBank,
    pub(super) shape: CutShape,
    /// Multiplies what the experts add to the residual stream.
    pub(super) residual: Option<f32>,
}

impl LayerRest {
    /// From what came over the cut `[m, 3 d + 2 k]` to the hidden states behind the layer `[m, d]`;
    /// or to what goes over the next cut, where other stages have its last experts.
    pub(super) fn forward(
        &self,
        pass: &dyn LayerPass,
        x: &Tensor,
    ) -> Result<(Tensor, BankTape), KernelError> {
        let context = pass.context();
        let device = context.device;
        let rows = CutRows::split(device, x, &self.shape)?;
        let coded = device.code(&rows.input, self.shape.hidden, context.precision)?;
        let mut y = rows.sum;
        let tape = self.bank.forward(pass, &coded, rows.routes, &mut y)?;
        if !self.bank.ends() {
            let parts = [&rows.residual, &rows.input, &y];
            let next = CutRows::joined(device, parts, &tape.routes)?;
            return Ok((next, tape));
        }
        if let Some(factor) = self.residual {
            y = device.scaled(&y, factor)?;
        }
        device.add_assign(&mut y, &rows.residual)?;
        Ok((y, tape))
    }

    /// Gradients of what is trained, and what goes back over the cut, `[m, d + k + k d]`.
    pub(super) fn backward(
        &self,
        run: &mut Backward<'_>,
        tape: &BankTape,
        dy: Tensor,
    ) -> Result<Tensor, KernelError> {
        let device = run.device;
        let (dy, others) = match self.bank.ends() {
            true => (dy, None),
            false => {
                let after = CutGradients::split(device, &dy, &self.shape)?;
                (after.dy, Some(after.bank))
            }
        };
        let mut own = match self.residual {
            Some(factor) => self
                .bank
                .backward(run, tape, &device.scaled(&dy, factor)?)?,
            None => self.bank.backward(run, tape, &dy)?,
        };
        if let Some(others) = &others {
            own.add(run, others)?;
        }
        CutGradients::joined(device, &dy, own)
    }
}
