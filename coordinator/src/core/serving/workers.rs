//! What is known of the workers of a deployment, apart from the stages that they hold.

use std::collections::{BTreeMap, BTreeSet};

use concord_proto::{Layers, WorkerId};

use super::{PoolMember, Time};

/// Failures in a row with the same layers after which a worker counts as too small for them.
const FAILURES_MAX: u32 = 3;

/// What a worker was told to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Told {
    /// To hold a stage.
    Hold { pipeline: u32, epoch: u32 },
    /// To stand by for these layers of a pipeline.
    StandBy { pipeline: u32, layers: Vec<Layers> },
}

/// Failures of a worker, in a row.
struct Failure {
    layers: Layers,
    count: u32,
    reason: String,
}

#[derive(Default)]
pub(super) struct StageWorkers {
    /// Layers that connected workers have loaded.
    loaded: BTreeMap<WorkerId, BTreeSet<Layers>>,
    /// What each connected worker was last told to do.
    told: BTreeMap<WorkerId, Told>,
    /// Who is out of this deployment, and why.
    barred: BTreeMap<WorkerId, String>,
    /// For each worker, the neighbours that it was separated from.
    refused: BTreeMap<WorkerId, BTreeSet<WorkerId>>,
    /// Who says that the model cannot be loaded by anyone, and why.
    gave_up: BTreeMap<WorkerId, String>,
    /// Layers that a worker could not load, how often in a row, and the reason.
    failures: BTreeMap<WorkerId, Failure>,
    /// Upper bounds of the memory of workers, in bytes, learned from their failures.
    room: BTreeMap<WorkerId, u64>,
    /// Since when stages of workers that want to leave wait for somebody to load their layers.
    leaving: BTreeMap<WorkerId, Time>,
}

impl StageWorkers {
    /// Whether a worker may be given anything to do.
    pub(super) fn may_take_part(&self, worker: &WorkerId) -> bool {
        !self.barred.contains_key(worker) && !self.gave_up.contains_key(worker)
    }

    /// Why a worker is out of this deployment, if it is.
    pub(super) fn why_barred(&self, worker: &WorkerId) -> Option<&str> {
        self.barred.get(worker).map(String::as_str)
    }

    /// Bars a worker. Says whether it was not barred before.
    pub(super) fn bar(&mut self, worker: WorkerId, reason: &str) -> bool {
        let is_news = !self.barred.contains_key(&worker);
        if is_news {
            self.barred.insert(worker, reason.to_string());
        }
        is_news
    }

    /// Notes that one of two neighbours is wrong. Gives the one that has been separated from two
    /// others by now, if there is one.
    pub(super) fn note_refusal(
        &mut self,
        sender: WorkerId,
        receiver: WorkerId,
    ) -> Option<WorkerId> {
        for (one, other) in [(sender, receiver), (receiver, sender)] {
            self.refused.entry(one).or_default().insert(other);
        }
        let has_two = |id: &WorkerId| self.refused.get(id).is_some_and(|all| all.len() > 1);
        [sender, receiver].into_iter().find(has_two)
    }

    /// A worker says that nobody could load the model.
    pub(super) fn give_up(&mut self, worker: WorkerId, reason: &str) {
        self.gave_up.insert(worker, reason.to_string());
    }

    /// Why a worker says that nobody could load the model, if it does.
    pub(super) fn why_given_up(&self, worker: &WorkerId) -> Option<&str> {
        self.gave_up.get(worker).map(String::as_str)
    }

    /// Why no worker can help, if so: several have said that the model cannot be loaded.
    pub(super) fn hopeless(&self) -> Option<String> {
        let reason = self.gave_up.values().next()?;
        (self.gave_up.len() > 1).then(|| format!("the model cannot be served: {reason}"))
    }

    /// A worker could not load or hold layers. Says whether it counts as too small for them.
    pub(super) fn note_failure(&mut self, worker: WorkerId, layers: Layers, reason: &str) -> bool {
        let before = self.failures.remove(&worker);
        let before = before.filter(|failure| failure.layers == layers);
        let count = before.map_or(0, |failure| failure.count) + 1;
        let reason = reason.to_string();
        let failure = Failure {
            layers,
            count,
            reason,
        };
        self.failures.insert(worker, failure);
        count >= FAILURES_MAX
    }

    /// Why a worker last failed, if it has not got on since.
    pub(super) fn why_failed(&self, worker: &WorkerId) -> Option<&str> {
        let failure = self.failures.get(worker)?;
        Some(&failure.reason)
    }

