//! Activations, alone and as gates (Shazeer 2020): `y = act(g) * u`.

use crate::math::{erf, exp, tanh};

/// `sqrt(1 / 2)`.
const SQRT_HALF: f32 = f32::from_bits(0x3f35_04f3);
/// `1 / sqrt(2 pi)`, the density of the normal distribution at 0.
const DENSITY: f32 = f32::from_bits(0x3ecc_422a);
/// `sqrt(2 / pi)`.
const SQRT_TWO_OVER_PI: f32 = f32::from_bits(0x3f4c_422a);
/// The factor of the cube in [`Activation::GeluTanh`].
const CUBE: f32 = 0.044_715;
/// The factor of [`Activation::QuickGelu`].
const QUICK: f32 = 1.702;
/// From here on the slope of [`Activation::GeluTanh`] is 0 or 1, and squares would overflow later.
const STEEP: f32 = 16.0;

/// A function of one number between two linear layers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Activation {
    /// `x * sigmoid(x)`.
    Silu,
    /// `x * (1 + erf(x / sqrt(2))) / 2` (Hendrycks and Gimpel 2016).
    Gelu,
    /// The same with `tanh(sqrt(2 / pi) * (x + 0.044715 x^3))` for `erf`.
    GeluTanh,
    /// `x * sigmoid(1.702 x)`.
    QuickGelu,
    /// `max(x, 0)`.
    Relu,
    /// `max(x, 0)^2`.
    ReluSquared,
    /// `g * sigmoid(alpha g)` of `g = min(x, limit)`; what it gates is clamped to `[-limit,
    /// limit]`, and 1 is added (gpt-oss). Without a gated input it gates 1.
    ClampedSwiglu {
        /// Steepness of the sigmoid.
        alpha: f32,
        /// The largest gate, and the largest magnitude of what is gated.
        limit: f32,
    },
}

#[inline(always)]
fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// `x` where it is above 0, else 0; NaN stays.
#[inline(always)]
fn positive(x: f32) -> f32 {
    if x <= 0.0 { 0.0 } else { x }
}

/// `x * sigmoid(factor * x)` and its slope, without the overflow of `factor * x` in the slope.
#[inline(always)]
fn steep_silu(x: f32, factor: f32) -> (f32, f32) {
    let s = sigmoid(factor * x);
    let y = x * s;
    (y, (factor * y).mul_add(1.0 - s, s))
}

#[inline(always)]
fn silu(x: f32) -> (f32, f32) {
    let s = sigmoid(x);
    (x * s, s * x.mul_add(1.0 - s, 1.0))
}

#[inline(always)]
fn gelu(x: f32) -> (f32, f32) {
    let below = 0.5 * (1.0 + erf(x * SQRT_HALF));
    let density = DENSITY * exp(-(0.5 * (x * x)));
    (x * below, x.mul_add(density, below))
}

#[inline(always)]
fn gelu_tanh(x: f32) -> (f32, f32) {
    let inner = |x: f32| (SQRT_TWO_OVER_PI * x) * CUBE.mul_add(x * x, 1.0);
    let y = (0.5 * x) * (1.0 + tanh(inner(x)));
    let near = if x > STEEP { STEEP } else { x };
    let near = if near < -STEEP { -STEEP } else { near };
    let t = tanh(inner(near));
    let grows = SQRT_TWO_OVER_PI * (3.0 * CUBE).mul_add(near * near, 1.0);
    let rises = (0.5 * near) * (-t).mul_add(t, 1.0);
    (y, rises.mul_add(grows, 0.5 * (1.0 + t)))
}

impl Activation {
    /// `act(x)` and its slope.
    #[inline(always)]
    pub(crate) fn at(self, x: f32) -> (f32, f32) {
        match self {
            Self::Silu => silu(x),
            Self::Gelu => gelu(x),
            Self::GeluTanh => gelu_tanh(x),
            Self::QuickGelu => steep_silu(x, QUICK),
            Self::Relu => (positive(x), if x <= 0.0 { 0.0 } else { 1.0 }),
            Self::ReluSquared => {
                let y = positive(x);
                (y * y, y + y)
            }
            Self::ClampedSwiglu { alpha, limit } => {
                let (y, slope) = steep_silu(if x > limit { limit } else { x }, alpha);
                (y, if x > limit { 0.0 } else { slope })
            }
        }
    }

    /// The factor that the gate is multiplied with.
    #[inline(always)]
    fn gated_part(self, u: f32) -> f32 {
        match self {
            Self::ClampedSwiglu { limit, .. } => {
                let u = if u > limit { limit } else { u };
                1.0 + if u < -limit { -limit } else { u }
            }
            _ => u,
        }
    }

    /// Whether `u` is clamped, so that it has no gradient.
    #[inline(always)]
    fn is_beyond(self, u: f32) -> bool {
        matches!(self, Self::ClampedSwiglu { limit, .. } if u > limit || u < -limit)
    }

    /// One element of `act(g) * u`.
    #[inline(always)]
    pub(crate) fn gated_one(self, g: f32, u: f32) -> f32 {
        self.at(g).0 * self.gated_part(u)
    }

    /// One element of (dg, du): `dg = (dy * u) * slope(g)`, `du = dy * act(g)`.
    #[inline(always)]
    pub(crate) fn gated_backward_one(self, dy: f32, g: f32, u: f32) -> (f32, f32) {
        let (y, slope) = self.at(g);
        let dg = (dy * self.gated_part(u)) * slope;
        (dg, if self.is_beyond(u) { 0.0 } else { dy * y })
    }
}

/// `act(g) * u`, of the shape of g and u.
pub fn gated(act: Activation, g: &[f32], u: &[f32]) -> Vec<f32> {
    let pairs = g.iter().zip(u);
    pairs.map(|(&g, &u)| act.gated_one(g, u)).collect()
}

/// (dg, du), of the shape of dy.
pub fn gated_backward(act: Activation, dy: &[f32], g: &[f32], u: &[f32]) -> (Vec<f32>, Vec<f32>) {
    let inputs = dy.iter().zip(g.iter().zip(u));
    inputs
        .map(|(&dy, (&g, &u))| act.gated_backward_one(dy, g, u))
        .unzip()
}

/// `act(x)`, of the shape of x.
pub fn forward(act: Activation, x: &[f32]) -> Vec<f32> {
    x.iter().map(|&x| act.at(x).0).collect()
}

/// `dx = dy * slope(x)`, of the shape of dy.
pub fn backward(act: Activation, dy: &[f32], x: &[f32]) -> Vec<f32> {
    dy.iter().zip(x).map(|(dy, &x)| dy * act.at(x).1).collect()
}
