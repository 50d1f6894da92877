//! The experts of a layer that a stage holds: all of them, or a run where the layer is cut. What a
//! token gets of them is added in the order of the experts, so a cut changes no bit: the next stage
//! goes on with the sum.

use std::ops::Range;

use concord_kernels::coded::Coded;
use concord_kernels::ops::{ExpertRows, Routes};
use concord_kernels::{KernelError, Tensor};

use super::{FusedExperts, LoadCounts};
use crate::decoder::dense::{Dense, DenseTape};
use crate::decoder::linear::{Backward, Linear};
use crate::decoder::pass::{LayerPass, SomeRows};

/// A run of the experts of a layer.
#[derive(Clone, Debug)]
pub(in crate::decoder) struct ExpertBank {
    /// Those that are held: at least one.
    pub(in crate::decoder) experts: Vec<Dense>,
    /// The index of the first of them.
    pub(in crate::decoder) first: usize,
    /// How many the layer has.
    pub(in crate::decoder) count: usize,
    /// Where all experts of the layer are one tensor in the weights.
    pub(in crate::decoder) fused: Option<FusedExperts>,
    pub(in crate::decoder) loads: LoadCounts,
}

/// What the backward pass needs.
#[derive(Debug)]
pub(in crate::decoder) struct BankTape {
    pub(in crate::decoder) routes: Routes,
    rows: ExpertRows,
    /// What came of each row `[m * chosen, d]`: zeros where others have the expert.
    results: Tensor,
    /// Of the held experts that have rows.
    experts: Vec<Option<DenseTape>>,
}

/// The gradients that experts give back; zeros where others have the expert.
#[derive(Debug)]
pub(in crate::decoder) struct BankGradients {
    /// Of the router's weights `[m, chosen]`.
    pub(in crate::decoder) weights: Tensor,
    /// Of the rows of the experts, in their order `[m * chosen, d]`.
    pub(in crate::decoder) rows: Tensor,
}

impl BankTape {
    /// Adds the gradients of rows to those of their tokens, by rising expert.
    pub(super) fn combine(
        &self,
        run: &Backward<'_>,
        dx: &mut Tensor,
        rows: &Tensor,
    ) -> Result<(), KernelError> {
        run.device.combine(dx, rows, &self.rows.slots, None)
    }
}

impl BankGradients {
    /// Adds those of other experts of the layer.
    pub(in crate::decoder) fn add(
        &mut self,
        run: &Backward<'_>,
        others: &Self,
    ) -> Result<(), KernelError> {
        run.device.add_assign(&mut self.weights, &others.weights)?;
        run.device.add_assign(&mut self.rows, &others.rows)
    }
}

impl ExpertBank {
    /// Whether the last expert of the layer is among them.
    pub(in crate::decoder) fn ends(&self) -> bool {
        self.first + self.experts.len() == self.count
    }

    /// Adds to y `[m, d]` what the experts make of the codes of x `[m, d]`.
    pub(in crate::decoder) fn forward(
        &self,
        pass: &dyn LayerPass,
        input: &Coded,
        routes: Routes,
        y: &mut Tensor,
    ) -> Result<BankTape, KernelError> {
        let device = pass.context().device;
        let rows = device.expert_rows(&routes, self.count)?;
        if !pass.context().is_again {
            self.loads.add(self.first, self.experts.len(), &rows);
        }
        let (results, experts) = self.results(pass, input, &rows)?;
        device.combine(y, &results, &rows.slots, Some(&routes.weights))?;
        Ok(BankTape {
            routes,
            rows,
            results,
            experts,
        })
    }

    /// The rows of the held experts among those of all.
    fn held(&self, rows: &ExpertRows) -> Range<usize> {
        let last = self.first + self.experts.len() - 1;
        rows.of(self.first).start..rows.of(last).end
    }

