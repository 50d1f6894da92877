//! Which worker holds which layers.

use concord_proto::session::Role;
use concord_proto::{Layers, WorkerId};

use super::super::desk::Desk;
use super::super::pool::Member;
use super::{Deployed, Pipeline, Pool};
use crate::planner::Device;
use crate::planner::serving::{ServingPipeline, ServingPlan, plan_serving, stage_bytes};

impl Deployed {
    /// Whether a member may be given layers now.
    pub(super) fn is_fit(&self, desk: &Desk, member: &Member) -> bool {
        member.role == Role::Worker
            && member.session.is_some()
            && !member.draining
            && member.unfit_until <= desk.now
            && !self.out.contains_key(&member.id)
            && !self.gave_up.contains_key(&member.id)
            && !desk.pool.is_dubious(member)
    }

    /// Workers that may be given layers and hold none, by rising key.
    pub(super) fn idle(&self, desk: &Desk) -> Vec<WorkerId> {
        let fit = desk.pool.connected().filter(|m| self.is_fit(desk, m));
        let ids = fit.map(|member| member.id);
        ids.filter(|id| self.seat(id).is_none()).collect()
    }

    /// Bytes that a worker may use.
    pub(super) fn memory(&self, desk: &Desk, worker: &WorkerId) -> u64 {
        let member = desk.pool.get(worker);
        let said = member.map_or(0, |member| member.device.memory_bytes);
        said.min(self.room.get(worker).copied().unwrap_or(u64::MAX))
    }

    /// Bytes that layers take in memory, with `pages` of keys and values.
    pub(super) fn bytes(&self, layers: Layers, pages: u32) -> u64 {
        let count = self.served.deployment.layers;
        stage_bytes(&self.served.profile, layers, count, pages)
    }

    /// Makes the first plan once enough workers are there.
    pub(super) fn plan_first(&mut self, desk: &mut Desk) {
        if !self.pipelines.is_empty() {
            return;
        }
        if let Some(reason) = self.hopeless() {
            self.lacks = reason;
            return;
        }
        let idle = self.idle(desk);
        let wanted = self.served.min_workers.max(1) as usize;
        if idle.len() < wanted {
            let there = idle.len();
            self.lacks = format!("it waits for workers: {there} of {wanted} are there");
            return;
        }
        let pool = self.pool(desk, &idle);
        if self.considered.as_ref() == Some(&pool) {
            return;
        }
        self.considered = Some(pool);
        let pipelines = self.served.pipelines;
        match self.plan(desk, &idle, self.served.stages, pipelines) {
            Ok(plan) => {
                for index in 0..plan.pipelines.len() {
                    self.pipelines.push(Pipeline::default());
                    let found = &plan.pipelines[index];
                    self.install_planned(desk, index, found, &idle, "the first plan");
                }
            }
            Err(why) => self.lacks = format!("it waits for workers: {why}"),
        }
    }

    fn pool(&self, desk: &Desk, workers: &[WorkerId]) -> Pool {
        let memory = |id: &WorkerId| (*id, self.memory(desk, id));
        workers.iter().map(memory).collect()
    }

    /// Why no worker can help, if so: several have said that the model cannot be loaded.
    pub(super) fn hopeless(&self) -> Option<String> {
        let reason = self.gave_up.values().next()?;
        (self.gave_up.len() > 1).then(|| format!("the model cannot be served: {reason}"))
    }

    fn plan(
        &self,
        desk: &Desk,
        workers: &[WorkerId],
        stages: u32,
        pipelines: u32,
    ) -> Result<ServingPlan, String> {
        let devices = workers.iter().filter_map(|id| desk.pool.get(id));
        let devices: Vec<Device> = devices
            .map(|member| Device {
                id: member.id,
                name: member.device.name.clone(),
                macs_per_second: member.device.macs_per_second,
                memory_bytes: self.memory(desk, &member.id),
            })
            .collect();
        let layers = self.served.deployment.layers;
        let (profile, pages) = (&self.served.profile, self.served.pages);
        let plan = plan_serving(&devices, profile, layers, stages, pipelines, pages);
        let plan = plan.map_err(|why| why.to_string())?;
        // The planner's word is checked where the rest relies on it.
        let is_whole = |p: &ServingPipeline| {
            let seats_fit = p.devices.len() == p.stages.len() && !p.stages.is_empty();
            seats_fit && p.devices.iter().all(|&device| device < workers.len())
        };
        if plan.pipelines.is_empty() || !plan.pipelines.iter().all(is_whole) {
            return Err("the planner found no pipeline".to_string());
        }
        Ok(plan)
    }

