//! A model that is served: which worker holds which part of it, and who takes over.
//!
//! An answer does not depend on any of it. A plan of a pipeline is known by its epoch; whatever
//! changes in it makes a new one, and the workers that stay keep their layers.

mod assign;
mod audits;
mod coming;
mod departing;
mod event;
mod judging;
mod planning;
mod words;

use std::collections::{BTreeMap, BTreeSet};

use concord_proto::serving::{DeploymentId, ServedModel};
use concord_proto::{Digest, Domain, Layers, WorkerId};

use super::Core;
use super::desk::Desk;
use super::event::Time;
use super::outbox::Outbox;
use audits::Audits;

pub use event::{Seat, ServingEffect, ServingEvent};

/// A model that is served.
pub(super) struct Deployed {
    served: ServedModel,
    id: DeploymentId,
    /// Counts the plans of all pipelines, and the orders to stand by.
    epoch: u32,
    pipelines: Vec<Pipeline>,
    /// Adapters that stages load.
    adapters: Vec<Digest>,
    /// Layers that connected workers have loaded.
    loaded: BTreeMap<WorkerId, BTreeSet<Layers>>,
    /// What each connected worker was last told to do.
    told: BTreeMap<WorkerId, Told>,
    /// Who is out of this deployment, and why.
    out: BTreeMap<WorkerId, String>,
    /// Who refused what a worker before it in a pipeline sent, by that worker.
    refused: BTreeMap<WorkerId, BTreeSet<WorkerId>>,
    /// Who says that the model cannot be loaded by anyone, and why.
    gave_up: BTreeMap<WorkerId, String>,
    /// Layers that a worker could not load, how often in a row, and the reason.
    failures: BTreeMap<WorkerId, Failure>,
    /// Memory that a worker turned out to have at most.
    room: BTreeMap<WorkerId, u64>,
    /// Since when seats of workers that want to leave wait for somebody to load their layers.
    leaving: BTreeMap<WorkerId, Time>,
    /// Why there is no plan.
    lacks: String,
    /// Of whom no first plan could be made.
    considered: Option<Pool>,
    audits: Audits,
    /// What was last told about the pool.
    shown: Option<words::Words>,
}

/// A pipeline.
#[derive(Debug, Default)]
struct Pipeline {
    epoch: u32,
    stages: Vec<Layers>,
    /// Who holds them; nobody while it is down.
    workers: Vec<WorkerId>,
    pages: u32,
    /// Whether all lanes are there.
    is_running: bool,
    /// Why it is as it is.
    reason: String,
    /// Who was there when it was last tried to plan it, and could not be.
    considered: Option<Pool>,
}

/// Workers, and the memory that each may use.
type Pool = Vec<(WorkerId, u64)>;

/// What a worker was told to do.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Told {
    /// To hold a seat.
    Seat { pipeline: u32, epoch: u32 },
    /// To stand by for these layers of a pipeline.
    StandBy(u32, Vec<Layers>),
}

/// Failures of a worker, in a row.
struct Failure {
    layers: Layers,
    count: u32,
    reason: String,
}

impl Deployed {
    pub(super) fn new(served: ServedModel) -> Self {
        Self {
            id: served.deployment.id(),
            served,
            epoch: 0,
            pipelines: Vec::new(),
            adapters: Vec::new(),
            loaded: BTreeMap::new(),
            told: BTreeMap::new(),
            out: BTreeMap::new(),
            refused: BTreeMap::new(),
            gave_up: BTreeMap::new(),
            failures: BTreeMap::new(),
            room: BTreeMap::new(),
            leaving: BTreeMap::new(),
            lacks: String::new(),
            considered: None,
            audits: Audits::default(),
            shown: None,
        }
    }

    /// The pipeline and the stage of a worker.
    fn seat(&self, worker: &WorkerId) -> Option<(usize, usize)> {
        let mut all = self.pipelines.iter().enumerate();
        all.find_map(|(p, pipeline)| {
            let stage = pipeline.workers.iter().position(|id| id == worker)?;
            Some((p, stage))
        })
    }

    /// Whether a worker cannot be let go yet.
    pub(super) fn needs(&self, worker: &WorkerId) -> bool {
        self.seat(worker).is_some()
    }

    /// Does what the event made possible.
    fn advance(&mut self, desk: &mut Desk) {
        self.plan_first(desk);
        self.revive(desk);
        self.see_off(desk);
        self.stand_by(desk);
        self.run_audits(desk);
        self.show(desk);
    }
}

impl Core {
    /// Serves a model from now on, and takes on no job.
    #[must_use]
    pub fn serving(mut self, served: ServedModel) -> Self {
        self.deployed = Some(Box::new(Deployed::new(served)));
        self
    }

    /// The share of answers that is audited, `p * 2^32`; none where nothing is served.
    pub(super) fn audit_rate(&self) -> u64 {
        let served = self.deployed.as_ref().map(|deployed| &deployed.served);
        served.map_or(0, |served| served.audit_rate)
    }

    /// Answers to audit are drawn with it.
    pub fn audit_nonce(&self) -> [u8; 32] {
        Digest::of_value(
            Domain::Nonce,
            &(self.secret, "audits of answers".to_string()),
        )
        .0
    }

    /// Whether there is a job that is not over.
    pub fn has_job(&self) -> bool {
        self.running().is_some()
    }

    /// Runs `then` with what is served, if anything is.
    pub(super) fn with_deployed(
        &mut self,
        now: Time,
        out: &mut Outbox,
        then: impl FnOnce(&mut Deployed, &mut Desk),
    ) {
        let Some(deployed) = &mut self.deployed else {
            return;
        };
        let mut desk = Desk {
            now,
            config: &self.config,
            key: &self.key,
            secret: &self.secret,
            pool: &mut self.pool,
            out,
        };
        then(deployed, &mut desk);
    }

    pub(super) fn on_serving(&mut self, now: Time, out: &mut Outbox, event: ServingEvent) {
        self.with_deployed(now, out, |deployed, desk| deployed.on_event(desk, event));
    }

    /// Plans, replaces and audits, where a model is served.
    pub(super) fn serve(&mut self, now: Time, out: &mut Outbox) {
        self.with_deployed(now, out, |deployed, desk| deployed.advance(desk));
    }
}
