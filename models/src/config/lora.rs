//! Which matrices of a model have a low-rank update, and of which rank and scale.

use std::collections::{BTreeMap, BTreeSet};

use super::{DecoderConfig, LayerMatrix, Projection, TensorSpec};

/// Rank and scale of a low-rank update.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct UpdateShape {
    /// Rows of A and columns of B.
    pub rank: u32,
    /// The update is scaled by `alpha / rank`.
    pub alpha: f32,
}

impl UpdateShape {
    /// What the product B A is multiplied by.
    pub fn scale(self) -> f32 {
        self.alpha / self.rank as f32
    }
}

/// The low-rank updates of a model.
#[derive(Clone, Debug, PartialEq)]
pub struct LoraSpec {
    /// The shape of all updates but [`Self::others`].
    pub common: UpdateShape,
    /// Projections that have an update.
    pub targets: BTreeSet<Projection>,
    /// By their modules: matrices of these projections whose update has another shape, or that have
    /// none.
    pub others: BTreeMap<String, Option<UpdateShape>>,
    /// Modules whose tensors are trained whole beside the updates: the embedding, the head, norms
    /// and projections, by their whole names.
    pub saved: BTreeSet<String>,
    /// Whether the rows of all adapted matrices have trained magnitudes (DoRA, Liu et al. 2024).
    pub use_dora: bool,
}

/// A matrix and its update.
#[derive(Clone, Debug, PartialEq)]
pub struct AdaptedMatrix {
    /// The layer, by its index in the model.
    pub layer: u32,
    /// The matrix.
    pub matrix: LayerMatrix,
    /// Its update.
    pub update: UpdateShape,
}

impl LoraSpec {
    /// Updates of one rank and scale on all matrices of some projections.
    pub fn uniform(rank: u32, alpha: f32, targets: impl IntoIterator<Item = Projection>) -> Self {
        Self {
            common: UpdateShape { rank, alpha },
            targets: targets.into_iter().collect(),
            others: BTreeMap::new(),
            saved: BTreeSet::new(),
            use_dora: false,
        }
    }

    /// The updates that `update` gives the matrices of a model, in the one form that they have: the
    /// common shape is that of most matrices, and of the least rank and alpha among several such.
    /// `None` where no matrix has an update.
    pub fn of_model(
        config: &DecoderConfig,
        mut update: impl FnMut(u32, &LayerMatrix) -> Option<UpdateShape>,
    ) -> Option<Self> {
        let mut shapes: Vec<(LayerMatrix, Option<UpdateShape>)> = Vec::new();
        for layer in 0..config.layers {
            for matrix in config.layer_matrices(layer) {
                let shape = update(layer as u32, &matrix);
                shapes.push((matrix, shape));
            }
        }
        let mut counts: BTreeMap<(u32, u32), usize> = BTreeMap::new();
        for shape in shapes.iter().filter_map(|(_, shape)| *shape) {
            // Bits of numbers above 0 are in the order of the numbers.
            let key = (shape.rank, shape.alpha.to_bits());
            *counts.entry(key).or_default() += 1;
        }
        let most = counts.values().max()?;
        let (rank, alpha) = *counts.iter().find(|(_, count)| *count == most)?.0;
        let common = UpdateShape {
            rank,
            alpha: f32::from_bits(alpha),
        };
        let adapted = shapes.iter().filter(|(_, shape)| shape.is_some());
        let targets: BTreeSet<Projection> = adapted.map(|(matrix, _)| matrix.projection).collect();
        let is_other = |(matrix, shape): &(LayerMatrix, Option<UpdateShape>)| {
            targets.contains(&matrix.projection) && *shape != Some(common)
        };
        shapes.retain(is_other);
        let others = shapes.into_iter();
        Some(Self {
            common,
            others: others
                .map(|(matrix, shape)| (matrix.module, shape))
                .collect(),
            targets,
            saved: BTreeSet::new(),
            use_dora: false,
        })
    }

    /// Whether it is in the form of [`Self::of_model`] but for projections that the model lacks,
    /// and the modules that are trained whole are some of those that can be.
    pub fn is_canonical(&self, config: &DecoderConfig) -> bool {
        let can_be = config.modules_to_save();
        if !self.saved.is_subset(&can_be) {
            return false;
        }
        if self.others.is_empty() {
            let mut adapted = self.adapted(config).into_iter();
            return !adapted.any(|adapted| self.saved.contains(&adapted.matrix.module));
        }
        let updates = Self::of_model(config, |_, matrix| self.of(matrix));
        let updates = updates.map(|updates| Self {
            saved: self.saved.clone(),
            use_dora: self.use_dora,
            ..updates
        });
        updates.as_ref() == Some(self)
    }

    /// Whether a tensor of the model is trained whole.
    pub fn saves(&self, name: &str) -> bool {
        let module = name.rsplit_once('.').map_or(name, |(module, _)| module);
        self.saved.contains(module)
    }

    /// The tensors of a model that are trained whole.
    pub fn saved_tensors(&self, config: &DecoderConfig) -> Vec<TensorSpec> {
        let all = config.tensors().into_iter();
        all.filter(|spec| self.saves(&spec.name)).collect()
    }

    /// The shape of a matrix's update, if it has one.
    pub fn of(&self, matrix: &LayerMatrix) -> Option<UpdateShape> {
        let is_saved = self.saved.contains(&matrix.module);
        if is_saved || !self.targets.contains(&matrix.projection) {
            return None;
        }
        match self.others.get(&matrix.module) {
            Some(other) => *other,
            None => Some(self.common),
        }
    }

    /// The matrices of a model that have an update. Projections that the model does not have are
    /// ignored.
    pub fn adapted(&self, config: &DecoderConfig) -> Vec<AdaptedMatrix> {
        let of_layer = |layer: usize| {
            let matrices = config.layer_matrices(layer).into_iter();
            matrices.filter_map(move |matrix| {
                Some(AdaptedMatrix {
                    layer: layer as u32,
                    update: self.of(&matrix)?,
                    matrix,
                })
            })
        };
        (0..config.layers).flat_map(of_layer).collect()
    }

    /// The least and the largest rank.
    pub fn ranks(&self) -> [u32; 2] {
        let others = self.others.values().flatten();
        let ranks = others.map(|shape| shape.rank).chain([self.common.rank]);
        ranks.fold([u32::MAX, 0], |[least, most], rank| {
            [least.min(rank), most.max(rank)]
        })
    }
}

impl DecoderConfig {
    /// Modules that can be trained whole beside an adapter: the embedding and the head, where they
    /// are two, and norms and projections outside of experts.
    pub fn modules_to_save(&self) -> BTreeSet<String> {
        let is_expert = |module: &str| {
            let experts = self.experts.as_ref().map(|experts| experts.names);
            experts.is_some_and(|names| {
                let own = [names.router, names.experts, names.shared, names.shared_gate];
                let mut own = own.into_iter().filter(|own| !own.is_empty());
                own.any(|own| format!("{module}.").contains(&format!(".{own}.")))
            })
        };
        let parts = self.parts();
        let ends = [parts.embed_weight(), parts.head_weight()];
        let is_tied = |name: &str| self.tie_embeddings && ends.iter().any(|end| end == name);
        let specs = self.tensors().into_iter();
        let own = specs.filter_map(|spec| {
            let (module, last) = spec.name.rsplit_once('.')?;
            let is_own = matches!(last, "weight" | "bias") && !is_expert(module);
            (is_own && !is_tied(&spec.name)).then(|| module.to_string())
        });
        own.collect()
    }
}
