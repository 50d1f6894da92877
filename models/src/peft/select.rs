//! Which matrices PEFT's options adapt, and with which rank and scale.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use super::bad_selection::{BadSelection, bad};
use super::expression::{Around, Expression, check_count};
use crate::config::{DecoderConfig, LayerMatrix, LoraSpec, Projection, UpdateShape};
use crate::json::shown;

/// Ranks that are accepted; bounds how much a file can make the reader allocate.
pub(super) const RANKS: RangeInclusive<u32> = 1..=(1 << 14);

/// Modules by their names.
#[derive(Clone, Debug, PartialEq)]
pub enum Modules {
    /// Every projection, which PEFT calls "all-linear".
    All,
    /// Whole names, or their ends from a `.` on; and projections, whatever the family calls them.
    Names {
        /// In all their modules.
        projections: BTreeSet<Projection>,
        /// Of modules.
        names: Vec<String>,
    },
    /// A regular expression for whole names.
    Pattern(String),
}

/// The options of PEFT that say where an adapter has updates, and of which shape.
#[derive(Clone, Debug, PartialEq)]
pub struct Selection {
    /// `r`.
    pub rank: u32,
    /// `lora_alpha`.
    pub alpha: f64,
    /// `use_rslora`: the scale is `alpha / sqrt(rank)`.
    pub is_rank_stabilised: bool,
    /// `use_dora`: the rows of adapted matrices have trained magnitudes.
    pub use_dora: bool,
    /// `target_modules`.
    pub targets: Modules,
    /// `exclude_modules`.
    pub exclude: Option<Modules>,
    /// `layers_to_transform`: layers by their index; `None` for all.
    pub layers: Option<Vec<u32>>,
    /// `layers_pattern`: names of lists of layers; empty for any.
    pub layers_pattern: Vec<String>,
    /// `rank_pattern`: the first expression that fits the end of a name decides.
    pub rank_pattern: Vec<(String, u32)>,
    /// `alpha_pattern`, likewise.
    pub alpha_pattern: Vec<(String, f64)>,
    /// `modules_to_save`: ends of names of modules, from any letter on.
    pub saved: Vec<String>,
}

/// What the options select.
#[derive(Clone, Debug, PartialEq)]
pub struct Selected {
    /// The updates.
    pub spec: LoraSpec,
    /// Options and keys of theirs that fit no adapted module, so that they change nothing.
    pub unused: Vec<(&'static str, String)>,
}

impl Selection {
    /// The same updates on all matrices of `targets`.
    pub fn new(rank: u32, alpha: f64, targets: Modules) -> Self {
        Self {
            rank,
            alpha,
            is_rank_stabilised: false,
            use_dora: false,
            targets,
            exclude: None,
            layers: None,
            layers_pattern: Vec::new(),
            rank_pattern: Vec::new(),
            alpha_pattern: Vec::new(),
            saved: Vec::new(),
        }
    }

    /// Checks what can be checked without the model.
    ///
    /// # Errors
    /// [`BadSelection`] for an expression that cannot be read, a rank or alpha out of range, and
    /// options that exclude each other in PEFT.
    pub fn check(&self) -> Result<(), BadSelection> {
        Matchers::of(self).map(|_| ())
    }

