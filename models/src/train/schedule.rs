//! The learning rate over the steps, computed with `+ - * /` only, so that it has the same bits on
//! every machine.

use concord_kernels::tables::sin_cos;

/// The curve after warm-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Curve {
    /// Half a cosine, down to 0.
    Cosine,
    /// A line down to 0.
    Linear,
    /// The peak throughout.
    Constant,
}

/// A learning rate over the steps of a job.
///
/// ```
/// use concord_models::train::{Curve, LearningRate};
///
/// let rate = LearningRate {
///     curve: Curve::Linear,
///     peak: 1e-3,
///     warmup_steps: 2,
///     steps: 10,
/// };
/// assert_eq!([rate.at(0), rate.at(1), rate.at(6)], [5e-4, 1e-3, 5e-4]);
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LearningRate {
    /// The curve after warm-up.
    pub curve: Curve,
    /// The rate at the end of warm-up.
    pub peak: f32,
    /// Steps of warm-up.
    pub warmup_steps: u32,
    /// Steps of the job.
    pub steps: u32,
}

impl LearningRate {
    /// The rate at `step`, counted from 0: `(s + 1) / warmup` of the peak during warm-up, then the
    /// curve at `(s - warmup) / (steps - warmup)`.
    pub fn at(&self, step: u32) -> f32 {
        let peak = f64::from(self.peak);
        if step < self.warmup_steps {
            return (peak * (f64::from(step) + 1.0) / f64::from(self.warmup_steps)) as f32;
        }
        let done = f64::from(step - self.warmup_steps);
        let share = done / f64::from(self.steps.saturating_sub(self.warmup_steps).max(1));
        let factor = match self.curve {
            Curve::Cosine => 0.5 * (1.0 + sin_cos(std::f64::consts::PI * share).1),
            Curve::Linear => 1.0 - share,
            Curve::Constant => 1.0,
        };
        (peak * factor) as f32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warm_up_peak_and_end_of_every_curve() {
        let rate = |curve| LearningRate {
            curve,
            peak: 1e-3,
            warmup_steps: 5,
            steps: 25,
        };
        let near = |got: f32, expected: f32| assert!((got / expected - 1.0).abs() < 1e-6, "{got}");
        for curve in [Curve::Cosine, Curve::Linear, Curve::Constant] {
            near(rate(curve).at(0), 2e-4);
            near(rate(curve).at(4), 1e-3);
            near(rate(curve).at(5), 1e-3);
        }
        near(rate(Curve::Linear).at(15), 5e-4);
        assert!((rate(Curve::Cosine).at(15) - 5e-4).abs() < 1e-9);
        assert!(rate(Curve::Cosine).at(24) < 1e-5);
        assert_eq!(rate(Curve::Constant).at(24), 1e-3);
    }
}
