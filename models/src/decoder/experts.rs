//! A feed-forward layer made of experts: a router chooses some of them for every token. The result
//! of a token is a function of that token alone: no expert has a capacity, and nothing depends on
//! the other tokens of the batch.

mod bank;
mod fused;
mod load_counts;
mod shared;

use concord_kernels::coded::Coded;
use concord_kernels::ops::{Routes, Routing};
use concord_kernels::{KernelError, Tensor};

pub(super) use bank::{BankGradients, BankTape, ExpertBank};
pub(super) use fused::FusedExperts;
pub(super) use load_counts::LoadCounts;
pub(super) use shared::SharedExpert;

use super::linear::{Backward, Linear, LinearTape};
use super::pass::LayerPass;
use shared::SharedTape;

/// The router of a layer and its experts; or the first of them, where the layer is cut.
#[derive(Clone, Debug)]
pub(super) struct Experts {
    /// `[experts, d]`.
    pub(super) router: Linear,
    /// Added to the router's scores only when experts are chosen, `[experts]`.
    pub(super) correction: Option<Tensor>,
    pub(super) routing: Routing,
    pub(super) bank: ExpertBank,
    /// The expert that every token goes through.
    pub(super) shared: Option<SharedExpert>,
}

/// What the backward pass needs.
#[derive(Debug)]
pub(super) struct ExpertsTape {
    input: Coded,
    logits: Tensor,
    router: LinearTape,
    bank: BankTape,
    shared: Option<SharedTape>,
}

impl ExpertsTape {
    /// What the router chose.
    pub(super) fn routes(&self) -> &Routes {
        &self.bank.routes
    }
}

impl Experts {
    /// x `[m, d]` to `[m, d]`; without what the experts of later stages add.
    pub(super) fn forward(
        &self,
        pass: &dyn LayerPass,
        x: &Tensor,
    ) -> Result<(Tensor, ExpertsTape), KernelError> {
        let context = pass.context();
        let device = context.device;
        let input = device.code(x, self.router.weight.cols, context.precision)?;
        let (logits, router) = pass.linear(&self.router, &input)?;
        let routes = device.route(&logits, self.correction.as_ref(), &self.routing)?;
        let (mut y, shared) = match &self.shared {
            Some(shared) => {
                let (y, tape) = shared.forward(pass, &input)?;
                (y, Some(tape))
            }
            None => (device.zeros(x.shape())?, None),
        };
        let bank = self.bank.forward(pass, &input, routes, &mut y)?;
        let tape = ExpertsTape {
            input,
            logits,
            router,
            bank,
            shared,
        };
        Ok((y, tape))
    }

    /// Gradients of what is trained, and dx `[m, d]`: by the router, then by the shared expert,
    /// then by the chosen experts in rising order. `others` is what the experts of later stages
    /// gave back.
    pub(super) fn backward(
        &self,
        run: &mut Backward<'_>,
        tape: &ExpertsTape,
        dy: &Tensor,
        others: Option<&BankGradients>,
    ) -> Result<Tensor, KernelError> {
        let mut of_bank = self.bank.backward(run, &tape.bank, dy)?;
        if let Some(others) = others {
            of_bank.add(run, others)?;
        }
        let device = run.device;
        let (logits, routes) = (&tape.logits, &tape.bank.routes);
        let d_logits = device.route_backward(logits, routes, &of_bank.weights, &self.routing)?;
        let mut dx = self
            .router
            .backward(run, &d_logits, &tape.input, &tape.router)?;
        if let (Some(shared), Some(tape_of_shared)) = (&self.shared, &tape.shared) {
            let from_shared = shared.backward(run, tape_of_shared, &tape.input, dy)?;
            device.add_assign(&mut dx, &from_shared)?;
        }
        tape.bank.combine(run, &mut dx, &of_bank.rows)?;
        Ok(dx)
    }

    /// Its matrices. Those of fused experts are part of a tensor of another name.
    pub(super) fn linears_mut(&mut self) -> Vec<&mut Linear> {
        let mut linears = vec![&mut self.router];
        if let Some(shared) = &mut self.shared {
            linears.extend(shared.linears_mut());
        }
        linears.extend(self.bank.linears_mut());
        linears
    }
}
