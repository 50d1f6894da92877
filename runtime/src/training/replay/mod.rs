//! Steps of a job computed again, alone: the whole model is one stage on one device, and its
//! microbatches go through it one by one, by the functions that workers and checkers call. Sums are
//! added along the tree over the microbatches, so it does not matter how a pool had cut them.

mod state;

use std::collections::BTreeMap;
use std::sync::Arc;

use concord_kernels::Device;
use concord_models::config::DecoderConfig;
use concord_models::decoder::{Keeps, Stage, TensorSource};
use concord_models::train::TrainState;
use concord_proto::manifest::{DataManifest, StateEntry, state_roots};
use concord_proto::session::Scalars;
use concord_proto::tree::Node;
use concord_proto::{
    Digest, F32Bits, GradientPart, JobSpec, Layers, MicrobatchLoss, StepRecord, TensorState, merkle,
};

use super::data::{DataSource, Microbatch};
use super::leaf_work::{self, Purpose, Updated};
use super::partial_sums::PartialSums;
use crate::{RuntimeError, spec};

pub use super::data::ChunkReader;
pub use state::{StateFault, read_state};

/// What steps are computed from. Model and data are those that the spec names: the caller makes
/// sure of the model; sequences are checked against the manifest.
pub struct ReplayCase<'a> {
    /// Where to compute.
    pub device: &'a Device,
    /// What the job is.
    pub spec: &'a JobSpec,
    /// The base model.
    pub config: Arc<DecoderConfig>,
    /// Its tensors.
    pub base: &'a dyn TensorSource,
    /// The digests of all sequences.
    pub data: DataManifest,
    /// Gives the chunks of the data.
    pub chunk: &'a mut ChunkReader<'a>,
}

/// A job at some step, on this machine.
pub struct Replay<'a> {
    device: &'a Device,
    spec: &'a JobSpec,
    layers: Layers,
    data: DataSource,
    chunk: &'a mut ChunkReader<'a>,
    stage: Stage,
    step: u32,
    state: TrainState,
    entries: Vec<TensorState>,
}

/// A step that was computed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replayed {
    /// Its record, after the one before it.
    pub record: StepRecord,
    /// The state after it, one entry for each trained tensor.
    pub entries: Vec<StateEntry>,
    /// Tokens of its sequences.
    pub tokens: u64,
}

impl<'a> Replay<'a> {
    /// The job with `state`, in which `step` steps of the chain are done.
    ///
    /// # Errors
    /// [`RuntimeError`] where model or data are not what the job can be computed from, or a GPU
    /// fails.
    pub fn new(case: ReplayCase<'a>, state: TrainState, step: u32) -> Result<Self, RuntimeError> {
        spec::check_trainable(case.spec, &case.config)?;
        let layers = Layers::new(0, case.spec.layers);
        let data = DataSource::new(case.spec, Arc::new(case.data), &case.config)?;
        let positions = data.sequence_len();
        let options = spec::stage_options(case.spec, case.config, layers, case.device, positions)?;
        let state = state.placed(case.device)?;
        Ok(Self {
            stage: Stage::load(options, case.base, &state)?,
            entries: leaf_work::entries(case.spec, layers, &state)?,
            device: case.device,
            spec: case.spec,
            chunk: case.chunk,
            layers,
            data,
            step,
            state,
        })
    }

    /// Goes on from another state, in which `step` steps are done.
    ///
    /// # Errors
    /// [`RuntimeError`] where a GPU fails.
    pub fn go_to(&mut self, state: TrainState, step: u32) -> Result<(), RuntimeError> {
        self.state = state.placed(self.device)?;
        self.entries = leaf_work::entries(self.spec, self.layers, &self.state)?;
        self.stage.refresh(&self.state)?;
        self.step = step;
        Ok(())
    }

    /// The entries of the present state.
    pub fn entries(&self) -> Vec<StateEntry> {
        self.entries.iter().map(|tensor| tensor.entry).collect()
    }

    /// Computes the next step. `previous` is the digest of the record before it, and `done` is
    /// called after each microbatch.
    ///
    /// # Errors
    /// [`RuntimeError`] where the data are not what the job says, a number is not finite, or a GPU
    /// fails.
    pub fn step(
        &mut self,
        previous: Digest,
        done: &mut dyn FnMut(),
    ) -> Result<Replayed, RuntimeError> {
        let updates = self.spec.updates_before(self.step);
        self.compute(previous, done)
            .map_err(|error| error.in_step(updates))
    }

