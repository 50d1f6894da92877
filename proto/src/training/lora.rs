//! Where an adapter has low-rank updates, and of which shape.

use borsh::{BorshDeserialize, BorshSerialize};

use super::f32_bits::F32Bits;

/// The largest rank of an update.
const RANK_MAX: u32 = 1 << 14;

/// Low-rank updates of matrices of a model's layers. The common shape is that of most adapted
/// matrices, and of the least rank, then alpha, among several such.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct LoraUpdates {
    /// Rows of A and columns of B.
    pub rank: u32,
    /// The update is scaled by `alpha / rank`.
    pub alpha: F32Bits,
    /// Projections that have one, by their Hugging Face names, sorted.
    pub targets: Vec<String>,
    /// Matrices of these projections that differ, in the order of their modules.
    pub others: Vec<OtherUpdate>,
    /// Modules that are trained whole beside the updates, such as `lm_head`, sorted.
    pub saved: Vec<String>,
    /// Whether the rows of adapted matrices have trained magnitudes (DoRA).
    pub use_dora: bool,
}

/// A matrix whose update is not of the common shape.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct OtherUpdate {
    /// Its module, such as `model.layers.0.self_attn.q_proj`.
    pub module: String,
    /// The shape of its update; `None` where it has none.
    pub update: Option<UpdateSize>,
}

/// Rank and scale of an update.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct UpdateSize {
    /// As [`LoraUpdates::rank`].
    pub rank: u32,
    /// As [`LoraUpdates::alpha`].
    pub alpha: F32Bits,
}

impl LoraUpdates {
    /// Checks what can be checked without the model.
    ///
    /// # Errors
    /// A sentence naming what does not hold.
    pub fn validate(&self) -> Result<(), String> {
        let common = UpdateSize {
            rank: self.rank,
            alpha: self.alpha,
        };
        let others = self.others.iter().filter_map(|other| other.update);
        for UpdateSize { rank, alpha } in others.chain([common]) {
            let alpha = alpha.get();
            if !(1..=RANK_MAX).contains(&rank) || !alpha.is_finite() || alpha <= 0.0 {
                return Err(format!("an update of rank {rank} and alpha {alpha}"));
            }
        }
        if !self.targets.windows(2).all(|pair| pair[0] < pair[1]) {
            return Err("targets are not in the order of their names".to_string());
        }
        let in_order = |pair: &[OtherUpdate]| pair[0].module < pair[1].module;
        if !self.others.windows(2).all(in_order) {
            return Err("other updates are not in the order of their modules".to_string());
        }
        if !self.saved.windows(2).all(|pair| pair[0] < pair[1]) {
            return Err("modules that are trained whole are not in order".to_string());
        }
        if self.others.iter().any(|other| other.update == Some(common)) {
            return Err("an update is listed that has the common shape".to_string());
        }
        Ok(())
    }
}
