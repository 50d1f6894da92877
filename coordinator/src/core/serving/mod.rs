//! A model that is served: which worker holds which part of it, and who takes over.
//!
//! No answer depends on any of this. The plan of a pipeline is identified by its epoch: every
//! change makes a new one, and the workers that stay keep their layers.

mod assign;
mod auditing;
mod audits;
mod inbound;
mod leaving;
mod pipelines;
mod planning;
mod view;
mod workers;

use concord_proto::serving::{DeploymentId, ServedModel};
use concord_proto::{Digest, Domain, WorkerId};

use super::context::EventContext;
use super::event::CoreEffect;
use super::members::PoolMember;
use super::reported::reported;
use super::serving_event::{ServingEffect, ServingEvent, StageHolder};
use super::time::Time;
use super::{Core, Mode};

use audits::AnswerAudits;
use pipelines::{Pipelines, WorkerMemory};
use view::PoolView;
use workers::StageWorkers;

/// A model that is served.
pub(super) struct Deployed {
    served: ServedModel,
    id: DeploymentId,
    /// Counts the plans of all pipelines, and the orders to stand by.
    epoch: u32,
    pipelines: Pipelines,
    /// Adapters that stages load.
    adapters: Vec<Digest>,
    workers: StageWorkers,
    /// Why there is no plan.
    lacks: String,
    /// The workers that the first plan could not be made from.
    considered: Option<WorkerMemory>,
    audits: AnswerAudits,
    /// What was last told about the pool.
    shown: Option<PoolView>,
}

impl Deployed {
    pub(super) fn new(served: ServedModel) -> Self {
        Self {
            id: served.deployment.id(),
            served,
            epoch: 0,
            pipelines: Pipelines::default(),
            adapters: Vec::new(),
            workers: StageWorkers::default(),
            lacks: String::new(),
            considered: None,
            audits: AnswerAudits::default(),
            shown: None,
        }
    }

    /// Whether a worker cannot be let go yet.
    pub(super) fn needs(&self, worker: &WorkerId) -> bool {
        self.pipelines.held_by(worker).is_some()
    }

    /// Does what the event made possible: plans, replaces and audits.
    pub(super) fn advance(&mut self, context: &mut EventContext) {
        self.plan_first(context);
        self.revive(context);
        self.see_off(context);
        self.stand_by(context);
        self.run_audits(context);
        self.show(context);
    }
}

impl Core {
    /// Serves a model from now on, and takes on no job.
    #[must_use]
    pub fn serving(mut self, served: ServedModel) -> Self {
        self.mode = Mode::Serves(Box::new(Deployed::new(served)));
        self
    }

    /// The nonce by which answers to audit are drawn.
    pub fn audit_nonce(&self) -> [u8; 32] {
        let input = (self.secret, "audits of answers".to_string());
        Digest::of_value(Domain::Nonce, &input).0
    }
}