    /// The updates on a model. A name must fit a module; an expression, at least one of them all.
    ///
    /// # Errors
    /// [`BadSelection`], also where nothing is selected.
    pub fn resolve(&self, model: &DecoderConfig) -> Result<Selected, BadSelection> {
        let mut matchers = Matchers::of(self)?;
        matchers.targets.refuse_others(model)?;
        matchers.check_steps()?;
        let saved = saved(&self.saved, model)?;
        let mut wrong = None;
        let spec = LoraSpec::of_model(model, |layer, matrix| {
            // An expression that is given up once would take as long for every module.
            if wrong.is_some() {
                return None;
            }
            let is_whole = saved.contains(&matrix.module) || matchers.is_within_saved(matrix);
            let is_adapted = !is_whole && matchers.selects(self, layer, matrix);
            let shape = is_adapted.then(|| matchers.shape(self, &matrix.module));
            wrong = matchers.check_steps().err();
            let shape = shape?;
            if !shape.alpha.is_finite() || shape.alpha <= 0.0 {
                wrong.get_or_insert(bad(
                    "lora_alpha",
                    shape.alpha,
                    format!("the scale of {} must be a number above 0", matrix.module),
                ));
            }
            Some(shape)
        });
        if let Some(wrong) = wrong {
            return Err(wrong);
        }
        matchers.targets.check_names(model)?;
        let Some(mut spec) = spec else {
            let expected = "with the other options it selects no projection of this model";
            return Err(bad("target_modules", self.targets.shown(), expected));
        };
        spec.saved = saved;
        spec.use_dora = self.use_dora;
        let unused = matchers.unused(self);
        Ok(Selected { spec, unused })
    }
}

impl Modules {
    /// Names of modules, none of which is a projection by a name of another family.
    pub fn names(names: Vec<String>) -> Self {
        Self::Names {
            projections: BTreeSet::new(),
            names,
        }
    }

    fn shown(&self) -> String {
        match self {
            Self::All => "all-linear".to_string(),
            Self::Names { projections, names } => {
                let projections = projections.iter().map(|projection| projection.name());
                let all: Vec<&str> = projections
                    .chain(names.iter().map(String::as_str))
                    .collect();
                shown(all.join(", "))
            }
            Self::Pattern(pattern) => shown(pattern),
        }
    }
}

/// A set of modules, ready to be asked.
struct Matcher<'a> {
    option: &'static str,
    modules: &'a Modules,
    /// Of a pattern.
    expression: Option<Expression>,
    /// Which names have fitted.
    used: Vec<bool>,
}

impl<'a> Matcher<'a> {
    fn of(option: &'static str, modules: &'a Modules) -> Result<Self, BadSelection> {
        let (expression, names) = match modules {
            Modules::All => (None, 0),
            Modules::Names { names, .. } => (None, names.len()),
            Modules::Pattern(text) => (Some(Expression::of(option, text, Around::Nothing)?), 0),
        };
        Ok(Self {
            option,
            modules,
            expression,
            used: vec![false; names],
        })
    }

    fn fits(&mut self, matrix: &LayerMatrix) -> bool {
        let module = &matrix.module;
        match self.modules {
            Modules::All => true,
            Modules::Pattern(_) => self.fits_whole(module),
            Modules::Names { projections, names } => {
                let mut fits = projections.contains(&matrix.projection);
                for (name, used) in names.iter().zip(&mut self.used) {
                    let fitting = ends_in(module, name);
                    *used |= fitting;
                    fits |= fitting;
                }
                fits
            }
        }
    }

    fn fits_whole(&self, module: &str) -> bool {
        let mut expression = self.expression.iter();
        expression.any(|expression| expression.fits(module))
    }

    /// Refuses an expression that fits matrices on which PEFT has an update and Concord has none.
    fn refuse_others(&self, model: &DecoderConfig) -> Result<(), BadSelection> {
        if !matches!(self.modules, Modules::Pattern(_)) {
            return Ok(());
        }
        let parts = model.parts();
        for weight in [parts.embed_weight(), parts.head_weight()] {
            let module = weight.trim_end_matches(".weight");
            if self.fits_whole(module) {
                let why =
                    format!("it fits `{module}`: the projections of layers are adapted alone");
                return Err(bad(self.option, self.modules.shown(), why));
            }
        }
        Ok(())
    }

