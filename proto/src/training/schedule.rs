//! The learning rate of a step: a function of the spec that workers, coordinator and verifiers
//! call. It is computed with `+ - * /` and roots only, so that it has the same bits on every
//! machine.

use concord_formats::trigonometry::sin_cos;

use super::{CurveFromZero, F32Bits, JobSpec, RateSchedule, ScheduleKind, StepWork};

/// The scale of [`CurveFromZero::InverseSqrt`] without warm-up.
const INVERSE_SQRT_STEPS: f64 = 10_000.0;

impl JobSpec {
    /// The learning rate of a step of the chain: that of its update, and 0 of an evaluation.
    pub fn learning_rate(&self, step: u32) -> F32Bits {
        F32Bits::from(match self.work(step) {
            StepWork::Update(update) => self.schedule.rate(update, self.steps),
            StepWork::Evaluation { .. } => 0.0,
        })
    }
}

impl RateSchedule {
    /// The rate of the update of this number, from 0, where there are `updates`: `(s + 1) / warmup`
    /// of the peak during warm-up, or `s / warmup` for curves from 0; then the curve at `(s -
    /// warmup) / (updates - warmup)`.
    ///
    /// ```
    /// use concord_proto::{RateSchedule, ScheduleKind};
    ///
    /// let schedule = RateSchedule {
    ///     kind: ScheduleKind::Linear,
    ///     learning_rate: 1e-3.into(),
    ///     warmup_steps: 2,
    /// };
    /// let rates = [0, 1, 6].map(|update| schedule.rate(update, 10));
    /// assert_eq!(rates, [5e-4, 1e-3, 5e-4]);
    /// ```
    pub fn rate(&self, update: u32, updates: u32) -> f32 {
        let peak = f64::from(self.learning_rate.get());
        let (step, warmup) = (f64::from(update), f64::from(self.warmup_steps));
        if step < warmup {
            let steps = match self.kind {
                ScheduleKind::FromZero(_) => step,
                _ => step + 1.0,
            };
            return (peak * steps / warmup) as f32;
        }
        let after = f64::from(updates.saturating_sub(self.warmup_steps).max(1));
        let share = (step - warmup) / after;
        let cosine = || 0.5 * (1.0 + sin_cos(std::f64::consts::PI * share).1);
        let factor = match self.kind {
            ScheduleKind::Cosine => cosine(),
            ScheduleKind::FromZero(CurveFromZero::Cosine { floor }) => {
                let floor = f64::from(floor.get());
                floor + (1.0 - floor) * cosine()
            }
            ScheduleKind::Linear | ScheduleKind::FromZero(CurveFromZero::Linear) => 1.0 - share,
            ScheduleKind::Constant | ScheduleKind::FromZero(CurveFromZero::Constant) => 1.0,
            ScheduleKind::FromZero(CurveFromZero::InverseSqrt) if warmup > 0.0 => {
                (warmup / step).sqrt()
            }
            ScheduleKind::FromZero(CurveFromZero::InverseSqrt) => {
                (INVERSE_SQRT_STEPS / (step + INVERSE_SQRT_STEPS)).sqrt()
            }
        };
        (peak * factor) as f32
    }
}
