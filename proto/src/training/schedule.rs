//! The learning rate of a step: a function of the spec that workers, coordinator and verifiers
//! call. It is computed with `+ - * /` and roots only, so that it has the same bits on every
//! machine.

use std::io::{Read, Write};

use borsh::de::EnumExt;
use borsh::{BorshDeserialize, BorshSerialize};
use concord_formats::trigonometry::sin_cos;

use super::{
    AdapterSpec, CurveFromZero, F32Bits, JobSpec, RateSchedule, ScheduleKind, StepWork,
    TrainedTensor,
};

/// The scale of [`CurveFromZero::InverseSqrt`] without warm-up.
const INVERSE_SQRT_STEPS: f64 = 10_000.0;

/// The constants of [`ScheduleKind::Rex`].
const REX: (f64, f64) = (0.1, 0.9);

/// Before a schedule: the bits of [`RateSchedule::b_ratio`] follow. No kind of curve has this tag.
const RATIO_FOLLOWS: u8 = 255;

/// How the names of matrices B end.
const B: &str = ".lora_B.weight";

impl JobSpec {
    /// The learning rate of a step of the chain: that of its update, and 0 of an evaluation.
    pub fn learning_rate(&self, step: u32) -> F32Bits {
        self.rate_at(step, |update| self.schedule.rate(update, self.steps))
    }

    /// The learning rate of a tensor that does not have that of the step.
    pub fn own_learning_rate(&self, step: u32, tensor: &TrainedTensor) -> Option<F32Bits> {
        let ratio = self.schedule.b_ratio?.get();
        let has_own = tensor.name.ends_with(B) || tensor.shape.len() == 1;
        let rate = |update| self.schedule.rate_of(ratio, update, self.steps);
        has_own.then(|| self.rate_at(step, rate))
    }

