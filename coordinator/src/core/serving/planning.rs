//! Which worker holds which layers.

use concord_proto::session::Role;
use concord_proto::{Layers, WorkerId};

use super::pipelines::WorkerMemory;
use super::{Deployed, EventContext, PoolMember};
use crate::planner::PlannerDevice;
use crate::planner::serving::{ServingPipeline, ServingPlan, plan_serving, stage_bytes};

impl Deployed {
    /// Whether a member may be given layers now.
    fn is_fit(&self, context: &EventContext, member: &PoolMember) -> bool {
        member.role == Role::Worker
            && member.session.is_some()
            && !member.draining
            && member.unfit_until <= context.now
            && self.workers.may_take_part(&member.id)
            && !context.members.is_dubious(member)
    }

    /// Workers that may be given layers and hold none, by rising key.
    pub(super) fn idle(&self, context: &EventContext) -> Vec<WorkerId> {
        let members = context.members.connected();
        let fit = members.filter(|member| self.is_fit(context, member));
        let ids = fit.map(|member| member.id);
        ids.filter(|id| !self.needs(id)).collect()
    }

    /// Bytes that a worker may use.
    pub(super) fn memory(&self, context: &EventContext, worker: &WorkerId) -> u64 {
        let member = context.members.get(worker);
        member.map_or(0, |member| self.workers.memory(member))
    }

    /// Bytes that layers take in memory, with `pages` of keys and values.
    pub(super) fn bytes(&self, layers: Layers, pages: u32) -> u64 {
        let count = self.served.deployment.layers;
        stage_bytes(&self.served.profile, layers, count, pages)
    }

    /// Makes the first plan once enough workers are there.
    pub(super) fn plan_first(&mut self, context: &mut EventContext) {
        if !self.pipelines.is_empty() {
            return;
        }
        if let Some(reason) = self.workers.hopeless() {
            self.lacks = reason;
            return;
        }
        let idle = self.idle(context);
        let wanted = self.served.min_workers.max(1) as usize;
        if idle.len() < wanted {
            let there = idle.len();
            let clashes = context.members.clashes();
            self.lacks = format!("it waits for workers: {there} of {wanted} are there{clashes}");
            return;
        }
        let at_hand = self.at_hand(context, &idle);
        if self.considered.as_ref() == Some(&at_hand) {
            return;
        }
        self.considered = Some(at_hand);
        let pipelines = self.served.pipelines;
        match self.plan(context, &idle, self.served.stages, pipelines) {
            Ok(plan) => {
                for found in &plan.pipelines {
                    let index = self.pipelines.add();
                    self.install_planned(context, index, found, &idle, "the first plan");
                }
            }
            Err(why) => self.lacks = format!("it waits for workers: {why}"),
        }
    }

    fn at_hand(&self, context: &EventContext, workers: &[WorkerId]) -> WorkerMemory {
        let memory = |id: &WorkerId| (*id, self.memory(context, id));
        workers.iter().map(memory).collect()
    }

    fn plan(
        &self,
        context: &EventContext,
        workers: &[WorkerId],
        stages: u32,
        pipelines: u32,
    ) -> Result<ServingPlan, String> {
        let devices = workers.iter().filter_map(|id| context.members.get(id));
        let devices: Vec<PlannerDevice> = devices
            .map(|member| PlannerDevice {
                id: member.id,
                name: member.device.name.clone(),
                macs_per_second: member.device.macs_per_second,
                memory_bytes: self.workers.memory(member),
            })
            .collect();
        let layers = self.served.deployment.layers;
        let (profile, pages) = (&self.served.profile, self.served.pages);
        let plan = plan_serving(&devices, profile, layers, stages, pipelines, pages);
        let plan = plan.map_err(|why| why.to_string())?;
        // Checks what the code below relies on.
        let is_whole = |p: &ServingPipeline| {
            let stages_fit = p.devices.len() == p.stages.len() && !p.stages.is_empty();
            stages_fit && p.devices.iter().all(|&device| device < workers.len())
        };
        if plan.pipelines.is_empty() || !plan.pipelines.iter().all(is_whole) {
            return Err("the planner found no pipeline".to_string());
        }
        Ok(plan)
    }

