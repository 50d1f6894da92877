//! The learning rate of a job file.

use concord_proto::{CurveFromZero, RateSchedule, ScheduleKind};

use super::keys::Keys;
use super::timing::Steps;

/// The learning rate over the steps, and of which tensors it is another.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rates {
    /// The peak.
    pub peak: f32,
    /// The curve after warm-up.
    pub curve: ScheduleKind,
    /// The rate of matrices B over that of the rest (LoRA+); `None` where they have the same.
    pub b_ratio: Option<f32>,
}

impl Rates {
    /// The keys on rates.
    ///
    /// # Errors
    /// Naming the key that is wrong, or that has no effect.
    pub(super) fn read(keys: &Keys) -> anyhow::Result<Self> {
        let ratio = keys.number_if("loraplus_lr_ratio")?;
        Ok(Self {
            peak: keys.number("learning_rate")?,
            curve: curve(keys)?,
            // One job, one hash: a ratio of 1 is none.
            b_ratio: ratio.filter(|ratio| *ratio != 1.0),
        })
    }

    /// These, in the form of the job spec.
    pub(super) fn schedule(&self, steps: &Steps) -> RateSchedule {
        let zero = CurveFromZero::Cosine {
            floor: 0.0_f32.into(),
        };
        // Without warm-up a curve is the same from wherever it begins: one job, one hash.
        let kind = match (self.curve, steps.warmup) {
            (ScheduleKind::FromZero(curve), 0) if curve == zero => ScheduleKind::Cosine,
            (ScheduleKind::FromZero(CurveFromZero::Linear), 0) => ScheduleKind::Linear,
            (ScheduleKind::FromZero(CurveFromZero::Constant), 0) => ScheduleKind::Constant,
            (kind, _) => kind,
        };
        RateSchedule {
            b_ratio: self.b_ratio.map(Into::into),
            kind,
            learning_rate: self.peak.into(),
            warmup_steps: steps.warmup,
        }
    }
}

/// The curve of the learning rate.
fn curve(keys: &Keys) -> anyhow::Result<ScheduleKind> {
    let floor = keys.number("min_lr_ratio")?.into();
    let (cosine, rex) = (
        ScheduleKind::FromZero(CurveFromZero::Cosine { floor }),
        ScheduleKind::Rex { floor },
    );
    let curves = [
        ScheduleKind::Cosine,
        ScheduleKind::Linear,
        ScheduleKind::Constant,
        cosine,
        ScheduleKind::FromZero(CurveFromZero::Linear),
        ScheduleKind::FromZero(CurveFromZero::Constant),
        ScheduleKind::FromZero(CurveFromZero::InverseSqrt),
        rex,
    ];
    let curve = keys.word("lr_scheduler", &curves)?;
    if keys.has("min_lr_ratio") && curve != cosine && curve != rex {
        let because = "without `lr_scheduler: cosine_from_zero` or `rex`";
        return Err(keys.idle("min_lr_ratio", because));
    }
    Ok(curve)
}
