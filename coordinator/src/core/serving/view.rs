//! The pool in words, for people.

use concord_proto::serving::WorkerView;
use concord_proto::session::Role;
use concord_proto::{Layers, WorkerId};

use super::{CoreEffect, Deployed, EventContext, PoolMember, ServingEffect};

/// What was last told about the pool.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct PoolView {
    state: String,
    workers: Vec<WorkerView>,
    audits: (u64, u64),
}

impl Deployed {
    /// Tells the tasks that serve, where something has changed.
    pub(super) fn show(&mut self, context: &mut EventContext) {
        let doing = |member: &PoolMember| match context.members.clash(member) {
            Some(clash) => format!("{}; {clash}", self.doing(member)),
            None => self.doing(member),
        };
        let view = |member: &PoolMember| WorkerView {
            id: member.id,
            device: member.device.name.clone(),
            doing: doing(member),
            memory_bytes: member.device.memory_bytes,
            macs_per_second: member.device.macs_per_second,
        };
        let view = PoolView {
            state: self.state(),
            workers: context.members.connected().map(view).collect(),
            audits: self.audits.counts(),
        };
        if self.shown.as_ref() == Some(&view) {
            return;
        }
        self.shown = Some(view.clone());
        let PoolView {
            state,
            workers,
            audits,
        } = view;
        let pool = ServingEffect::Pool {
            state,
            workers,
            audits,
        };
        context.out.tell(CoreEffect::Serving(pool));
    }

    /// What the deployment waits for, or does.
    fn state(&self) -> String {
        if self.pipelines.is_empty() {
            return self.lacks.clone();
        }
        let pipelines = self.pipelines.iter().enumerate();
        let words = pipelines.map(|(index, pipeline)| {
            let (count, reason) = (pipeline.workers().len(), pipeline.reason());
            match (count, pipeline.is_running()) {
                (0, _) => format!("pipeline {index} is down: {reason}"),
                (_, false) => format!("pipeline {index} is made ready: {reason}"),
                (1, true) => format!("pipeline {index} serves on 1 worker"),
                (_, true) => format!("pipeline {index} serves on {count} workers"),
            }
        });
        words.collect::<Vec<_>>().join("; ")
    }

    /// What a member does, in words.
    pub(in crate::core) fn doing(&self, member: &PoolMember) -> String {
        let worker = &member.id;
        if let Some(reason) = self.workers.why_barred(worker) {
            return format!("is out of this deployment: {reason}");
        }
        if let Some(held) = self.pipelines.held_by(worker) {
            let (index, pipeline) = (held.pipeline, self.pipelines.get(held.pipeline));
            let layers = pipeline.stages()[held.stage];
            let verb = if pipeline.is_running() {
                "serves"
            } else {
                "loads"
            };
            let leaves = if member.draining { ", and leaves" } else { "" };
            return format!("{verb} layers {layers} of pipeline {index}{leaves}");
        }
        if member.draining {
            return "leaves".to_string();
        }
        let judging = self.audits.in_flight(worker);
        if judging > 0 {
            return format!("computes {judging} answers again");
        }
        if let Some(reason) = self.workers.why_given_up(worker) {
            return format!("cannot hold the model: {reason}");
        }
        match (self.workers.stands_by(worker), member.role) {
            (Some(layers), _) => self.standing_by(worker, layers),
            (None, Role::Checker) => "waits for answers to audit".to_string(),
            (None, Role::Auditor) => "waits for what it draws".to_string(),
            (None, Role::Worker) => match self.workers.why_failed(worker) {
                Some(reason) => format!("rests: {reason}"),
                None => "spare".to_string(),
            },
        }
    }

    fn standing_by(&self, worker: &WorkerId, layers: &[Layers]) -> String {
        let (there, awaited): (Vec<_>, Vec<_>) = layers
            .iter()
            .partition(|layers| self.workers.has_loaded(worker, **layers));
        let list = |all: &[&Layers]| {
            let all: Vec<String> = all.iter().map(|layers| layers.to_string()).collect();
            all.join(", ")
        };
        match (there.is_empty(), awaited.is_empty()) {
            (false, _) => format!("stands by for layers {}", list(&there)),
            (true, false) => format!("loads layers {} to stand by", list(&awaited)),
            (true, true) => "spare".to_string(),
        }
    }
}
