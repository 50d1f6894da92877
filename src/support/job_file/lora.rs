//! The keys that say where an adapter has updates, and of which rank and scale.

use anyhow::{anyhow, bail};
use concord_models::config::{DecoderConfig, LoraSpec, Projection, UpdateShape};
use concord_models::peft::{Adapter, BadSelection, Modules, Selection};

use super::keys::Keys;
use super::modules;

/// The default of `lora_r`.
pub(super) const LORA_R: u32 = 8;

/// The default of `lora_alpha`.
pub(super) const LORA_ALPHA: f32 = 16.0;

/// Keys of LoRA, which have no effect in a full fine-tune.
pub(super) const KEYS: [&str; 11] = [
    "lora_r",
    "lora_alpha",
    "lora_target_modules",
    "lora_exclude_modules",
    "peft_layers_to_transform",
    "peft_layers_pattern",
    "lora_rank_pattern",
    "lora_alpha_pattern",
    "peft_use_rslora",
    "peft_use_dora",
    "lora_modules_to_save",
];

/// The keys, as they were given.
#[derive(Clone, Debug, PartialEq)]
pub struct LoraKeys {
    pub(super) r: Option<u32>,
    pub(super) alpha: Option<f32>,
    pub(super) targets: Option<Modules>,
    /// The others, with which rank, alpha and targets do not say all.
    others: Selection,
    /// Which of the others are given.
    given: Vec<&'static str>,
}

impl LoraKeys {
    /// Reads them.
    ///
    /// # Errors
    /// Naming the key whose value is not what is allowed.
    pub(super) fn read(keys: &Keys) -> anyhow::Result<Self> {
        let mut others = Selection::new(LORA_R, f64::from(LORA_ALPHA), Modules::All);
        others.exclude = keys.value_if("lora_exclude_modules", modules::modules)?;
        others.layers = keys.value_if("peft_layers_to_transform", modules::layers)?;
        let list = keys.value_if("peft_layers_pattern", modules::texts)?;
        others.layers_pattern = list.unwrap_or_default();
        let ranks = keys.value_if("lora_rank_pattern", modules::ranks)?;
        others.rank_pattern = ranks.unwrap_or_default();
        let alphas = keys.value_if("lora_alpha_pattern", modules::alphas)?;
        others.alpha_pattern = alphas.unwrap_or_default();
        let saved = keys.value_if("lora_modules_to_save", modules::texts)?;
        others.saved = saved.unwrap_or_default();
        others.is_rank_stabilised = keys.flag("peft_use_rslora")?;
        others.use_dora = keys.flag("peft_use_dora")?;
        let given = KEYS[3..].iter().copied();
        let read = Self {
            r: keys.whole_if("lora_r")?,
            alpha: keys.number_if("lora_alpha")?,
            targets: keys.value_if("lora_target_modules", modules::modules)?,
            others,
            given: given.filter(|key| keys.has(key)).collect(),
        };
        let selection = read.selection(None);
        let checked = selection.check().and_then(|()| unknown(&selection));
        checked.map_err(|bad| {
            let key = key(bad.option);
            anyhow!(
                "{}: `{key}` has {}, but {}",
                keys.place(key),
                bad.found,
                bad.expected
            )
        })?;
        Ok(read)
    }

    /// What they select; what they leave out is that of `initial`, or the default.
    fn selection(&self, initial: Option<&LoraSpec>) -> Selection {
        let common = initial.map(|initial| initial.common);
        let UpdateShape { rank, alpha } = common.unwrap_or(UpdateShape {
            rank: LORA_R,
            alpha: LORA_ALPHA,
        });
        Selection {
            rank: self.r.unwrap_or(rank),
            alpha: f64::from(self.alpha.unwrap_or(alpha)),
            targets: self.targets.clone().unwrap_or(Modules::All),
            ..self.others.clone()
        }
    }

