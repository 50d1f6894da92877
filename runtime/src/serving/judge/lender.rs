//! Where the judge gets its stages from: those of answers without an adapter stay loaded, within
//! the bound of the stage cache.

use std::collections::BTreeMap;

use concord_models::decoder::{Stage, StageOptions, WeightBytes};
use concord_proto::Layers;
use concord_verify::serving::CheckedReceipt;

use super::{AnswerCase, Stop};
use crate::serving::stage::stage_options;
use crate::spec;
use crate::stage_cache::StageCache;

/// Lends stages for one answer.
pub(super) struct Lender<'a> {
    case: &'a AnswerCase<'a>,
    checked: &'a CheckedReceipt,
    stages: &'a StageCache,
}

impl<'a> Lender<'a> {
    pub(super) fn new(
        case: &'a AnswerCase<'a>,
        checked: &'a CheckedReceipt,
        stages: &'a StageCache,
    ) -> Self {
        Self {
            case,
            checked,
            stages,
        }
    }

    /// Bytes of a stage, if it may stay loaded: it has no adapter, and as many positions as any
    /// answer of its deployment.
    fn cached_bytes(&self, layers: Layers) -> Option<u64> {
        let deployment = &self.checked.receipt.deployment;
        let positions = u64::from(deployment.positions);
        let config = &self.case.config;
        let is_plain = self.checked.receipt.spec.adapter.is_none();
        let fits = self.checked.tokens.len() as u64 <= positions;
        let (source, device) = (self.case.tensors, self.case.device);
        let span = spec::span(layers);
        let bytes = || WeightBytes::loaded(config, span, positions, source, device);
        let bytes = (is_plain && fits).then(bytes)?;
        self.stages.holds(bytes).then_some(bytes)
    }

    /// The stage of these layers.
    pub(super) fn stage(&self, layers: Layers) -> Result<Stage, Stop> {
        let deployment = &self.checked.receipt.deployment;
        let cached = self.cached_bytes(layers);
        if cached.is_some()
            && let Some(stage) = self.stages.take((deployment.id().0, layers))
        {
            return Ok(stage);
        }
        if let Some(bytes) = cached {
            self.stages.make_room(bytes);
        }
        let (case, checked) = (self.case, self.checked);
        let options = stage_options(deployment, case.config.clone(), layers, case.device)?;
        let adapter = checked.receipt.spec.adapter.and(case.adapter);
        // A shorter table is the same table, unless it is made for the longest answer.
        let needs_all = cached.is_some() || case.config.depends_on_length();
        let options = StageOptions {
            lora: adapter.map(|adapter| adapter.lora.clone()),
            positions: match needs_all {
                true => options.positions,
                false => checked.tokens.len(),
            },
            ..options
        };
        let none = BTreeMap::new();
        let values = adapter.map_or(&none, |adapter| &adapter.tensors);
        Ok(Stage::load(options, case.tensors, values)?)
    }

    /// Keeps a stage for the next answer, or drops it.
    pub(super) fn give_back(&self, layers: Layers, stage: Stage) {
        if let Some(bytes) = self.cached_bytes(layers) {
            let deployment = &self.checked.receipt.deployment;
            self.stages.put((deployment.id().0, layers), bytes, stage);
        }
    }
}
