//! The learning rate over the steps, computed with `+ - * /` only, so that it has the same bits on
//! every machine.

use concord_kernels::tables::sin_cos;

/// The curve after warm-up.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Curve {
    /// Half a cosine, down to 0.
    Cosine,
    /// A line down to 0.
    Linear,
    /// The peak throughout.
    Constant,
    /// One whose warm-up begins at rate 0.
    FromZero(FromZero),
}

/// A curve as the trainer of Hugging Face has it: warm-up begins at rate 0, so that the peak comes
/// a step later.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum FromZero {
    /// Half a cosine, down to a share of the peak.
    Cosine {
        /// The share, from 0 to 1.
        floor: f32,
    },
    /// A line down to 0.
    Linear,
    /// The peak throughout.
    Constant,
    /// The root of `warmup / s`; without warm-up, of `10000 / (s + 10000)`.
    InverseSqrt,
}

/// The scale of [`FromZero::InverseSqrt`] without warm-up.
const INVERSE_SQRT_STEPS: f64 = 10_000.0;

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
    /// The rate at `step`, counted from 0: `(s + 1) / warmup` of the peak during warm-up, or `s /
    /// warmup` for curves from 0; then the curve at `(s - warmup) / (steps - warmup)`.
    pub fn at(&self, step: u32) -> f32 {
        let peak = f64::from(self.peak);
        let (step, warmup) = (f64::from(step), f64::from(self.warmup_steps));
        if step < warmup {
            let steps = match self.curve {
                Curve::FromZero(_) => step,
                _ => step + 1.0,
            };
            return (peak * steps / warmup) as f32;
        }
        let after = f64::from(self.steps.saturating_sub(self.warmup_steps).max(1));
        let share = (step - warmup) / after;
        let cosine = || 0.5 * (1.0 + sin_cos(std::f64::consts::PI * share).1);
        let factor = match self.curve {
            Curve::Cosine => cosine(),
            Curve::FromZero(FromZero::Cosine { floor }) => {
                let floor = f64::from(floor);
                floor + (1.0 - floor) * cosine()
            }
            Curve::Linear | Curve::FromZero(FromZero::Linear) => 1.0 - share,
            Curve::Constant | Curve::FromZero(FromZero::Constant) => 1.0,
            Curve::FromZero(FromZero::InverseSqrt) if warmup > 0.0 => (warmup / step).sqrt(),
            Curve::FromZero(FromZero::InverseSqrt) => {
                (INVERSE_SQRT_STEPS / (step + INVERSE_SQRT_STEPS)).sqrt()
            }
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

    /// Rates of transformers 5.24.0 (`get_cosine_schedule_with_warmup` and its like), peak 1e-3,
    /// warm-up 4, 20 steps, at steps 0, 1, 3, 4, 12 and 19.
    #[test]
    fn curves_from_zero_are_those_of_hugging_face() {
        const STEPS: [u32; 6] = [0, 1, 3, 4, 12, 19];
        let expected: [(FromZero, [f64; 6]); 5] = [
            (FromZero::Cosine { floor: 0.0 }, COSINE),
            (FromZero::Cosine { floor: 0.1 }, COSINE_FLOOR),
            (FromZero::Linear, LINEAR),
            (FromZero::Constant, CONSTANT),
            (FromZero::InverseSqrt, INVERSE_SQRT),
        ];
        for (curve, rates) in expected {
            let rate = LearningRate {
                curve: Curve::FromZero(curve),
                peak: 1e-3,
                warmup_steps: 4,
                steps: 20,
            };
            for (step, expected) in STEPS.into_iter().zip(rates) {
                let got = f64::from(rate.at(step));
                assert!(
                    (got - expected).abs() < 1e-10,
                    "{curve:?} at {step}: {got} {expected}"
                );
            }
        }
        let bare = LearningRate {
            curve: Curve::FromZero(FromZero::InverseSqrt),
            peak: 1e-3,
            warmup_steps: 0,
            steps: 20,
        };
        assert_eq!(bare.at(0), 1e-3);
        assert!((f64::from(bare.at(19)) - INVERSE_SQRT_BARE).abs() < 1e-10);
    }

    const COSINE: [f64; 6] = [0.0, 0.00025, 0.00075, 0.001, 0.0005, 9.60735979838e-06];
    const COSINE_FLOOR: [f64; 6] = [0.0, 0.00025, 0.00075, 0.001, 0.00055, 0.000108646623819];
    const LINEAR: [f64; 6] = [0.0, 0.00025, 0.00075, 0.001, 0.0005, 6.25e-05];
    const CONSTANT: [f64; 6] = [0.0, 0.00025, 0.00075, 0.001, 0.001, 0.001];
    const INVERSE_SQRT: [f64; 6] = [
        0.0,
        0.00025,
        0.00075,
        0.001,
        0.00057735026919,
        0.000458831467741,
    ];
    const INVERSE_SQRT_BARE: f64 = 0.00099905135161;
}
