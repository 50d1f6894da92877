//! The pipelines of a deployment: which worker holds which stage.

use concord_proto::{Layers, WorkerId};

/// Workers, and the memory that each may use.
pub(super) type WorkerMemory = Vec<(WorkerId, u64)>;

/// A pipeline.
#[derive(Debug, Default)]
pub(super) struct Pipeline {
    epoch: u32,
    stages: Vec<Layers>,
    /// Who holds them; nobody while it is down.
    workers: Vec<WorkerId>,
    pages: u32,
    /// Whether all stage streams are there.
    is_running: bool,
    /// Why it is as it is.
    reason: String,
    /// The workers over which the last attempt to plan it failed.
    considered: Option<WorkerMemory>,
}

/// The stage that a worker holds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Holding {
    pub(super) pipeline: usize,
    pub(super) stage: usize,
}

#[derive(Debug, Default)]
pub(super) struct Pipelines(Vec<Pipeline>);

impl Pipeline {
    pub(super) fn epoch(&self) -> u32 {
        self.epoch
    }

    pub(super) fn stages(&self) -> &[Layers] {
        &self.stages
    }

    pub(super) fn workers(&self) -> &[WorkerId] {
        &self.workers
    }

    pub(super) fn pages(&self) -> u32 {
        self.pages
    }

    pub(super) fn reason(&self) -> &str {
        &self.reason
    }

    pub(super) fn is_running(&self) -> bool {
        self.is_running
    }

    pub(super) fn is_down(&self) -> bool {
        self.workers.is_empty()
    }

    /// Who holds which layers.
    pub(super) fn holders(&self) -> impl Iterator<Item = (WorkerId, Layers)> {
        let stages = self.stages.iter().copied();
        self.workers.iter().copied().zip(stages)
    }

    /// The workers of a stage and of the one before it.
    pub(super) fn neighbours(&self, stage: u32) -> Option<(WorkerId, WorkerId)> {
        let stage = stage as usize;
        let before = self.workers.get(stage.checked_sub(1)?)?;
        Some((*before, *self.workers.get(stage)?))
    }

    /// Cuts it into other stages, which nobody holds yet.
    pub(super) fn cut(&mut self, stages: Vec<Layers>, pages: u32) {
        (self.stages, self.pages) = (stages, pages);
    }

    /// Gives it workers, one for each of its stages, under a new epoch.
    pub(super) fn install(&mut self, epoch: u32, workers: Vec<WorkerId>, reason: &str) {
        (self.epoch, self.workers) = (epoch, workers);
        (self.is_running, self.considered) = (false, None);
        self.reason = reason.to_string();
    }

    pub(super) fn run(&mut self) {
        self.is_running = true;
    }

    /// Takes its workers away. Says whether it had some.
    pub(super) fn clear(&mut self) -> bool {
        let was_up = !self.workers.is_empty();
        self.workers.clear();
        was_up
    }

    /// Notes that it cannot be planned over these workers.
    pub(super) fn go_down(&mut self, considered: WorkerMemory, reason: String) {
        self.considered = Some(considered);
        self.is_running = false;
        self.reason = reason;
    }

    /// Whether it could not be planned over the very same workers.
    pub(super) fn has_considered(&self, workers: &[(WorkerId, u64)]) -> bool {
        self.considered.as_deref() == Some(workers)
    }
}

impl Pipelines {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Pipeline> {
        self.0.iter()
    }

    /// Adds one, and gives its index.
    pub(super) fn add(&mut self) -> usize {
        self.0.push(Pipeline::default());
        self.0.len() - 1
    }

    pub(super) fn get(&self, index: usize) -> &Pipeline {
        &self.0[index]
    }

    pub(super) fn get_mut(&mut self, index: usize) -> &mut Pipeline {
        &mut self.0[index]
    }

    /// A pipeline, where its plan is of this epoch.
    pub(super) fn at(&self, index: u32, epoch: u32) -> Option<&Pipeline> {
        let pipeline = self.0.get(index as usize);
        pipeline.filter(|pipeline| pipeline.epoch == epoch)
    }

    /// See [`Self::at`].
    pub(super) fn at_mut(&mut self, index: u32, epoch: u32) -> Option<&mut Pipeline> {
        let pipeline = self.0.get_mut(index as usize);
        pipeline.filter(|pipeline| pipeline.epoch == epoch)
    }

    /// The stage that a worker holds.
    pub(super) fn held_by(&self, worker: &WorkerId) -> Option<Holding> {
        let mut all = self.0.iter().enumerate();
        all.find_map(|(pipeline, found)| {
            let stage = found.workers.iter().position(|id| id == worker)?;
            Some(Holding { pipeline, stage })
        })
    }

    /// Whether some pipeline has a stage of these layers.
    pub(super) fn have_stage(&self, layers: &Layers) -> bool {
        self.0
            .iter()
            .any(|pipeline| pipeline.stages.contains(layers))
    }
}
