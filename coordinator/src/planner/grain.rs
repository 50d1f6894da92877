//! What a planner counts in: layers; or, where these are too large, equal parts of layers that are
//! cut between their experts. A part is counted as if it held all of its layer that is no expert:
//! the first of them does.

use concord_proto::ExpertCuts;
use concord_proto::client::ModelProfile;
use concord_proto::{Edge, Layers};

use super::PlanError;

/// What a planner deals out at most: enough for each expert of 128 layers of as many.
const UNITS_MAX: u32 = 1 << 14;

/// How a model is cut into what the searches deal out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Grain {
    layers: u32,
    /// Experts of a layer between which it can be cut.
    experts: u32,
    /// Parts of a layer.
    parts: u32,
}

impl Grain {
    /// Layers as they are.
    pub(super) fn whole(layers: u32, cuts: &ExpertCuts) -> Self {
        Self {
            layers,
            experts: cuts.experts,
            parts: 1,
        }
    }

    /// About twice as many parts, where that can be.
    pub(super) fn finer(self) -> Option<Self> {
        let parts = self.parts.saturating_mul(2).min(self.experts);
        let finer = Self { parts, ..self };
        (parts > self.parts && finer.units() <= UNITS_MAX).then_some(finer)
    }

    /// Layers of the model.
    pub(super) fn layers(&self) -> u32 {
        self.layers
    }

    /// What is planned: layers, or parts of them.
    pub(super) fn units(&self) -> u32 {
        self.layers.saturating_mul(self.parts)
    }

    /// Whether layers are cut.
    pub(super) fn cuts_layers(&self) -> bool {
        self.parts > 1
    }

    /// The stage of these units.
    pub(super) fn stage(&self, (start, end): (u32, u32)) -> Layers {
        let edge = |unit: u32| Edge {
            layer: unit / self.parts,
            expert: match unit % self.parts {
                0 => 0,
                part => (u64::from(part) * u64::from(self.experts) / u64::from(self.parts)) as u32,
            },
        };
        Layers::new(edge(start), edge(end))
    }

    /// What the largest unit takes, where a layer takes `layer` and each of its experts `expert` of
    /// that.
    pub(super) fn unit_bytes(&self, layer: u64, expert: u64) -> u64 {
        let experts = u64::from(self.experts);
        let held = experts.div_ceil(self.parts.into());
        let elsewhere = expert.saturating_mul(experts - held);
        layer.saturating_sub(elsewhere)
    }

    /// What one unit takes of work that its layer takes.
    pub(super) fn unit_work(&self, layer: u64) -> u64 {
        layer.div_ceil(self.parts.into())
    }

    /// The profile of a model whose layers are the units.
    pub(super) fn profile(&self, profile: &ModelProfile) -> ModelProfile {
        let cuts = &profile.cuts;
        ModelProfile {
            layer_macs: self.unit_work(profile.layer_macs),
            layer_bytes: self.unit_bytes(profile.layer_bytes, cuts.expert_bytes),
            layer_state_bytes: self.unit_bytes(profile.layer_state_bytes, cuts.expert_state_bytes),
            layer_gradient_bytes: self.unit_work(profile.layer_gradient_bytes),
            boundary_bytes: match self.cuts_layers() {
                true => profile.boundary_bytes.max(cuts.boundary_bytes),
                false => profile.boundary_bytes,
            },
            ..profile.clone()
        }
    }

    /// What a stage takes of its layers: `layer` for each, and for each of their experts `expert`
    /// of that.
    pub(super) fn stage_bytes(&self, stage: Layers, layer: u64, expert: u64) -> u64 {
        let experts = u64::from(self.experts);
        let before = |edge: Edge| u64::from(edge.layer) * experts + u64::from(edge.expert);
        let held = before(stage.end).saturating_sub(before(stage.start));
        let rest = layer.saturating_sub(experts.saturating_mul(expert));
        let rests = (stage.attended().len() as u64).saturating_mul(rest);
        rests.saturating_add(held.saturating_mul(expert))
    }
}

/// Plans in layers; where that gives too few stages or takes too much memory, in ever smaller parts
/// of them.
pub(super) fn first_that_fits<T>(
    whole: Grain,
    mut plan: impl FnMut(Grain) -> Result<T, PlanError>,
) -> Result<T, PlanError> {
    let mut grain = whole;
    loop {
        let planned = plan(grain);
        let is_too_coarse = matches!(
            planned,
            Err(PlanError::Memory { .. } | PlanError::TooManyStages { .. })
        );
        match grain.finer() {
            Some(finer) if is_too_coarse => grain = finer,
            _ => return planned,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grain(parts: u32) -> Grain {
        Grain {
            layers: 3,
            experts: 6,
            parts,
        }
    }

    #[test]
    fn parts_of_layers_are_stages_that_follow_each_other() {
        for parts in 1..=6 {
            let grain = grain(parts);
            let stages: Vec<Layers> = (0..grain.units())
                .map(|unit| grain.stage((unit, unit + 1)))
                .collect();
            assert_eq!(
                (stages[0].start, stages.last().unwrap().end),
                (0.into(), 3.into())
            );
            let follow = |pair: &[Layers]| pair[0].end == pair[1].start && pair[0] < pair[1];
            assert!(stages.windows(2).all(follow), "{stages:?}");
            let bytes = stages
                .iter()
                .map(|&stage| grain.stage_bytes(stage, 1_000, 100));
            assert_eq!(bytes.clone().sum::<u64>(), 3_000);
            assert!(bytes.max() <= Some(grain.unit_bytes(1_000, 100)), "{parts}");
        }
        assert_eq!(grain(4).stage((1, 6)).to_string(), "0+1..1+3");
    }

    #[test]
    fn parts_become_smaller_until_they_fit() {
        let mut tried = Vec::new();
        let planned = first_that_fits(grain(1), |grain| {
            tried.push(grain.parts);
            let stages = 14;
            match grain.units() < stages {
                true => Err(PlanError::TooManyStages { stages, layers: 3 }),
                false => Ok(grain.parts),
            }
        });
        assert_eq!((planned, tried), (Ok(6), vec![1, 2, 4, 6]));
        let never = first_that_fits(grain(6), |_| Err::<(), _>(PlanError::NoDevices));
        assert_eq!(never, Err(PlanError::NoDevices));
    }
}