    /// Refuses a name that has fitted no module.
    fn check_names(&self, model: &DecoderConfig) -> Result<(), BadSelection> {
        let Modules::Names { names, .. } = self.modules else {
            return Ok(());
        };
        let mut all = names.iter().zip(&self.used);
        let Some((name, _)) = all.find(|(name, used)| !**used && !has_module(model, name)) else {
            return Ok(());
        };
        let expected = match name.parse::<Projection>() {
            Err(error) if !name.contains('.') => error.to_string(),
            _ => {
                let own = model.projections().into_iter();
                let own: Vec<&str> = own.map(|own| model.projection_name(own)).collect();
                format!("this model's projections are {}", own.join(", "))
            }
        };
        Err(bad(self.option, name, expected))
    }
}

/// All options of a selection, ready to be asked.
struct Matchers<'a> {
    targets: Matcher<'a>,
    exclude: Option<Matcher<'a>>,
    layers: Vec<Expression>,
    saved: Vec<Expression>,
    ranks: Patterns,
    alphas: Patterns,
}

/// Expressions that each fit the end of a name.
struct Patterns(Vec<(Expression, bool)>);

impl Patterns {
    fn of<T>(option: &'static str, entries: &[(String, T)]) -> Result<Self, BadSelection> {
        check_count(option, entries.iter().map(|(text, _)| text))?;
        let one = |(text, _): &(String, T)| {
            let expression = Expression::of(option, text, Around::Start)?;
            Ok((expression, false))
        };
        entries.iter().map(one).collect::<Result<_, _>>().map(Self)
    }

    /// The index of the first that fits.
    fn first(&mut self, module: &str) -> Option<usize> {
        let mut all = self.0.iter();
        let index = all.position(|(expression, _)| expression.fits(module))?;
        self.0[index].1 = true;
        Some(index)
    }
}

impl<'a> Matchers<'a> {
    fn of(selection: &'a Selection) -> Result<Self, BadSelection> {
        let is_pattern = matches!(selection.targets, Modules::Pattern(_));
        if let (Some(layers), true) = (&selection.layers, is_pattern) {
            let why = "with an expression as target_modules PEFT takes no layers: write them into \
                       the expression";
            return Err(bad(
                "layers_to_transform",
                shown(format!("{layers:?}")),
                why,
            ));
        }
        if selection.layers.is_none() && !selection.layers_pattern.is_empty() {
            let found = selection.layers_pattern.join(", ");
            let why = "without layers_to_transform it changes nothing: set both, or neither";
            return Err(bad("layers_pattern", found, why));
        }
        let ranks = selection
            .rank_pattern
            .iter()
            .map(|(key, rank)| (key.as_str(), *rank));
        for (key, rank) in ranks.chain([("r", selection.rank)]) {
            if !RANKS.contains(&rank) {
                let option = if key == "r" { "r" } else { "rank_pattern" };
                let why = format!("must be from {} to {}", RANKS.start(), RANKS.end());
                return Err(bad(option, rank, why));
            }
        }
        check_count("layers_pattern", selection.layers_pattern.iter())?;
        check_count("modules_to_save", selection.saved.iter())?;
        let layers = selection.layers_pattern.iter();
        let layers = layers.map(|text| Expression::of("layers_pattern", text, Around::Layers));
        let saved = selection.saved.iter();
        let saved = saved.map(|text| Expression::of("modules_to_save", text, Around::Within));
        let exclude = selection.exclude.as_ref();
        Ok(Self {
            targets: Matcher::of("target_modules", &selection.targets)?,
            exclude: exclude
                .map(|modules| Matcher::of("exclude_modules", modules))
                .transpose()?,
            layers: layers.collect::<Result<_, _>>()?,
            saved: saved.collect::<Result<_, _>>()?,
            ranks: Patterns::of("rank_pattern", &selection.rank_pattern)?,
            alphas: Patterns::of("alpha_pattern", &selection.alpha_pattern)?,
        })
    }

    /// Whether a matrix is within a module of `modules_to_save`, on which PEFT puts no update.
    fn is_within_saved(&self, matrix: &LayerMatrix) -> bool {
        let mut saved = self.saved.iter();
        saved.any(|expression| expression.fits(&matrix.module))
    }

