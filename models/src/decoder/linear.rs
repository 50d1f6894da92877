//! A projection, with an optional low-rank update (LoRA, Hu et al. 2021):
//! `y = x W^T + bias`, then `y = fma(scale, (x A^T) B^T, y)`.

pub(super) mod dora;

use std::ops::Range;

use concord_kernels::coded::{Coded, Precision};
use concord_kernels::ops::{Atoms, tree_sum};
use concord_kernels::{Device, KernelError, Tensor, Weight};

use super::gradients::{Gradients, TensorUse};
use super::random::Drops;
use dora::Magnitudes;

/// A low-rank update: the codes of its two factors, and what a decomposed one has besides.
#[derive(Clone, Debug)]
pub(super) struct Lora {
    pub(super) a: Coded, // [r, in]
    pub(super) b: Coded, // [out, r]
    pub(super) scale: f32,
    pub(super) name_a: String,
    pub(super) name_b: String,
    pub(super) magnitudes: Option<Box<Magnitudes>>,
}

impl Lora {
    /// Adds `scale (x A^T) B^T` to y; returns the codes of `x A^T`.
    fn add_update(
        &self,
        device: &Device,
        y: &mut Tensor,
        x: &Coded,
        precision: Precision,
        drops: Option<Drops<'_>>,
    ) -> Result<Coded, KernelError> {
        let low = device.matmul(x, &self.a)?;
        let low = device.code(&low, self.a.rows, precision)?;
        device.scaled_add_matmul(y, self.scale_with(drops), &low, &self.b)?;
        Ok(low)
    }

    fn scale_with(&self, drops: Option<Drops<'_>>) -> f32 {
        drops.map_or(self.scale, |drops| drops.scale(self.scale))
    }
}

/// A projection of a stage.
#[derive(Clone, Debug)]
pub(super) struct Linear {
    pub(super) weight: Weight,       // [out, in]
    pub(super) bias: Option<Tensor>, // [out]
    pub(super) lora: Option<Lora>,
    pub(super) name: String,
    pub(super) bias_name: String,
    pub(super) trains_weight: bool,
}

/// What the backward pass of a projection needs beyond its input.
#[derive(Clone, Debug, Default)]
pub(super) struct LinearTape {
    /// Codes of `x A^T`, `[m, r]`.
    low: Option<Coded>,
    /// What the magnitudes of a decomposed update multiply, `[m, out]`.
    inner: Option<Tensor>,
}

/// The context of one backward call.
pub(super) struct Backward<'a> {
    pub(super) device: &'a Device,
    pub(super) atoms: &'a Atoms,
    /// The rows of each sequence, where only some of its tokens have one, as in an expert.
    pub(super) rows: Option<&'a [Range<usize>]>,
    pub(super) precision: Precision,
    /// What low-rank updates drop of their inputs.
    pub(super) drops: Option<Drops<'a>>,
    pub(super) gradients: &'a mut Gradients,
}

impl Backward<'_> {
    /// `dy^T x` over all tokens.
    fn weight_gradient(&self, dy: &Tensor, x: &Coded) -> Result<Tensor, KernelError> {
        let (device, precision) = (self.device, self.precision);
        let Some(rows) = self.rows else {
            return device.matmul_dw(dy, x, self.atoms, precision);
        };
        self.over_sequences(rows, &[dy.rows_cols().1, x.cols], |rows| {
            let atoms = Atoms::new(1, rows.len());
            let (dy, x) = (
                dy.rows(rows.start, rows.len()),
                x.part(rows.start, rows.len()),
            );
            device.matmul_dw(&dy, &x, &atoms, precision)
        })
    }

    /// The sum of dy over all tokens.
    fn bias_gradient(&self, dy: &Tensor) -> Result<Tensor, KernelError> {
        let Some(rows) = self.rows else {
            return self.device.bias_gradient(dy, self.atoms);
        };
        self.over_sequences(rows, &[dy.rows_cols().1], |rows| {
            let atoms = Atoms::new(1, rows.len());
            self.device
                .bias_gradient(&dy.rows(rows.start, rows.len()), &atoms)
        })
    }

    /// Sums along the tree over the index of sequences; sequences without rows are left out.
    fn over_sequences(
        &self,
        rows: &[Range<usize>],
        shape: &[usize],
        gradient: impl Fn(Range<usize>) -> Result<Tensor, KernelError>,
    ) -> Result<Tensor, KernelError> {
        let mut leaf = |sequence: usize| {
            let rows = rows[sequence].clone();
            (!rows.is_empty()).then(|| gradient(rows)).transpose()
        };
        type Node = Result<Option<Tensor>, KernelError>;
        let mut add = |sum: &mut Node, later: Node| match (&mut *sum, later) {
            (Ok(Some(left)), Ok(Some(right))) => {
                if let Err(error) = self.device.add_assign(left, &right) {
                    *sum = Err(error);
                }
            }
            (Ok(None), later) | (Ok(_), later @ Err(_)) => *sum = later,
            (Ok(Some(_)), Ok(None)) | (Err(_), _) => {}
        };
        match tree_sum(rows.len(), &mut leaf, &mut add)? {
            Some(sum) => Ok(sum),
            None => self.device.zeros(shape),
        }
    }
}

