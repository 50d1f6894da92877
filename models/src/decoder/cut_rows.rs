//! What goes over a cut within a layer, as one tensor: so a stage has one input and one output
//! wherever the decoder is cut.
//!
//! Forward, k experts chosen for each of m tokens: the residual stream, what the experts take, the
//! sum of what they gave so far (`[m, d]` each), the chosen experts as numbers and their weights
//! (`[m, k]` each). Backward: the gradient of the hidden states behind the layer `[m, d]`, those of
//! the weights `[m, k]`, and those of the rows of the experts `[m * k, d]`, in the order of the
//! experts as [`concord_kernels::ops::ExpertRows`] has it, k after each other in one row.

use concord_kernels::ops::{Columns, Routes};
use concord_kernels::{Device, KernelError, Tensor};

use super::experts::BankGradients;

/// Sizes of a layer with experts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct CutShape {
    pub(super) hidden: usize,
    /// Experts of the layer.
    pub(super) experts: usize,
    /// Experts of a token.
    pub(super) chosen: usize,
}

/// What the experts behind a cut need.
#[derive(Debug)]
pub(super) struct CutRows {
    /// What is added to what the experts give.
    pub(super) residual: Tensor,
    /// What the experts take.
    pub(super) input: Tensor,
    /// What they gave so far.
    pub(super) sum: Tensor,
    pub(super) routes: Routes,
}

impl CutRows {
    /// `[m, 3 d + 2 k]`.
    pub(super) fn joined(
        device: &Device,
        [residual, input, sum]: [&Tensor; 3],
        routes: &Routes,
    ) -> Result<Tensor, KernelError> {
        // Numbers below 2^24 are exact.
        let numbers = routes.experts.values()?;
        let numbers: Vec<f32> = numbers.iter().map(|&expert| expert as f32).collect();
        let numbers = device.place(Tensor::new(routes.weights.shape(), numbers)?)?;
        side_by_side(device, &[residual, input, sum, &numbers, &routes.weights])
    }

    /// Takes `[m, 3 d + 2 k]` apart. A number is cut to a whole one, and to the last expert at
    /// most: a sender of any other number is found to have done wrong, while this stage stays a
    /// function of what it got.
    pub(super) fn split(
        device: &Device,
        rows: &Tensor,
        shape: &CutShape,
    ) -> Result<Self, KernelError> {
        let (d, k) = (shape.hidden, shape.chosen);
        let [residual, input, sum, numbers, weights] = apart(device, rows, [d, d, d, k, k])?;
        let last = shape.experts.saturating_sub(1) as u32;
        let number = |&number: &f32| (number as u32).min(last);
        let experts: Vec<u32> = numbers.values()?.iter().map(number).collect();
        let experts = device.ids(&experts)?;
        Ok(Self {
            residual,
            input,
            sum,
            routes: Routes { experts, weights },
        })
    }
}

/// What experts behind a cut give back.
#[derive(Debug)]
pub(super) struct CutGradients {
    /// The gradient of the hidden states behind the layer `[m, d]`.
    pub(super) dy: Tensor,
    pub(super) bank: BankGradients,
}

impl CutGradients {
    /// `[m, d + k + k d]`.
    pub(super) fn joined(
        device: &Device,
        dy: &Tensor,
        bank: BankGradients,
    ) -> Result<Tensor, KernelError> {
        let (m, k) = bank.weights.rows_cols();
        let cols = dy.rows_cols().1;
        let rows = bank.rows.reshaped(&[m, k * cols])?;
        side_by_side(device, &[dy, &bank.weights, &rows])
    }

    /// Takes `[m, d + k + k d]` apart.
    pub(super) fn split(
        device: &Device,
        rows: &Tensor,
        shape: &CutShape,
    ) -> Result<Self, KernelError> {
        let (d, k) = (shape.hidden, shape.chosen);
        let [dy, weights, of_rows] = apart(device, rows, [d, k, k * d])?;
        let m = dy.rows_cols().0;
        Ok(Self {
            dy,
            bank: BankGradients {
                weights,
                rows: of_rows.reshaped(&[m * k, d])?,
            },
        })
    }
}

/// Columns of a row of `whole`, one part after another.
fn columns(widths: &[usize]) -> impl Iterator<Item = Columns> + '_ {
    let group_width = widths.iter().sum();
    widths.iter().scan(0, move |next, &width| {
        let offset = *next;
        *next += width;
        Some(Columns {
            groups: 1,
            group_width,
            offset,
            width,
        })
    })
}

fn side_by_side(device: &Device, parts: &[&Tensor]) -> Result<Tensor, KernelError> {
    let widths: Vec<usize> = parts.iter().map(|part| part.rows_cols().1).collect();
    let rows = parts[0].rows_cols().0;
    let mut whole = device.zeros(&[rows, widths.iter().sum()])?;
    for (columns, part) in columns(&widths).zip(parts) {
        device.put_columns(&mut whole, &columns, part)?;
    }
    Ok(whole)
}

/// The parts of a tensor from another worker, whose shape nobody has promised.
fn apart<const PARTS: usize>(
    device: &Device,
    whole: &Tensor,
    widths: [usize; PARTS],
) -> Result<[Tensor; PARTS], KernelError> {
    let (found, due) = (whole.rows_cols().1, widths.iter().sum::<usize>());
    if found != due {
        let reason =
            format!("rows of {found} columns at a cut within a layer, where {due} are due");
        return Err(KernelError::DoesNotFit(reason));
    }
    let parts = columns(&widths).map(|columns| device.take_columns(whole, &columns));
    let parts = parts.collect::<Result<Vec<_>, _>>()?;
    Ok(<[Tensor; PARTS]>::try_from(parts).expect("as many parts as widths"))
}
