//! The choice of experts by a router.

use super::matmul::tensor;
pub use crate::reference::route::{RouterKind, Routing};
use crate::{Buffer, Device, Ids, KernelError, Tensor, cpu, cuda, reference};

/// Which experts each token goes to, and with which weights.
#[derive(Clone, Debug)]
pub struct Routes {
    /// The experts of each token `[m * chosen]`, those of a token by rising index.
    pub experts: Ids,
    /// Their weights `[m, chosen]`.
    pub weights: Tensor,
}

impl Device {
    /// The experts of each token and their weights, from the router's logits `[m, experts]`.
    /// `correction` `[experts]` is added to the scores for the choice, not to the weights.
    ///
    /// # Errors
    /// [`KernelError::Cuda`] where a GPU fails.
    pub fn route(
        &self,
        logits: &Tensor,
        correction: Option<&Tensor>,
        routing: &Routing,
    ) -> Result<Routes, KernelError> {
        let (rows, experts) = logits.rows_cols();
        check(experts, routing);
        if let Some(correction) = correction {
            assert_eq!(correction.len(), experts, "route: corrections");
        }
        let shape = [rows, routing.chosen];
        if let Self::Cuda(gpu) = self {
            let correction = correction.map(|c| c.on(gpu)).transpose()?;
            let logits = logits.on(gpu)?;
            let (chosen, weights) =
                cuda::route::forward(gpu, &logits, experts, correction.as_ref(), routing)?;
            return Ok(Routes {
                experts: Ids(Buffer::Cuda(chosen)),
                weights: tensor(&shape, weights)?,
            });
        }
        let logits = logits.values()?;
        let correction = correction.map(Tensor::values).transpose()?;
        let correction = correction.as_deref();
        let (chosen, weights) = match self {
            Self::Cpu(cpu) => cpu::route::forward(cpu, &logits, experts, correction, routing),
            _ => reference::route::forward(&logits, experts, correction, routing),
        };
        Ok(Routes {
            experts: Ids(Buffer::Host(chosen)),
            weights: tensor(&shape, weights)?,
        })
    }

    /// The gradient of the logits `[m, experts]` from that of the weights `[m, chosen]`: the choice
    /// itself has none.
    ///
    /// # Errors
    /// [`KernelError::Cuda`] where a GPU fails.
    pub fn route_backward(
        &self,
        logits: &Tensor,
        routes: &Routes,
        d_weights: &Tensor,
        routing: &Routing,
    ) -> Result<Tensor, KernelError> {
        let (_, experts) = logits.rows_cols();
        check(experts, routing);
        assert_eq!(
            d_weights.shape(),
            routes.weights.shape(),
            "route_backward: weights"
        );
        let shape = logits.shape();
        if let Self::Cuda(gpu) = self {
            let (logits, chosen) = (logits.on(gpu)?, routes.experts.on(gpu)?);
            let d_weights = d_weights.on(gpu)?;
            let inputs = (&chosen, &d_weights);
            let gradient = cuda::route::backward(gpu, &logits, experts, inputs, routing)?;
            return tensor(shape, gradient);
        }
        let (logits, chosen) = (logits.values()?, routes.experts.0.values()?);
        let d = d_weights.values()?;
        let gradient = match self {
            Self::Cpu(cpu) => cpu::route::backward(cpu, &logits, experts, &chosen, &d, routing),
            _ => reference::route::backward(&logits, experts, &chosen, &d, routing),
        };
        tensor(shape, gradient)
    }
}

fn check(experts: usize, routing: &Routing) {
    let chosen = routing.chosen;
    assert!(
        (1..=experts).contains(&chosen),
        "route: {chosen} of {experts} experts"
    );
}
