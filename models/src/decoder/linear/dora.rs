//! Weight decomposition of an update (DoRA, Liu et al. 2024): each row of `W + s B A` is brought to
//! a length that is trained.
//!
//! `y = m / n * (x W^T + s (x A^T) B^T) + bias`, where n are the norms of the rows of `W + s B A`.
//! As in PEFT, n is a constant of the step: it has no gradient.

use std::sync::Arc;

use concord_kernels::coded::{Coded, Precision};
use concord_kernels::{Device, KernelError, Tensor, Weight};

use super::super::gradients::TensorUse;
use super::super::random::Drops;
use super::super::source::TensorSource;
use super::{Backward, Linear, LinearTape, Lora};
use crate::error::ModelError;
use crate::weights::squared_norm;

/// The magnitudes of the rows of a matrix with an update.
#[derive(Clone, Debug)]
pub(in crate::decoder) struct Magnitudes {
    pub(in crate::decoder) name: String,
    /// m `[out]`, on the host.
    pub(in crate::decoder) trained: Tensor,
    /// The squared norms of the rows of W.
    squares: Arc<[f64]>,
    /// `m / n` `[out]`.
    gain: Tensor,
    /// `1 / n` `[out]`.
    inverse: Tensor,
}

impl Magnitudes {
    /// Those of a matrix with these squared norms of rows; without a `value` m are the norms. They
    /// are of use after [`Lora::measure`].
    pub(in crate::decoder) fn new(
        name: String,
        squares: Vec<f64>,
        value: Option<&Tensor>,
    ) -> Result<Self, KernelError> {
        let trained = match value {
            Some(value) => value.on_host()?.into_owned(),
            None => norms(&squares),
        };
        if trained.shape() != [squares.len()] {
            let (found, due) = (trained.shape(), squares.len());
            let reason = format!("{name} has shape {found:?} where [{due}] is due");
            return Err(KernelError::DoesNotFit(reason));
        }
        Ok(Self {
            name,
            gain: Tensor::zeros(&[squares.len()]),
            inverse: Tensor::zeros(&[squares.len()]),
            squares: squares.into(),
            trained,
        })
    }

    /// The gradient of `x (W + s B A)^T` from that of y.
    pub(super) fn inner(&self, device: &Device, dy: &Tensor) -> Result<Tensor, KernelError> {
        device.scaled_columns(dy, &self.gain)
    }

    /// Adds the gradient of m: `(sum of dy v over tokens) / n`, v being what m / n multiplies.
    pub(super) fn gradient(
        &self,
        run: &mut Backward<'_>,
        dy: &Tensor,
        v: &Tensor,
    ) -> Result<(), KernelError> {
        let sum = run.bias_gradient(&run.device.products(dy, v)?)?;
        let gradient = run.device.products(&sum, &self.inverse)?;
        run.gradients.insert(&self.name, TensorUse::Own, gradient);
        Ok(())
    }
}

impl Lora {
    /// Takes the norms of the rows of `W + s B A` anew, where they are of use. `precision` is that
    /// of A and B.
    pub(super) fn measure(
        &mut self,
        device: &Device,
        weight: &Weight,
        precision: Precision,
    ) -> Result<(), KernelError> {
        let Some(magnitudes) = &mut self.magnitudes else {
            return Ok(());
        };
        // |w + s b A|^2 = |w|^2 + 2 s b . (A w) + s^2 b . (A A^T b)
        let across = device.matmul(&self.a, weight)?.into_values()?; // [r, out]
        let square = device.matmul(&self.a, &self.a)?; // [r, r]
        let square = device.code(&square, self.a.rows, precision)?;
        let turned = device.matmul(&self.b, &square)?.into_values()?; // [out, r]
        let b = self.b.on_host()?.decode(); // [out, r]
        let (rank, out) = (self.a.rows, self.b.rows);
        let scale = f64::from(self.scale);
        let m = magnitudes.trained.values()?;
        let (mut gain, mut inverse) = (Vec::with_capacity(out), Vec::with_capacity(out));
        for row in 0..out {
            let (mut linear, mut quadratic) = (0.0, 0.0);
            for k in 0..rank {
                let b = f64::from(b[row * rank + k]);
                linear += b * f64::from(across[k * out + row]);
                quadratic += b * f64::from(turned[row * rank + k]);
            }
            let squared = magnitudes.squares[row] + scale * (2.0 * linear + scale * quadratic);
            // A row of zeros has no direction, and stays zeros.
            let is_row = squared > 0.0;
            let norm = squared.sqrt();
            gain.push(if is_row {
                (f64::from(m[row]) / norm) as f32
            } else {
                0.0
            });
            inverse.push(if is_row { (1.0 / norm) as f32 } else { 0.0 });
        }
        let place = |values: Vec<f32>| device.place(Tensor::new(&[out], values)?);
        magnitudes.gain = place(gain)?;
        magnitudes.inverse = place(inverse)?;
        Ok(())
    }

    /// y `[m, out]` of a decomposed update. With dropout the input of A and that of W's share of
    /// the change are dropped alike, as PEFT does it.
    pub(super) fn decomposed(
        &self,
        device: &Device,
        (linear, magnitudes): (&Linear, &Magnitudes),
        x: &Coded,
        precision: Precision,
        drops: Option<Drops<'_>>,
    ) -> Result<(Tensor, LinearTape), KernelError> {
        let whole = device.matmul(x, &linear.weight)?;
        let kept = match drops {
            Some(drops) => Some((drops, drops.codes(device, x, &self.name_a)?)),
            None => None,
        };
        let (mut y, low, v) = match &kept {
            None => {
                let mut v = whole;
                let low = self.add_update(device, &mut v, x, precision, None)?;
                (device.scaled_columns(&v, &magnitudes.gain)?, low, v)
            }
            Some((drops, kept)) => {
                let share = device.matmul(kept, &linear.weight)?;
                let share = device.scaled(&share, drops.scale(1.0))?;
                let mut v = share.clone();
                let low = self.add_update(device, &mut v, kept, precision, Some(*drops))?;
                let mut y = whole;
                device.add_assign(&mut y, &device.scaled_columns(&v, &magnitudes.gain)?)?;
                device.scaled_add_assign(&mut y, -1.0, &share)?;
                (y, low, v)
            }
        };
        if let Some(bias) = &linear.bias {
            device.add_bias(&mut y, bias)?;
        }
        let tape = LinearTape {
            low: Some(low),
            inner: Some(v),
        };
        Ok((y, tape))
    }
}

/// The squared norms of the rows of a matrix of `source`.
///
/// # Errors
/// As [`TensorSource::rows`].
pub fn squared_norms(source: &dyn TensorSource, name: &str) -> Result<Vec<f64>, ModelError> {
    let mut squares = Vec::new();
    source.rows(name, &mut |_, rows| {
        let cols = rows.rows_cols().1;
        let rows = rows.into_host()?;
        squares.extend(rows.data().chunks(cols.max(1)).map(squared_norm));
        Ok(())
    })?;
    Ok(squares)
}

/// Magnitudes that leave a matrix as it is: the norms of its rows, `[out]`.
pub fn norms(squares: &[f64]) -> Tensor {
    let norms: Vec<f32> = squares.iter().map(|square| square.sqrt() as f32).collect();
    Tensor::new(&[norms.len()], norms).expect("one for each row")
}
