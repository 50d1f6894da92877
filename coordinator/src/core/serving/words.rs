//! The pool in words, for people.

use concord_proto::serving::WorkerView;
use concord_proto::session::Role;
use concord_proto::{Layers, WorkerId};

use super::super::desk::Desk;
use super::super::event::Effect;
use super::super::pool::Member;
use super::{Deployed, ServingEffect, Told};

/// What was last told about the pool.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Words {
    state: String,
    workers: Vec<WorkerView>,
    audits: (u64, u64),
}

impl Deployed {
    /// Tells the tasks that serve, where something has changed.
    pub(super) fn show(&mut self, desk: &mut Desk) {
        let view = |member: &Member| WorkerView {
            id: member.id,
            device: member.device.name.clone(),
            doing: self.doing(member),
            memory_bytes: member.device.memory_bytes,
            macs_per_second: member.device.macs_per_second,
        };
        let words = Words {
            state: self.state(),
            workers: desk.pool.connected().map(view).collect(),
            audits: self.audits.counts(),
        };
        if self.shown.as_ref() == Some(&words) {
            return;
        }
        self.shown = Some(words.clone());
        let Words {
            state,
            workers,
            audits,
        } = words;
        let pool = ServingEffect::Pool {
            state,
            workers,
            audits,
        };
        desk.out.tell(Effect::Serving(pool));
    }

    /// What the deployment waits for, or does.
    fn state(&self) -> String {
        if self.pipelines.is_empty() {
            return self.lacks.clone();
        }
        let mut words = Vec::new();
        for (index, pipeline) in self.pipelines.iter().enumerate() {
            let count = pipeline.workers.len();
            words.push(match (count, pipeline.is_running) {
                (0, _) => format!("pipeline {index} is down: {}", pipeline.reason),
                (_, false) => format!("pipeline {index} is made ready: {}", pipeline.reason),
                (1, true) => format!("pipeline {index} serves on 1 worker"),
                (_, true) => format!("pipeline {index} serves on {count} workers"),
            });
        }
        words.join("; ")
    }

    /// What a member does, in words.
    pub(in super::super) fn doing(&self, member: &Member) -> String {
        let worker = &member.id;
        if let Some(reason) = self.out.get(worker) {
            return format!("is out of this deployment: {reason}");
        }
        if let Some((index, stage)) = self.seat(worker) {
            let pipeline = &self.pipelines[index];
            let layers = range(pipeline.stages[stage]);
            let verb = if pipeline.is_running {
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
        if let Some(reason) = self.gave_up.get(worker) {
            return format!("cannot hold the model: {reason}");
        }
        match (self.told.get(worker), member.role) {
            (Some(Told::StandBy(_, layers)), _) => self.standing_by(worker, layers),
            (_, Role::Checker) => "waits for answers to audit".to_string(),
            (_, Role::Worker) => match self.failures.get(worker) {
                Some(failure) => format!("rests: {}", failure.reason),
                None => "spare".to_string(),
            },
        }
    }

    fn standing_by(&self, worker: &WorkerId, layers: &[Layers]) -> String {
        let (there, awaited): (Vec<_>, Vec<_>) = layers
            .iter()
            .partition(|layers| self.has_loaded(worker, **layers));
        let list = |all: &[&Layers]| {
            let all: Vec<String> = all.iter().map(|layers| range(**layers)).collect();
            all.join(", ")
        };
        match (there.is_empty(), awaited.is_empty()) {
            (false, _) => format!("stands by for layers {}", list(&there)),
            (true, false) => format!("loads layers {} to stand by", list(&awaited)),
            (true, true) => "spare".to_string(),
        }
    }
}

fn range(layers: Layers) -> String {
    format!("{}..{}", layers.start, layers.end)
}