impl Linear {
    /// y `[m, out]` from the codes of x `[m, in]`.
    pub(super) fn forward(
        &self,
        device: &Device,
        x: &Coded,
        precision: Precision,
        drops: Option<Drops<'_>>,
    ) -> Result<(Tensor, LinearTape), KernelError> {
        if let Some((lora, magnitudes)) = self.decomposition() {
            return lora.decomposed(device, (self, magnitudes), x, precision, drops);
        }
        let mut y = device.matmul(x, &self.weight)?;
        if let Some(bias) = &self.bias {
            device.add_bias(&mut y, bias)?;
        }
        let Some(lora) = &self.lora else {
            return Ok((y, LinearTape::default()));
        };
        let low = match drops {
            Some(of_rows) => {
                let kept = of_rows.codes(device, x, &lora.name_a)?;
                lora.add_update(device, &mut y, &kept, precision, drops)?
            }
            None => lora.add_update(device, &mut y, x, precision, None)?,
        };
        let tape = LinearTape {
            low: Some(low),
            inner: None,
        };
        Ok((y, tape))
    }

    /// Its update, where that is a decomposed one.
    fn decomposition(&self) -> Option<(&Lora, &Magnitudes)> {
        let lora = self.lora.as_ref()?;
        Some((lora, lora.magnitudes.as_deref()?))
    }

    /// Brings what is derived from its update up to the update's values.
    pub(super) fn measure(
        &mut self,
        device: &Device,
        precision: Precision,
    ) -> Result<(), KernelError> {
        match &mut self.lora {
            Some(lora) => lora.measure(device, &self.weight, precision),
            None => Ok(()),
        }
    }

    /// Adds the gradients of what is trained, and returns dx `[m, in]`.
    pub(super) fn backward(
        &self,
        run: &mut Backward<'_>,
        dy: &Tensor,
        x: &Coded,
        tape: &LinearTape,
    ) -> Result<Tensor, KernelError> {
        let d_low = self.own_gradients(run, dy, x, tape)?;
        let (device, precision) = (run.device, run.precision);
        let inner = self.decomposition();
        let inner = inner.map(|(_, magnitudes)| magnitudes.inner(device, dy));
        let inner = inner.transpose()?;
        let of_whole = inner.as_ref().filter(|_| run.drops.is_none());
        let mut dx = device.matmul_dx(of_whole.unwrap_or(dy), &self.weight, precision)?;
        if let (Some(lora), Some(d_low)) = (&self.lora, d_low) {
            let Some(drops) = run.drops else {
                device.add_matmul_dx(&mut dx, &d_low, &lora.a, precision)?;
                return Ok(dx);
            };
            let mut update = device.matmul_dx(&d_low, &lora.a, precision)?;
            if let Some(mut share) = inner {
                device.scaled_add_assign(&mut share, -1.0, dy)?;
                let share = device.scaled(&share, drops.scale(1.0))?;
                let share = device.matmul_dx(&share, &self.weight, precision)?;
                device.add_assign(&mut update, &share)?;
            }
            drops.assign(device, &mut update, &lora.name_a)?;
            device.add_assign(&mut dx, &update)?;
        }
        Ok(dx)
    }

    /// Adds the gradients of what is trained; returns, for a low-rank update, the gradient of
    /// `x A^T`.
    pub(super) fn own_gradients(
        &self,
        run: &mut Backward<'_>,
        dy: &Tensor,
        x: &Coded,
        tape: &LinearTape,
    ) -> Result<Option<Tensor>, KernelError> {
        let (device, precision) = (run.device, run.precision);
        if self.trains_weight {
            let dw = run.weight_gradient(dy, x)?;
            run.gradients.insert(&self.name, TensorUse::Own, dw);
            if self.bias.is_some() {
                let db = run.bias_gradient(dy)?;
                run.gradients.insert(&self.bias_name, TensorUse::Own, db);
            }
        }
        let (Some(lora), Some(low)) = (&self.lora, &tape.low) else {
            return Ok(None);
        };
        let scaled = match (&lora.magnitudes, &tape.inner) {
            (Some(magnitudes), Some(inner)) => {
                magnitudes.gradient(run, dy, inner)?;
                let d_inner = magnitudes.inner(device, dy)?;
                device.scaled(&d_inner, lora.scale_with(run.drops))?
            }
            _ => device.scaled(dy, lora.scale_with(run.drops))?,
        };
        let db = run.weight_gradient(&scaled, low)?;
        let d_low = device.matmul_dx(&scaled, &lora.b, precision)?;
        let da = match run.drops {
            Some(drops) => run.weight_gradient(&d_low, &drops.codes(device, x, &lora.name_a)?)?,
            None => run.weight_gradient(&d_low, x)?,
        };
        run.gradients.insert(&lora.name_b, TensorUse::Own, db);
        run.gradients.insert(&lora.name_a, TensorUse::Own, da);
        Ok(Some(d_low))
    }

    /// Zeros as the gradients of what is trained, for an expert that has no tokens.
    pub(super) fn no_gradients(&self, run: &mut Backward<'_>) -> Result<(), KernelError> {
        let mut insert = |name: &str, shape: &[usize]| -> Result<(), KernelError> {
            let zeros = run.device.zeros(shape)?;
            run.gradients.insert(name, TensorUse::Own, zeros);
            Ok(())
        };
        if self.trains_weight {
            insert(&self.name, &[self.weight.rows, self.weight.cols])?;
            if self.bias.is_some() {
                insert(&self.bias_name, &[self.weight.rows])?;
            }
        }
        if let Some(lora) = &self.lora {
            insert(&lora.name_b, &[lora.b.rows, lora.b.cols])?;
            insert(&lora.name_a, &[lora.a.rows, lora.a.cols])?;
            if let Some(magnitudes) = &lora.magnitudes {
                insert(&magnitudes.name, &[lora.b.rows])?;
            }
        }
        Ok(())
    }
}
