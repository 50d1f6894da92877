//! Ways to cheat, for tests of the proof and for `concord demo`. Honest code calls the methods of
//! [`FaultHooks`], which do nothing unless a liar implements them. Liars are compiled only with the
//! features `wrong-data` (the one of the demo) and `liars` (all); without them every hook is empty.
//!
//! Another liar is a file here that implements the hooks it needs, a row in `by_name.rs`, and a
//! case in `tests/liars.rs` or `runtime/tests/serving/lies.rs`.

#[cfg(feature = "liars")]
mod altered_activation;
#[cfg(feature = "liars")]
mod altered_sent;
#[cfg(feature = "liars")]
mod by_name;
#[cfg(feature = "liars")]
mod false_accuser;
#[cfg(feature = "liars")]
mod false_norm;
#[cfg(feature = "liars")]
mod forged_signature;
#[cfg(feature = "liars")]
mod lazy_checker;
#[cfg(feature = "liars")]
mod lower_precision;
#[cfg(feature = "liars")]
mod malformed_bytes;
#[cfg(feature = "liars")]
mod no_dropout;
#[cfg(feature = "liars")]
mod other_weights;
#[cfg(feature = "liars")]
mod replayed_claim;
#[cfg(feature = "liars")]
mod skipped_step;
#[cfg(feature = "liars")]
mod stale_weights;
#[cfg(feature = "wrong-data")]
mod wrong_data;
#[cfg(feature = "liars")]
mod wrong_logprob;
#[cfg(feature = "liars")]
mod wrong_token;

use std::fmt::Debug;
use std::ops::Deref;

use concord_models::decoder::{Batch, StageOptions, TensorSource};
use concord_models::train::TrainState;
use concord_proto::ledger::Finding;
use concord_proto::serving::{AnswerVerdict, BatchedReceipt, Drawn};
use concord_proto::session::ToCoordinator;
use concord_proto::{Keypair, Leaf, Signed, TensorNorm, TensorState};

#[cfg(feature = "wrong-data")]
pub use wrong_data::WrongData;

/// What a worker or a checker may do other than it claims. Every hook is called at one place of the
/// honest code and changes nothing by default. Steps and passes are counted from 0.
pub trait FaultHooks: Debug + Send + Sync {
    /// A stage of a job is about to be loaded.
    fn before_loading_stage(&self, _options: &mut StageOptions) {}

    /// A microbatch is about to go through a stage: what is computed on in its place, if anything.
    fn before_forward(&self, _step: u32, _batch: &Batch) -> Option<Batch> {
        None
    }

    /// The norms of a step are computed, and nothing is claimed yet.
    fn after_norms(&self, _step: u32, _norms: &mut [TensorNorm]) {}

    /// The update of a step is computed, and its state is not claimed yet.
    fn after_update(&self, _step: u32, _committed: StateRef<'_>, _updated: StateMut<'_>) {}

    /// A worker is about to send the claim of a step.
    fn before_sending_claim(&self, _step: u32, _claim: &mut Signed) {}

    /// A worker is about to report to the coordinator: what it sends in place of that, if anything.
    fn before_reporting(&self, _key: &Keypair, _report: &ToCoordinator) -> Option<Signed> {
        None
    }

    /// A step is committed: whether the stage goes on with the weights that it has.
    fn keeps_weights_at_commit(&self, _step: u32) -> bool {
        false
    }

    /// A leaf is about to be computed again: the finding that is given in place of that, if any.
    fn before_auditing_leaf(&self, _step: u32, _leaf: &Leaf) -> Option<Finding> {
        None
    }

    /// An answer is about to be computed again: the verdict that is given in place of that, if any.
    fn before_judging_answer(&self, _receipt: &BatchedReceipt) -> Option<AnswerVerdict> {
        None
    }

    /// A stage that serves is about to be loaded: the weights that it takes in place of those of
    /// `source`, if any.
    fn before_loading_weights<'a>(
        &self,
        _source: &'a dyn TensorSource,
    ) -> Option<Box<dyn TensorSource + 'a>> {
        None
    }

    /// The rows of a pass are computed, and nothing is claimed yet.
    fn after_pass(&self, _pass: u64, _rows: &mut [f32]) {}

    /// The rows of a pass are about to be sent: true where they were altered.
    fn before_sending_rows(&self, _pass: u64, _rows: &mut [f32]) -> bool {
        false
    }

    /// The tokens of a pass are drawn from a vocabulary of `vocab`, and nothing is claimed yet.
    fn after_drawing(&self, _pass: u64, _vocab: u32, _drawn: &mut [Drawn]) {}
}

/// The committed state of a stage.
#[derive(Clone, Copy)]
pub struct StateRef<'a> {
    /// Values and moments.
    pub state: &'a TrainState,
    /// Their addresses.
    pub entries: &'a [TensorState],
}

/// The updated state of a stage.
pub struct StateMut<'a> {
    /// Values and moments.
    pub state: &'a mut TrainState,
    /// Their addresses.
    pub entries: &'a mut Vec<TensorState>,
}

/// Does what it claims.
#[derive(Debug)]
struct Honest;

impl FaultHooks for Honest {}

/// The [`FaultHooks`] of a worker or a checker: none by default, and none at all where no liar is
/// compiled.
///
/// ```
/// use concord_runtime::faults::{FaultHooks, Faults};
///
/// let faults = Faults::default();
/// let mut rows = [1.0, 2.0];
/// faults.after_pass(0, &mut rows);
/// assert_eq!(rows, [1.0, 2.0]);
/// assert!(!faults.keeps_weights_at_commit(7));
/// ```
#[derive(Clone, Debug, Default)]
pub struct Faults {
    #[cfg(feature = "wrong-data")]
    liar: Option<std::sync::Arc<dyn FaultHooks>>,
}

impl Faults {
    /// Cheats in this way.
    #[cfg(feature = "wrong-data")]
    pub fn of(liar: impl FaultHooks + 'static) -> Self {
        let liar: std::sync::Arc<dyn FaultHooks> = std::sync::Arc::new(liar);
        Self { liar: Some(liar) }
    }
}

impl Deref for Faults {
    type Target = dyn FaultHooks;

    fn deref(&self) -> &Self::Target {
        #[cfg(feature = "wrong-data")]
        if let Some(liar) = &self.liar {
            return &**liar;
        }
        &Honest
    }
}