    fn install_planned(
        &mut self,
        context: &mut EventContext,
        index: usize,
        found: &ServingPipeline,
        workers: &[WorkerId],
        reason: &str,
    ) {
        let pipeline = self.pipelines.get_mut(index);
        pipeline.cut(found.stages.clone(), found.pages);
        let holders = found.devices.iter().map(|&device| workers[device]);
        let holders = holders.collect();
        self.install(context, index, holders, reason);
    }

    /// Gives the stages of a pipeline that have no fit worker to others: to those that stand by for
    /// the layers, else to those with room. If none are left, the pipeline is cut anew over all
    /// workers.
    pub(super) fn fill(&mut self, context: &mut EventContext, index: usize, reason: &str) {
        let pipeline = self.pipelines.get(index);
        let pages = pipeline.pages();
        let is_fit = |id: &WorkerId| {
            let member = context.members.get(id);
            member.is_some_and(|member| self.is_fit(context, member))
        };
        let mut idle = self.idle(context);
        let holders: Vec<(Option<WorkerId>, Layers)> = pipeline
            .holders()
            .map(|(id, layers)| (is_fit(&id).then_some(id), layers))
            .collect();
        let substituted = holders.into_iter().map(|(holder, layers)| {
            let found = holder.or_else(|| self.substitute(context, &idle, layers, pages));
            idle.retain(|id| Some(*id) != found);
            found
        });
        match substituted.collect::<Option<Vec<WorkerId>>>() {
            Some(workers) if !workers.is_empty() => self.install(context, index, workers, reason),
            Some(_) | None => self.cut_anew(context, index, reason),
        }
    }

    /// The best of `idle` for layers: one that has them loaded, else the fastest with room.
    pub(super) fn substitute(
        &self,
        context: &EventContext,
        idle: &[WorkerId],
        layers: Layers,
        pages: u32,
    ) -> Option<WorkerId> {
        let needed = self.bytes(layers, pages);
        let rank = |id: &&WorkerId| {
            let member = context.members.get(id);
            let speed = member.map_or(0, |member| member.device.macs_per_second);
            (self.workers.has_loaded(id, layers), speed)
        };
        let is_able = |id: &&WorkerId| {
            self.workers.has_loaded(id, layers) || self.memory(context, id) >= needed
        };
        idle.iter().filter(is_able).max_by_key(rank).copied()
    }

    /// Cuts a pipeline anew over its own workers and those without a stage; where even that is not
    /// possible it goes down.
    fn cut_anew(&mut self, context: &mut EventContext, index: usize, reason: &str) {
        let was_up = self.pipelines.get_mut(index).clear();
        let idle = self.idle(context);
        let found = match self.workers.hopeless() {
            Some(reason) => Err(reason),
            None => self
                .plan(context, &idle, self.served.stages, 1)
                // Fewer or more stages than asked for are better than none: no answer depends on
                // it.
                .or_else(|_| self.plan(context, &idle, 0, 1)),
        };
        match found {
            Ok(plan) => self.install_planned(context, index, &plan.pipelines[0], &idle, reason),
            Err(why) => {
                let at_hand = self.at_hand(context, &idle);
                let pipeline = self.pipelines.get_mut(index);
                pipeline.go_down(at_hand, format!("{reason}; {why}"));
                if was_up {
                    self.tell_down(context, index);
                }
            }
        }
    }

    /// Tries again to plan pipelines that are down, when others are there than the last time.
    pub(super) fn revive(&mut self, context: &mut EventContext) {
        for index in 0..self.pipelines.len() {
            if !self.pipelines.get(index).is_down() {
                continue;
            }
            let at_hand = self.at_hand(context, &self.idle(context));
            if !self.pipelines.get(index).has_considered(&at_hand) {
                self.cut_anew(context, index, "workers came or went");
            }
        }
    }
}