    /// A worker has no room for `bytes`.
    pub(super) fn limit_room(&mut self, worker: WorkerId, bytes: u64) {
        let bytes = bytes.saturating_sub(1);
        let room = self.room.entry(worker).or_insert(u64::MAX);
        *room = bytes.min(*room);
    }

    /// Bytes that a member may use.
    pub(super) fn memory(&self, member: &PoolMember) -> u64 {
        let most = self.room.get(&member.id).copied().unwrap_or(u64::MAX);
        member.device.memory_bytes.min(most)
    }

    pub(super) fn has_loaded(&self, worker: &WorkerId, layers: Layers) -> bool {
        let loaded = self.loaded.get(worker);
        loaded.is_some_and(|loaded| loaded.contains(&layers))
    }

    /// Layers of `stages` that a worker has loaded, other than its `own`.
    pub(super) fn loaded_beside(
        &self,
        worker: &WorkerId,
        own: Layers,
        stages: &[Layers],
    ) -> Vec<Layers> {
        let loaded = self.loaded.get(worker).into_iter().flatten().copied();
        let beside = loaded.filter(|layers| *layers != own && stages.contains(layers));
        beside.collect()
    }

    /// The stage of a worker runs.
    pub(super) fn note_running(&mut self, worker: WorkerId, layers: Layers) {
        self.loaded.entry(worker).or_default().insert(layers);
        self.failures.remove(&worker);
    }

    /// A worker has loaded layers to stand by. Only what it was told to load counts.
    pub(super) fn note_standing_by(
        &mut self,
        worker: WorkerId,
        layers: impl Iterator<Item = Layers>,
    ) {
        if self.told.contains_key(&worker) {
            self.loaded.entry(worker).or_default().extend(layers);
        }
    }

    /// Layers for which a worker was told to stand by; none where it was told to hold a stage.
    pub(super) fn stands_by(&self, worker: &WorkerId) -> Option<&[Layers]> {
        match self.told.get(worker)? {
            Told::StandBy { layers, .. } => Some(layers),
            Told::Hold { .. } => None,
        }
    }

    /// A worker is told to hold a stage.
    pub(super) fn tell_hold(&mut self, worker: WorkerId, pipeline: u32, epoch: u32) {
        self.leaving.remove(&worker);
        self.told.insert(worker, Told::Hold { pipeline, epoch });
    }

    /// A worker is to be told to stand by. Says whether it has to be told: it may know already.
    /// What it has loaded and is asked for still is not loaded again.
    pub(super) fn tell_stand_by(
        &mut self,
        worker: WorkerId,
        pipeline: u32,
        layers: &[Layers],
    ) -> bool {
        let told = Told::StandBy {
            pipeline,
            layers: layers.to_vec(),
        };
        let before = self.told.get(&worker);
        if before == Some(&told) {
            return false;
        }
        let held = matches!(before, Some(Told::Hold { .. }));
        let loaded = self.loaded.entry(worker).or_default();
        loaded.retain(|loaded| layers.contains(loaded));
        let is_needed = held || !layers.is_empty();
        if is_needed {
            self.told.insert(worker, told);
        }
        is_needed
    }

    /// Nothing is wanted of a worker. Says whether it was told something before.
    pub(super) fn untell(&mut self, worker: &WorkerId) -> bool {
        self.told.remove(worker).is_some()
    }

    /// A worker has dropped its layers.
    pub(super) fn drop_layers(&mut self, worker: &WorkerId) {
        self.loaded.remove(worker);
        self.told.remove(worker);
    }

    /// A worker is gone. When it comes back it may have been given another version, or more memory.
    pub(super) fn forget(&mut self, worker: &WorkerId) {
        self.drop_layers(worker);
        self.leaving.remove(worker);
        self.gave_up.remove(worker);
        self.room.remove(worker);
        self.failures.remove(worker);
    }

    /// Since when a worker that wants to leave waits for another one to load its layers.
    pub(super) fn leaving_since(&mut self, now: Time, worker: WorkerId) -> Time {
        *self.leaving.entry(worker).or_insert(now)
    }

    pub(super) fn is_leaving(&self, worker: &WorkerId) -> bool {
        self.leaving.contains_key(worker)
    }

    /// A worker that wanted to leave is replaced.
    pub(super) fn note_left(&mut self, worker: &WorkerId) {
        self.leaving.remove(worker);
        self.told.remove(worker);
    }
}