    /// What each expert makes of its rows `[m * chosen, d]`.
    fn results(
        &self,
        pass: &dyn LayerPass,
        input: &Coded,
        rows: &ExpertRows,
    ) -> Result<(Tensor, Vec<Option<DenseTape>>), KernelError> {
        let device = pass.context().device;
        let held = self.held(rows);
        let gathered = device.gather(input, &rows.tokens.part(held.start, held.len()))?;
        let mut results = device.zeros(&[rows.tokens.len(), input.cols])?;
        let mut tapes = Vec::with_capacity(self.experts.len());
        for (index, expert) in (self.first..).zip(&self.experts) {
            let own = rows.of(index);
            if own.is_empty() {
                tapes.push(None);
                continue;
            }
            // The rows of a run of tokens, among those of the expert.
            let place = |first: usize, count: usize| {
                let rows = rows.within(index, first, count);
                rows.start - own.start..rows.end - own.start
            };
            let tokens = rows.tokens.part(own.start, own.len());
            let some = SomeRows {
                place: &place,
                tokens: &tokens,
            };
            let multiply = |linear: &Linear, x: &Coded| pass.linear_of_rows(linear, x, &some);
            let part = gathered.part(own.start - held.start, own.len());
            let (y, tape) = expert.forward_coded(pass.context(), part, &multiply)?;
            device.put_rows(&mut results, own.start, &y)?;
            tapes.push(Some(tape));
        }
        Ok((results, tapes))
    }

    /// Gradients of what is trained, and of what the experts took, from dy `[m, d]`.
    pub(in crate::decoder) fn backward(
        &self,
        run: &mut Backward<'_>,
        tape: &BankTape,
        dy: &Tensor,
    ) -> Result<BankGradients, KernelError> {
        let (slots, weights) = (&tape.rows.slots, &tape.routes.weights);
        let (d_results, weights) =
            run.device
                .combine_backward(dy, &tape.results, slots, weights)?;
        let rows = match &self.fused {
            Some(fused) => fused.backward(run, &self.experts, |run| {
                self.rows_backward(run, tape, &d_results)
            })?,
            None => self.rows_backward(run, tape, &d_results)?,
        };
        Ok(BankGradients { weights, rows })
    }

    /// Gradients of the experts, each over its own tokens, and those of their rows.
    fn rows_backward(
        &self,
        run: &mut Backward<'_>,
        tape: &BankTape,
        d_results: &Tensor,
    ) -> Result<Tensor, KernelError> {
        let (device, rows) = (run.device, &tape.rows);
        let mut d_rows = device.zeros(d_results.shape())?;
        let sequences: Vec<_> = run.atoms.sequences().ranges().collect();
        let held = self.experts.iter().zip(&tape.experts);
        for (index, (expert, tape)) in (self.first..).zip(held) {
            let Some(tape) = tape else {
                expert.no_gradients(run)?;
                continue;
            };
            let own = rows.of(index);
            let of_sequence = |tokens: &Range<usize>| {
                let rows = rows.within(index, tokens.start, tokens.len());
                rows.start - own.start..rows.end - own.start
            };
            let runs: Vec<_> = sequences.iter().map(of_sequence).collect();
            let tokens = rows.tokens.part(own.start, own.len());
            let mut run = Backward {
                device,
                atoms: run.atoms,
                rows: Some(&runs),
                precision: run.precision,
                drops: run.drops.map(|drops| drops.of_rows(&tokens)),
                gradients: &mut *run.gradients,
            };
            let dy = d_results.rows(own.start, own.len());
            let dx = expert.backward(&mut run, tape, &dy)?;
            device.put_rows(&mut d_rows, own.start, &dx)?;
        }
        Ok(d_rows)
    }

    /// Its matrices.
    pub(in crate::decoder) fn linears_mut(&mut self) -> impl Iterator<Item = &mut Linear> {
        self.experts.iter_mut().flat_map(Dense::linears_mut)
    }
}
