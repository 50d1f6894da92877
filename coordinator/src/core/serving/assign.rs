//! Orders to workers: to hold a stage, to stand by, to let go.

use concord_proto::serving::StageAssignment;
use concord_proto::session::ToWorker;
use concord_proto::{Digest, Domain, Layers, WorkerId};

use super::{CoreEffect, Deployed, EventContext, ServingEffect, StageHolder};

/// The most runs of layers that one worker stands by for. More would not help: a pool that loses
/// more at once has to wait for the rest in any case.
const STAND_BY_MAX: usize = 8;

/// Layers that somebody is to stand by for.
struct Wanted {
    /// How well they are covered: by their holder, if it stays, and by those that stand by.
    cover: u32,
    /// A pipeline that has them.
    pipeline: usize,
    layers: Layers,
    pages: u32,
}

impl Deployed {
    /// Gives a pipeline these workers, one for each of its stages, under a new epoch.
    pub(super) fn install(
        &mut self,
        context: &mut EventContext,
        index: usize,
        workers: Vec<WorkerId>,
        reason: &str,
    ) {
        self.epoch += 1;
        let epoch = self.epoch;
        let pipeline = self.pipelines.get_mut(index);
        pipeline.install(epoch, workers, reason);
        let number = index as u32;
        let pipeline = self.pipelines.get(index);
        let stages = pipeline.stages().to_vec();
        let held: Vec<(WorkerId, Layers)> = pipeline.holders().collect();
        let holders = held.iter().map(|(worker, layers)| StageHolder {
            worker: *worker,
            device: context.device_name(worker),
            layers: *layers,
            ticket: self.ticket(context, number, epoch, worker),
        });
        let planned = ServingEffect::Planned {
            pipeline: number,
            epoch,
            holders: holders.collect(),
            pages: pipeline.pages(),
            reason: reason.to_string(),
        };
        context.out.tell(CoreEffect::Serving(planned));
        for (stage, (worker, own)) in (0..).zip(&held) {
            self.workers.tell_hold(*worker, number, epoch);
            // Other layers that it has loaded stay loaded.
            let standby = self.workers.loaded_beside(worker, *own, &stages);
            self.send(context, index, worker, Some(stage), standby);
        }
    }

    fn ticket(
        &self,
        context: &EventContext,
        pipeline: u32,
        epoch: u32,
        worker: &WorkerId,
    ) -> [u8; 32] {
        let input = (
            *context.secret,
            "lane".to_string(),
            (self.id, pipeline, epoch, *worker),
        );
        Digest::of_value(Domain::Nonce, &input).0
    }

    /// Tells a worker to hold a stage of a pipeline, or none, and for what to stand by.
    fn send(
        &self,
        context: &mut EventContext,
        index: usize,
        worker: &WorkerId,
        stage: Option<u32>,
        standby: Vec<Layers>,
    ) {
        let pipeline = self.pipelines.get(index);
        let endpoints = pipeline.workers().iter().map(|id| context.endpoint(id));
        let epoch = match stage {
            Some(_) => pipeline.epoch(),
            None => self.epoch,
        };
        let assignment = StageAssignment {
            deployment: self.served.deployment.clone(),
            pipeline: index as u32,
            epoch,
            ticket: self.ticket(context, index as u32, epoch, worker),
            stages: pipeline.stages().to_vec(),
            endpoints: endpoints.collect(),
            workers: pipeline.workers().to_vec(),
            stage,
            pages: pipeline.pages(),
            adapters: self.adapters.clone(),
            standby,
        };
        context.send(worker, ToWorker::Serve(Box::new(assignment)));
    }

    pub(super) fn tell_down(&mut self, context: &mut EventContext, index: usize) {
        let down = ServingEffect::Down {
            pipeline: index as u32,
            reason: self.pipelines.get(index).reason().to_string(),
        };
        context.out.tell(CoreEffect::Serving(down));
    }

    /// Has workers without a stage load layers of others, to take over when those leave.
    pub(super) fn stand_by(&mut self, context: &mut EventContext) {
        let idle = self.idle(context);
        let mut wanted = self.wanted();
        for worker in idle {
            let (mut room, mut pipeline) = (self.memory(context, &worker), None);
            let mut chosen = Vec::new();
            wanted.sort_by_key(|wanted| (wanted.cover, wanted.pipeline, wanted.layers));
            for wanted in &mut wanted {
                // One pool of pages at a time, counted with the largest.
                let pages = if chosen.is_empty() { wanted.pages } else { 0 };
                let needed = self.bytes(wanted.layers, pages);
                if needed <= room && chosen.len() < STAND_BY_MAX {
                    room -= needed;
                    wanted.cover += 2;
                    pipeline = pipeline.or(Some(wanted.pipeline));
                    chosen.push(wanted.layers);
                }
            }
            chosen.sort();
            match pipeline {
                Some(index) => self.tell_stand_by(context, worker, index, chosen),
                None => {
                    if self.workers.untell(&worker) {
                        self.let_go(context, &worker);
                    }
                }
            }
        }
    }

    /// Layers of all stages; those whose holder wants to leave come first.
    fn wanted(&self) -> Vec<Wanted> {
        let mut all: Vec<Wanted> = Vec::new();
        for (index, pipeline) in self.pipelines.iter().enumerate() {
            for (worker, layers) in pipeline.holders() {
                if all.iter().any(|wanted| wanted.layers == layers) {
                    continue;
                }
                let is_leaving = self.workers.is_leaving(&worker);
                all.push(Wanted {
                    cover: if is_leaving { 0 } else { 1 },
                    pipeline: index,
                    layers,
                    pages: pipeline.pages(),
                });
            }
        }
        all
    }

    fn tell_stand_by(
        &mut self,
        context: &mut EventContext,
        worker: WorkerId,
        index: usize,
        layers: Vec<Layers>,
    ) {
        if self.workers.tell_stand_by(worker, index as u32, &layers) {
            self.epoch += 1;
            self.send(context, index, &worker, None, layers);
        }
    }

    /// Tells a worker to drop all its layers.
    pub(super) fn let_go(&mut self, context: &mut EventContext, worker: &WorkerId) {
        self.workers.drop_layers(worker);
        let deployment = self.id;
        context.send(worker, ToWorker::Unserve { deployment });
    }
}