    /// The updates on a model, which are those of `initial` if the training starts from one.
    ///
    /// # Errors
    /// Where other updates are asked for than `initial` has, or modules that `model` lacks.
    pub(super) fn resolve(
        &self,
        initial: Option<&Adapter>,
        model: &DecoderConfig,
    ) -> anyhow::Result<LoraSpec> {
        if let Some(strange) = self.strange(model) {
            let own = model.projections().into_iter();
            let own: Vec<&str> = own.map(|own| model.projection_name(own)).collect();
            bail!(
                "`lora_target_modules` has {}, which the base model lacks: its projections are {}",
                strange.name(),
                own.join(", ")
            );
        }
        let found = initial.map(|initial| &initial.lora);
        let says_nothing = self.targets.is_none() && self.given.is_empty();
        let asked = match found {
            // Rank and alpha are compared below.
            Some(found) if says_nothing => LoraSpec {
                common: UpdateShape {
                    rank: self.r.unwrap_or(found.common.rank),
                    alpha: self.alpha.unwrap_or(found.common.alpha),
                },
                ..found.clone()
            },
            found => self.selected(&self.selection(found), model)?,
        };
        match found {
            Some(found) if *found != asked => Err(contradiction(&asked, found, &self.given)),
            _ => Ok(asked),
        }
    }

    fn selected(&self, selection: &Selection, model: &DecoderConfig) -> anyhow::Result<LoraSpec> {
        let beyond = |layer: &&u32| **layer as usize >= model.layers;
        let mut layers = selection.layers.iter().flatten();
        if let Some(layer) = layers.find(beyond) {
            bail!(
                "`peft_layers_to_transform` has {layer}, but the base model has layers 0 to {}",
                model.layers - 1
            );
        }
        let selected = selection.resolve(model).map_err(of_key)?;
        if let Some((option, name)) = selected.unused.first() {
            bail!(
                "`{}` has `{name}`, which fits no adapted module, such as {}; remove it",
                key(option),
                model.module_path(0, model.projections()[0])
            );
        }
        Ok(selected.spec)
    }

    /// A projection that is asked for and that the model lacks.
    fn strange(&self, model: &DecoderConfig) -> Option<Projection> {
        let Some(Modules::Names { projections, .. }) = &self.targets else {
            return None;
        };
        let own = model.projections();
        let mut strange = projections.iter().filter(|one| !own.contains(one));
        strange.next().copied()
    }
}

/// Refuses a name that is no part of a name of a module, nor a projection of any family.
fn unknown(selection: &Selection) -> Result<(), BadSelection> {
    let Modules::Names { names, .. } = &selection.targets else {
        return Ok(());
    };
    for name in names.iter().filter(|name| !name.contains('.')) {
        name.parse::<Projection>().map_err(|error| BadSelection {
            option: "target_modules",
            found: format!("`{name}`"),
            expected: error.to_string(),
        })?;
    }
    Ok(())
}

/// The key of a job file for one of PEFT's options.
fn key(option: &str) -> &'static str {
    match option {
        "r" => "lora_r",
        "lora_alpha" => "lora_alpha",
        "exclude_modules" => "lora_exclude_modules",
        "layers_to_transform" => "peft_layers_to_transform",
        "layers_pattern" => "peft_layers_pattern",
        "rank_pattern" => "lora_rank_pattern",
        "alpha_pattern" => "lora_alpha_pattern",
        "modules_to_save" => "lora_modules_to_save",
        _ => "lora_target_modules",
    }
}

fn of_key(bad: BadSelection) -> anyhow::Error {
    anyhow!(
        "`{}` has {}, but {}",
        key(bad.option),
        bad.found,
        bad.expected
    )
}

/// The error that an adapter to start from has another shape than is asked for.
fn contradiction(asked: &LoraSpec, found: &LoraSpec, given: &[&str]) -> anyhow::Error {
    let (common, own) = (asked.common, found.common);
    let (key, asked, found) = if common.rank != own.rank {
        ("lora_r", common.rank.to_string(), own.rank.to_string())
    } else if common.alpha != own.alpha {
        (
            "lora_alpha",
            common.alpha.to_string(),
            own.alpha.to_string(),
        )
    } else if given.is_empty() {
        ("lora_target_modules", names(asked), names(found))
    } else {
        return anyhow!(
            "{} ask for other updates than the initial adapter has; remove them to take over the \
             adapter's",
            given
                .iter()
                .map(|key| format!("`{key}`"))
                .collect::<Vec<_>>()
                .join(", ")
        );
    };
    anyhow!(
        "`{key}` is {asked}, but the initial adapter has {found}; remove `{key}` to take over the \
         adapter's"
    )
}

fn names(lora: &LoraSpec) -> String {
    let names: Vec<&str> = lora.targets.iter().map(|target| target.name()).collect();
    let places = match lora.others.values().any(Option::is_none) {
        true => " in some layers",
        false => "",
    };
    format!("[{}]{places}", names.join(", "))
}