    fn compute(
        &mut self,
        previous: Digest,
        done: &mut dyn FnMut(),
    ) -> Result<Replayed, RuntimeError> {
        let evaluates = self.spec.is_evaluation(self.step);
        let mut pass = Pass::default();
        for microbatch in 0..self.spec.microbatches_of(self.step) {
            let batch = self.data.microbatch_of(self.chunk, self.step, microbatch)?;
            self.microbatch(&mut pass, microbatch, &batch, evaluates)?;
            done();
        }
        let (digests, tokens) = (std::mem::take(&mut pass.digests), pass.tokens);
        let (updated, scalars) = match evaluates {
            true => (
                leaf_work::evaluated(&self.state, &self.entries),
                self.scalars(pass),
            ),
            false => self.update(pass)?,
        };
        let lacking = || RuntimeError::Unsupported("the step has no losses".into());
        let zero = evaluates.then_some(F32Bits::from(0.0));
        if !evaluates {
            self.stage.refresh(&updated.state)?;
        }
        self.state = updated.state;
        self.entries = updated.entries;
        let entries = self.entries();
        let (state_root, optimizer_root) = state_roots(&entries);
        let record = StepRecord {
            job: self.spec.id(),
            previous,
            step: self.step,
            batch_root: merkle::root(&digests),
            loss: scalars.mean_loss().ok_or_else(lacking)?,
            grad_norm: zero.or_else(|| scalars.grad_norm()).ok_or_else(lacking)?,
            learning_rate: self.spec.learning_rate(self.step),
            state_root,
            optimizer_root,
        };
        self.step += 1;
        Ok(Replayed {
            record,
            entries,
            tokens,
        })
    }

    fn microbatch(
        &self,
        pass: &mut Pass,
        microbatch: u32,
        batch: &Microbatch,
        evaluates: bool,
    ) -> Result<(), RuntimeError> {
        let (stage, layers) = (&self.stage, self.layers);
        let purpose = match evaluates {
            true => Purpose::Evaluation,
            false => Purpose::Update(Keeps::Tapes),
        };
        let forwarded = leaf_work::forward(stage, layers, &batch.batch, None, purpose)?;
        let lacking = || RuntimeError::Unsupported("its last stage gives no loss".into());
        pass.losses.push(MicrobatchLoss {
            microbatch,
            sum: F32Bits::from(forwarded.loss().ok_or_else(lacking)?),
        });
        pass.digests.push(batch.digest);
        pass.tokens += batch.batch.tokens.len() as u64;
        pass.targets += batch.batch.targets.iter().flatten().count() as u64;
        if evaluates {
            return Ok(());
        }
        let (spec, tokens) = (self.spec, &batch.batch);
        let given = leaf_work::backward(spec, stage, layers, microbatch, tokens, forwarded, None)?;
        for (part, sum) in given.sums {
            let sums = pass.sums.entry(part).or_default();
            sums.insert(self.device, microbatch, self.root(), sum.tensors)?;
        }
        Ok(())
    }

    /// The node over all microbatches of an update.
    fn root(&self) -> Node {
        Node {
            start: 0,
            end: self.spec.microbatches,
        }
    }

    fn update(&self, mut pass: Pass) -> Result<(Updated, Scalars), RuntimeError> {
        let (spec, layers, device) = (self.spec, self.layers, self.device);
        let lacking = || RuntimeError::Unsupported("a gradient is missing".into());
        let mut totals = BTreeMap::new();
        for (part, sums) in &mut pass.sums {
            totals.insert(*part, sums.take(self.root()).ok_or_else(lacking)?);
        }
        let gradients = leaf_work::step_gradients(spec, layers, device, totals)?;
        let mut scalars = self.scalars(pass);
        scalars.norms = leaf_work::norms(spec, layers, device, &gradients)?;
        let updated = leaf_work::update(spec, layers, device, &self.state, &gradients, &scalars)?;
        Ok((updated, scalars))
    }

    /// The scalars of a step, without norms, and without claims that would name them.
    fn scalars(&self, pass: Pass) -> Scalars {
        Scalars {
            step: self.step,
            losses: pass.losses,
            norms: Vec::new(),
            targets: pass.targets,
            first_halves: Vec::new(),
        }
    }
}

/// What the microbatches of a step have given so far.
#[derive(Default)]
struct Pass {
    digests: Vec<Digest>,
    losses: Vec<MicrobatchLoss>,
    sums: BTreeMap<GradientPart, PartialSums>,
    tokens: u64,
    targets: u64,
}
