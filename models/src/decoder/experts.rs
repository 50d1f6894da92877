//! A feed-forward layer made of experts: a router chooses some of them for every token. The result
//! of a token is a function of that token alone: no expert has a capacity, and nothing depends on
//! the other tokens of the batch.

mod fused;
mod load_counts;
mod shared;

use concord_kernels::coded::Coded;
use concord_kernels::ops::{ExpertRows, Routes, Routing};
use concord_kernels::{KernelError, Tensor};

pub(super) use fused::FusedExperts;
pub(super) use load_counts::LoadCounts;
pub(super) use shared::SharedExpert;

use super::dense::{Dense, DenseTape};
use super::linear::{Backward, Linear, LinearTape};
use super::pass::LayerPass;
use shared::SharedTape;

/// The router and the experts of a layer.
#[derive(Clone, Debug)]
pub(super) struct Experts {
    /// `[experts, d]`.
    pub(super) router: Linear,
    /// Added to the router's scores only when experts are chosen, `[experts]`.
    pub(super) correction: Option<Tensor>,
    pub(super) routing: Routing,
    pub(super) experts: Vec<Dense>,
    /// The tensors' names, where all experts of the layer are fused in the weights.
    pub(super) fused: Option<FusedExperts>,
    /// The expert that every token goes through.
    pub(super) shared: Option<SharedExpert>,
    pub(super) loads: LoadCounts,
}

/// What the backward pass needs.
#[derive(Debug)]
pub(super) struct ExpertsTape {
    input: Coded,
    logits: Tensor,
    router: LinearTape,
    routes: Routes,
    rows: ExpertRows,
    /// The experts' results for their rows, `[m * chosen, d]`.
    results: Tensor,
    /// By expert; `None` for experts without rows.
    experts: Vec<Option<DenseTape>>,
    shared: Option<SharedTape>,
}

impl Experts {
    /// x `[m, d]` to `[m, d]`.
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
        let rows = device.expert_rows(&routes, self.experts.len())?;
        self.loads.add(&rows);
        let (results, experts) = self.results(pass, &input, &rows)?;
        let (mut y, shared) = match &self.shared {
            Some(shared) => {
                let (y, tape) = shared.forward(pass, &input)?;
                (y, Some(tape))
            }
            None => (device.zeros(x.shape())?, None),
        };
        device.combine(&mut y, &results, &rows.slots, Some(&routes.weights))?;
        let tape = ExpertsTape {
            input,
            logits,
            router,
            routes,
            rows,
            results,
            experts,
            shared,
        };
        Ok((y, tape))
    }

    /// The results of the experts for their rows, `[m * chosen, d]`.
    fn results(
        &self,
        pass: &dyn LayerPass,
        input: &Coded,
        rows: &ExpertRows,
    ) -> Result<(Tensor, Vec<Option<DenseTape>>), KernelError> {
        let device = pass.context().device;
        let gathered = device.gather(input, &rows.tokens)?;
        let mut results = device.zeros(&[gathered.rows, input.cols])?;
        let mut tapes = Vec::with_capacity(self.experts.len());
        for (index, expert) in self.experts.iter().enumerate() {
            let own = rows.of(index);
            if own.is_empty() {
                tapes.push(None);
                continue;
            }
            // Which of the expert's rows belong to a run of tokens.
            let place = |first: usize, count: usize| {
                let rows = rows.within(index, first, count);
                rows.start - own.start..rows.end - own.start
            };
            let multiply = |linear: &Linear, x: &Coded| pass.linear_of_rows(linear, x, &place);
            let part = gathered.part(own.start, own.len());
            let (y, tape) = expert.forward_coded(pass.context(), part, &multiply)?;
            device.put_rows(&mut results, own.start, &y)?;
            tapes.push(Some(tape));
        }
        Ok((results, tapes))
    }

    /// Adds the gradients of what is trained, and returns dx `[m, d]`: the sum of the router's
    /// part, the shared expert's and the chosen experts', in this order and by rising index.
    pub(super) fn backward(
        &self,
        run: &mut Backward<'_>,
        tape: &ExpertsTape,
        dy: &Tensor,
    ) -> Result<Tensor, KernelError> {
        let (device, routes, rows) = (run.device, &tape.routes, &tape.rows);
        let (d_results, d_weights) =
            device.combine_backward(dy, &tape.results, &rows.slots, &routes.weights)?;
        let d_logits = device.route_backward(&tape.logits, routes, &d_weights, &self.routing)?;
        let mut dx = self
            .router
            .backward(run, &d_logits, &tape.input, &tape.router)?;
        if let (Some(shared), Some(tape_of_shared)) = (&self.shared, &tape.shared) {
            let from_shared = shared.backward(run, tape_of_shared, &tape.input, dy)?;
            device.add_assign(&mut dx, &from_shared)?;
        }
        let d_rows = match &self.fused {
            Some(fused) => fused.backward(run, &self.experts, |run| {
                self.rows_backward(run, tape, &d_results)
            })?,
            None => self.rows_backward(run, tape, &d_results)?,
        };
        device.combine(&mut dx, &d_rows, &rows.slots, None)?;
        Ok(dx)
    }

    /// Adds the gradients of the experts, each over its own tokens, and returns those of their
    /// rows.
    fn rows_backward(
        &self,
        run: &mut Backward<'_>,
        tape: &ExpertsTape,
        d_results: &Tensor,
    ) -> Result<Tensor, KernelError> {
        let (device, rows) = (run.device, &tape.rows);
        let mut d_rows = device.zeros(d_results.shape())?;
        let (sequences, len) = (run.atoms.sequences(), run.atoms.sequence_len());
        for (index, (expert, tape)) in self.experts.iter().zip(&tape.experts).enumerate() {
            let Some(tape) = tape else {
                expert.no_gradients(run)?;
                continue;
            };
            let own = rows.of(index);
            let of_sequence = |sequence: usize| {
                let rows = rows.within(index, sequence * len, len);
                rows.start - own.start..rows.end - own.start
            };
            let runs: Vec<_> = (0..sequences).map(of_sequence).collect();
            let mut run = Backward {
                device,
                atoms: run.atoms,
                rows: Some(&runs),
                precision: run.precision,
                gradients: &mut *run.gradients,
            };
            let dy = d_results.rows(own.start, own.len());
            let dx = expert.backward(&mut run, tape, &dy)?;
            device.put_rows(&mut d_rows, own.start, &dx)?;
        }
        Ok(d_rows)
    }

    /// Its matrices. Those of fused experts are parts of a tensor with another name.
    pub(super) fn linears_mut(&mut self) -> Vec<&mut Linear> {
        let mut linears = vec![&mut self.router];
        if let Some(shared) = &mut self.shared {
            linears.extend(shared.linears_mut());
        }
        linears.extend(self.experts.iter_mut().flat_map(Dense::linears_mut));
        linears
    }
}