    fn rate_at(&self, step: u32, rate: impl Fn(u32) -> f32) -> F32Bits {
        F32Bits::from(match self.work(step) {
            StepWork::Update(update) => rate(update),
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
    ///     b_ratio: None,
    ///     kind: ScheduleKind::Linear,
    ///     learning_rate: 1e-3.into(),
    ///     warmup_steps: 2,
    /// };
    /// let rates = [0, 1, 6].map(|update| schedule.rate(update, 10));
    /// assert_eq!(rates, [5e-4, 1e-3, 5e-4]);
    /// ```
    pub fn rate(&self, update: u32, updates: u32) -> f32 {
        self.rate_of(1.0, update, updates)
    }

    /// The same with a peak that is `ratio` times as high; rounded once, at the end.
    fn rate_of(&self, ratio: f32, update: u32, updates: u32) -> f32 {
        // A product of two f32 is exact in f64.
        let peak = f64::from(self.learning_rate.get()) * f64::from(ratio);
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
        let above = |floor: F32Bits, curve: f64| {
            let floor = f64::from(floor.get());
            floor + (1.0 - floor) * curve
        };
        let factor = match self.kind {
            ScheduleKind::Cosine => cosine(),
            ScheduleKind::FromZero(CurveFromZero::Cosine { floor }) => above(floor, cosine()),
            ScheduleKind::Linear | ScheduleKind::FromZero(CurveFromZero::Linear) => 1.0 - share,
            ScheduleKind::Constant | ScheduleKind::FromZero(CurveFromZero::Constant) => 1.0,
            ScheduleKind::FromZero(CurveFromZero::InverseSqrt) if warmup > 0.0 => {
                (warmup / step).sqrt()
            }
            ScheduleKind::FromZero(CurveFromZero::InverseSqrt) => {
                (INVERSE_SQRT_STEPS / (step + INVERSE_SQRT_STEPS)).sqrt()
            }
            ScheduleKind::Rex { floor } => {
                let left = (after - (step + 1.0 - warmup)).max(0.0) / after;
                above(floor, left / (REX.0 + REX.1 * left))
            }
        };
        (peak * factor) as f32
    }

    /// Whether its numbers are what they must be.
    ///
    /// # Errors
    /// A sentence, where they are not.
    pub(super) fn check(&self, adapter: &AdapterSpec) -> Result<(), &'static str> {
        let rate = self.learning_rate.get();
        if !rate.is_finite() || rate < 0.0 {
            return Err("the learning rate must be finite and not negative");
        }
        let floor = match self.kind {
            ScheduleKind::FromZero(CurveFromZero::Cosine { floor })
            | ScheduleKind::Rex { floor } => floor.get(),
            _ => 0.0,
        };
        if !(0.0..=1.0).contains(&floor) {
            return Err("the floor of the learning rate is no share");
        }
        let Some(ratio) = self.b_ratio.map(F32Bits::get) else {
            return Ok(());
        };
        // With a ratio of 1 the same job would have two encodings.
        if !ratio.is_finite() || ratio <= 0.0 || ratio == 1.0 || !(rate * ratio).is_finite() {
            return Err("the ratio of learning rates must be above 0, finite, and not 1");
        }
        match adapter {
            AdapterSpec::Lora(_) => Ok(()),
            AdapterSpec::Full => Err("a learning rate of the matrices B of no adapter"),
        }
    }
}

impl BorshSerialize for RateSchedule {
    fn serialize<W: Write>(&self, writer: &mut W) -> std::io::Result<()> {
        if let Some(ratio) = self.b_ratio {
            (RATIO_FOLLOWS, ratio).serialize(writer)?;
        }
        (self.kind, self.learning_rate, self.warmup_steps).serialize(writer)
    }
}

impl BorshDeserialize for RateSchedule {
    fn deserialize_reader<R: Read>(reader: &mut R) -> std::io::Result<Self> {
        let mut tag = u8::deserialize_reader(reader)?;
        let mut b_ratio = None;
        if tag == RATIO_FOLLOWS {
            b_ratio = Some(F32Bits::deserialize_reader(reader)?);
            tag = u8::deserialize_reader(reader)?;
        }
        let kind = ScheduleKind::deserialize_variant(reader, tag)?;
        let (learning_rate, warmup_steps) = <(F32Bits, u32)>::deserialize_reader(reader)?;
        Ok(Self {
            b_ratio,
            kind,
            learning_rate,
            warmup_steps,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::LoraUpdates;
    use super::*;

    #[test]
    fn a_ratio_is_above_0_and_not_1_and_of_an_adapter() {
        let lora = AdapterSpec::Lora(LoraUpdates {
            rank: 8,
            alpha: 16.0.into(),
            targets: Vec::new(),
            others: Vec::new(),
            saved: Vec::new(),
            use_dora: false,
        });
        let check = |ratio: f32, adapter: &AdapterSpec| {
            let schedule = RateSchedule {
                b_ratio: Some(ratio.into()),
                kind: ScheduleKind::Constant,
                learning_rate: 0.5.into(),
                warmup_steps: 0,
            };
            schedule.check(adapter)
        };
        assert_eq!(check(16.0, &lora), Ok(()));
        assert!(check(16.0, &AdapterSpec::Full).is_err());
        for ratio in [0.0, -1.0, 1.0, f32::NAN, f32::INFINITY] {
            assert!(check(ratio, &lora).is_err(), "{ratio}");
        }
    }

    /// A job of one rate is encoded, and so named, as before there were others.
    #[test]
    fn a_ratio_that_is_not_there_takes_no_byte() {
        let mut schedule = RateSchedule {
            b_ratio: None,
            kind: ScheduleKind::Linear,
            learning_rate: 1.0.into(),
            warmup_steps: 258,
        };
        let bytes = |schedule: &RateSchedule| borsh::to_vec(schedule).unwrap();
        let bare = [1, 0, 0, 0x80, 0x3f, 2, 1, 0, 0];
        assert_eq!(bytes(&schedule), bare);
        schedule.b_ratio = Some(16.0.into());
        let with_ratio = [&[255, 0, 0, 0x80, 0x41][..], &bare].concat();
        assert_eq!(bytes(&schedule), with_ratio);
        schedule.kind = ScheduleKind::Rex { floor: 0.5.into() };
        for b_ratio in [None, schedule.b_ratio] {
            let one = RateSchedule {
                b_ratio,
                ..schedule
            };
            assert_eq!(borsh::from_slice(&bytes(&one)).ok(), Some(one));
        }
        let twice = [&[255, 0, 0, 0x80, 0x41][..], &with_ratio].concat();
        assert!(borsh::from_slice::<RateSchedule>(&twice).is_err());
    }
}
