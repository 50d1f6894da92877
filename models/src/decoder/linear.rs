//! A projection, with an optional low-rank update (LoRA, Hu et al. 2021):
//! `y = x W^T + bias`, then `y = fma(scale, (x A^T) B^T, y)`.

use concord_kernels::coded::{Coded, Precision};
use concord_kernels::ops::Atoms;
use concord_kernels::{Device, Tensor};

use super::gradients::{End, Gradients};

/// Which low-rank updates a stage has.
#[derive(Clone, Debug, PartialEq)]
pub struct LoraSpec {
    /// Rank.
    pub rank: u32,
    /// `alpha / rank`.
    pub scale: f32,
    /// Projections that have one.
    pub targets: std::collections::BTreeSet<crate::config::Projection>,
}

/// A low-rank update, as codes of its two factors.
#[derive(Clone, Debug)]
pub(super) struct Lora {
    pub(super) a: Coded, // [r, in]
    pub(super) b: Coded, // [out, r]
    pub(super) scale: f32,
    pub(super) name_a: String,
    pub(super) name_b: String,
}

/// A projection of a stage.
#[derive(Clone, Debug)]
pub(super) struct Linear {
    pub(super) weight: Coded, // [out, in]
    pub(super) bias: Option<Vec<f32>>,
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
}

/// What one backward call works on.
pub(super) struct Backward<'a> {
    pub(super) device: &'a Device,
    pub(super) atoms: &'a Atoms,
    pub(super) precision: Precision,
    pub(super) gradients: &'a mut Gradients,
}

impl Linear {
    /// y `[m, out]` from the codes of x `[m, in]`.
    pub(super) fn forward(
        &self,
        device: &Device,
        x: &Coded,
        precision: Precision,
    ) -> (Tensor, LinearTape) {
        let mut y = device.matmul(x, &self.weight);
        if let Some(bias) = &self.bias {
            device.add_bias(&mut y, bias);
        }
        let Some(lora) = &self.lora else {
            return (y, LinearTape::default());
        };
        let low = device.matmul(x, &lora.a);
        let low = device.code(low.data(), lora.a.rows, precision);
        let update = device.matmul(&low, &lora.b);
        device.scaled_add_assign(y.data_mut(), lora.scale, update.data());
        (y, LinearTape { low: Some(low) })
    }

    /// Gradients of what is trained, and dx `[m, in]` where it is wanted.
    pub(super) fn backward(
        &self,
        run: &mut Backward<'_>,
        dy: &Tensor,
        x: &Coded,
        tape: &LinearTape,
        wants_dx: bool,
    ) -> Option<Tensor> {
        let (device, precision) = (run.device, run.precision);
        if self.trains_weight {
            let dw = device.matmul_dw(dy, x, run.atoms, precision);
            run.gradients.insert(&self.name, End::Own, dw);
            if self.bias.is_some() {
                let db = device.bias_gradient(dy, run.atoms);
                run.gradients.insert(&self.bias_name, End::Own, db);
            }
        }
        let mut dx = wants_dx.then(|| device.matmul_dx(dy, &self.weight, precision));
        if let (Some(lora), Some(low)) = (&self.lora, &tape.low) {
            let scaled = device.scaled(dy, lora.scale);
            let db = device.matmul_dw(&scaled, low, run.atoms, precision);
            let d_low = device.matmul_dx(&scaled, &lora.b, precision);
            let da = device.matmul_dw(&d_low, x, run.atoms, precision);
            run.gradients.insert(&lora.name_b, End::Own, db);
            run.gradients.insert(&lora.name_a, End::Own, da);
            if let Some(dx) = &mut dx {
                let update = device.matmul_dx(&d_low, &lora.a, precision);
                device.add_assign(dx.data_mut(), update.data());
            }
        }
        dx
    }
}