    /// Refuses the first expression that was given up: what it selects is not known.
    fn check_steps(&self) -> Result<(), BadSelection> {
        let matchers = [Some(&self.targets), self.exclude.as_ref()];
        let modules = matchers.into_iter().flatten();
        let patterns = self.ranks.0.iter().chain(&self.alphas.0);
        let mut all = modules
            .flat_map(|matcher| &matcher.expression)
            .chain(&self.layers)
            .chain(&self.saved)
            .chain(patterns.map(|(expression, _)| expression));
        all.try_for_each(Expression::check_steps)
    }

    fn selects(&mut self, selection: &Selection, layer: u32, matrix: &LayerMatrix) -> bool {
        let module = &matrix.module;
        if self
            .exclude
            .as_mut()
            .is_some_and(|exclude| exclude.fits(matrix))
        {
            return false;
        }
        if !self.targets.fits(matrix) {
            return false;
        }
        match &selection.layers {
            None => true,
            Some(layers) => {
                let index = match self.layers.is_empty() {
                    true => Some(layer),
                    false => self.layers.iter().find_map(|layers| layers.index(module)),
                };
                index.is_some_and(|index| layers.contains(&index))
            }
        }
    }

    fn shape(&mut self, selection: &Selection, module: &str) -> UpdateShape {
        let rank = self.ranks.first(module);
        let rank = rank.map_or(selection.rank, |index| selection.rank_pattern[index].1);
        let alpha = self.alphas.first(module);
        let alpha = alpha.map_or(selection.alpha, |index| selection.alpha_pattern[index].1);
        // alpha / sqrt(r) is (alpha sqrt(r)) / r.
        let stretch = match selection.is_rank_stabilised {
            true => f64::from(rank).sqrt(),
            false => 1.0,
        };
        UpdateShape {
            rank,
            alpha: (alpha * stretch) as f32,
        }
    }

    fn unused(&self, selection: &Selection) -> Vec<(&'static str, String)> {
        let ranks = selection
            .rank_pattern
            .iter()
            .map(|(key, _)| ("rank_pattern", key));
        let alphas = selection
            .alpha_pattern
            .iter()
            .map(|(key, _)| ("alpha_pattern", key));
        let used = self.ranks.0.iter().chain(&self.alphas.0);
        let all = ranks.chain(alphas).zip(used);
        let unused = all.filter(|(_, (_, is_used))| !is_used);
        unused
            .map(|((option, key), _)| (option, key.clone()))
            .collect()
    }
}

/// The modules that are trained whole: as in PEFT, those whose names end in one of `names`.
fn saved(names: &[String], model: &DecoderConfig) -> Result<BTreeSet<String>, BadSelection> {
    let own = model.modules_to_save();
    let mut saved = BTreeSet::new();
    for name in names {
        let fits = own.iter().filter(|module| module.ends_with(name));
        let fits: Vec<&String> = fits.filter(|_| !name.is_empty()).collect();
        if fits.is_empty() {
            let last: BTreeSet<&str> = own
                .iter()
                .filter_map(|module| module.rsplit('.').next())
                .collect();
            let last: Vec<&str> = last.into_iter().collect();
            let tied = match model.tie_embeddings {
                true => "; its embedding is its head, and stays as it is",
                false => "",
            };
            let last = last.join(", ");
            let expected =
                format!("modules of this model that can be trained whole are {last}{tied}");
            return Err(bad("modules_to_save", name, expected));
        }
        saved.extend(fits.into_iter().cloned());
    }
    Ok(saved)
}

/// Whether a module has a name, or ends in it from a `.` on.
fn ends_in(module: &str, name: &str) -> bool {
    let before = module.strip_suffix(name).filter(|_| !name.is_empty());
    before.is_some_and(|before| before.is_empty() || before.ends_with('.'))
}

fn has_module(model: &DecoderConfig, name: &str) -> bool {
    let mut layers = 0..model.layers;
    layers.any(|layer| {
        let matrices = model.layer_matrices(layer);
        matrices.iter().any(|matrix| ends_in(&matrix.module, name))
    })
}