    fn install_planned(
        &mut self,
        desk: &mut Desk,
        index: usize,
        found: &ServingPipeline,
        workers: &[WorkerId],
        reason: &str,
    ) {
        let pipeline = &mut self.pipelines[index];
        pipeline.stages = found.stages.clone();
        pipeline.pages = found.pages;
        let seated = found.devices.iter().map(|&device| workers[device]);
        let seated = seated.collect();
        self.install(desk, index, seated, reason);
    }

    /// Gives the seats of a pipeline that lack a fit worker to others: to those that stand by for
    /// the layers, to others with room, or else in a new cut over whoever is left.
    pub(super) fn fill(&mut self, desk: &mut Desk, index: usize, reason: &str) {
        let pipeline = &self.pipelines[index];
        let (stages, pages) = (pipeline.stages.clone(), pipeline.pages);
        let is_fit = |id: &WorkerId| desk.pool.get(id).is_some_and(|m| self.is_fit(desk, m));
        let holders = pipeline.workers.iter();
        let mut seats: Vec<Option<WorkerId>> =
            holders.map(|id| is_fit(id).then_some(*id)).collect();
        let mut idle = self.idle(desk);
        for (seat, layers) in seats.iter_mut().zip(&stages) {
            if seat.is_none() {
                *seat = self.substitute(desk, &idle, *layers, pages);
                idle.retain(|id| Some(*id) != *seat);
            }
        }
        match seats.into_iter().collect::<Option<Vec<WorkerId>>>() {
            Some(workers) if !workers.is_empty() => self.install(desk, index, workers, reason),
            _ => self.cut_anew(desk, index, reason),
        }
    }

    /// The best of `idle` for layers: one that has them loaded, else the fastest with room.
    pub(super) fn substitute(
        &self,
        desk: &Desk,
        idle: &[WorkerId],
        layers: Layers,
        pages: u32,
    ) -> Option<WorkerId> {
        let needed = self.bytes(layers, pages);
        let rank = |id: &&WorkerId| {
            let speed = desk.pool.get(id).map_or(0, |m| m.device.macs_per_second);
            (self.has_loaded(id, layers), speed)
        };
        let able = idle
            .iter()
            .filter(|id| self.has_loaded(id, layers) || self.memory(desk, id) >= needed);
        able.max_by_key(rank).copied()
    }

    pub(super) fn has_loaded(&self, worker: &WorkerId, layers: Layers) -> bool {
        let loaded = self.loaded.get(worker);
        loaded.is_some_and(|loaded| loaded.contains(&layers))
    }

    /// Cuts a pipeline anew over its own workers and those without a seat; where even that is not
    /// possible it goes down.
    pub(super) fn cut_anew(&mut self, desk: &mut Desk, index: usize, reason: &str) {
        let was_up = !self.pipelines[index].workers.is_empty();
        self.pipelines[index].workers.clear();
        let idle = self.idle(desk);
        let found = match self.hopeless() {
            Some(reason) => Err(reason),
            None => self
                .plan(desk, &idle, self.served.stages, 1)
                // Fewer or more stages than asked for are better than none: no answer depends on it.
                .or_else(|_| self.plan(desk, &idle, 0, 1)),
        };
        match found {
            Ok(plan) => self.install_planned(desk, index, &plan.pipelines[0], &idle, reason),
            Err(why) => {
                let considered = Some(self.pool(desk, &idle));
                let pipeline = &mut self.pipelines[index];
                pipeline.considered = considered;
                pipeline.is_running = false;
                pipeline.reason = format!("{reason}; {why}");
                if was_up {
                    self.tell_down(desk, index);
                }
            }
        }
    }

    /// Tries again to plan pipelines that are down, when others are there than the last time.
    pub(super) fn revive(&mut self, desk: &mut Desk) {
        for index in 0..self.pipelines.len() {
            if !self.pipelines[index].workers.is_empty() {
                continue;
            }
            let idle = self.idle(desk);
            if self.pipelines[index].considered != Some(self.pool(desk, &idle)) {
                self.cut_anew(desk, index, "workers came or went");
            }
        }
    }
}
