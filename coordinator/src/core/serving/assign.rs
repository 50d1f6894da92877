//! Orders to workers: to hold a seat, to stand by, to let go.

use concord_proto::serving::StageAssignment;
use concord_proto::session::ToWorker;
use concord_proto::{Digest, Domain, Layers, WorkerId};

use super::super::desk::Desk;
use super::super::event::Effect;
use super::event::{Seat, ServingEffect};
use super::{Deployed, Told};

/// Runs of layers that one worker is asked to stand by for: more are of no use, because a pool that
/// loses more at once waits for the rest in any case.
const STAND_BY_MAX: usize = 8;

impl Deployed {
    /// Gives a pipeline these workers, one for each of its stages, under a new epoch.
    pub(super) fn install(
        &mut self,
        desk: &mut Desk,
        index: usize,
        workers: Vec<WorkerId>,
        reason: &str,
    ) {
        self.epoch += 1;
        let epoch = self.epoch;
        let pipeline = &mut self.pipelines[index];
        (pipeline.epoch, pipeline.workers) = (epoch, workers.clone());
        (pipeline.is_running, pipeline.considered) = (false, None);
        pipeline.reason = reason.to_string();
        let (stages, pages) = (pipeline.stages.clone(), pipeline.pages);
        let number = index as u32;
        let seats = workers.iter().zip(&stages).map(|(worker, layers)| {
            let member = desk.pool.get(worker);
            Seat {
                worker: *worker,
                device: member.map_or_else(String::new, |m| m.device.name.clone()),
                layers: *layers,
                ticket: self.ticket(desk, number, epoch, worker),
            }
        });
        let planned = ServingEffect::Planned {
            pipeline: number,
            epoch,
            seats: seats.collect(),
            pages,
            reason: reason.to_string(),
        };
        desk.out.tell(Effect::Serving(planned));
        for (seat, worker) in workers.iter().enumerate() {
            let pipeline = number;
            self.leaving.remove(worker);
            self.told.insert(*worker, Told::Seat { pipeline, epoch });
            // What it has loaded beside stays loaded.
            let loaded = self.loaded.get(worker).cloned().unwrap_or_default();
            let own = stages[seat];
            let standby = loaded.into_iter().filter(|layers| *layers != own);
            let standby = standby.filter(|layers| stages.contains(layers)).collect();
            self.send(desk, index, worker, Some(seat as u32), standby);
        }
    }

    fn ticket(&self, desk: &Desk, pipeline: u32, epoch: u32, worker: &WorkerId) -> [u8; 32] {
        let input = (
            *desk.secret,
            "lane".to_string(),
            (self.id, pipeline, epoch, *worker),
        );
        Digest::of_value(Domain::Nonce, &input).0
    }

    fn send(
        &self,
        desk: &mut Desk,
        index: usize,
        worker: &WorkerId,
        seat: Option<u32>,
        standby: Vec<Layers>,
    ) {
        let pipeline = &self.pipelines[index];
        let endpoint = |id: &WorkerId| {
            let member = desk.pool.get(id);
            member.map_or_else(String::new, |member| member.endpoint.clone())
        };
        let epoch = if seat.is_some() {
            pipeline.epoch
        } else {
            self.epoch
        };
        let assignment = StageAssignment {
            deployment: self.served.deployment.clone(),
            pipeline: index as u32,
            epoch,
            ticket: self.ticket(desk, index as u32, epoch, worker),
            stages: pipeline.stages.clone(),
            endpoints: pipeline.workers.iter().map(endpoint).collect(),
            workers: pipeline.workers.clone(),
            stage: seat,
            pages: pipeline.pages,
            adapters: self.adapters.clone(),
            standby,
        };
        desk.send(worker, ToWorker::Serve(Box::new(assignment)));
    }

    pub(super) fn tell_down(&mut self, desk: &mut Desk, index: usize) {
        let down = ServingEffect::Down {
            pipeline: index as u32,
            reason: self.pipelines[index].reason.clone(),
        };
        desk.out.tell(Effect::Serving(down));
    }

    /// Has workers without a seat load what others might leave behind.
    pub(super) fn stand_by(&mut self, desk: &mut Desk) {
        let idle = self.idle(desk);
        let mut covered: Vec<(u32, usize, Layers, u32)> = Vec::new();
        for (index, pipeline) in self.pipelines.iter().enumerate() {
            for (worker, layers) in pipeline.workers.iter().zip(&pipeline.stages) {
                // Layers whose holder wants to leave come first.
                let is_urgent = self.leaving.contains_key(worker);
                let cover = if is_urgent { 0 } else { 1 };
                if !covered.iter().any(|(_, _, other, _)| other == layers) {
                    covered.push((cover, index, *layers, pipeline.pages));
                }
            }
        }
        for worker in idle {
            let (mut room, mut index) = (self.memory(desk, &worker), None);
            let mut wanted = Vec::new();
            covered.sort_by_key(|(cover, index, layers, _)| (*cover, *index, *layers));
            for (cover, of, layers, pages) in &mut covered {
                // One pool of pages at a time, counted with the largest.
                let needed = self.bytes(*layers, if wanted.is_empty() { *pages } else { 0 });
                if needed <= room && wanted.len() < STAND_BY_MAX {
                    room -= needed;
                    *cover += 2;
                    index = index.or(Some(*of));
                    wanted.push(*layers);
                }
            }
            wanted.sort();
            self.tell_stand_by(desk, worker, index, wanted);
        }
    }

    fn tell_stand_by(
        &mut self,
        desk: &mut Desk,
        worker: WorkerId,
        index: Option<usize>,
        wanted: Vec<Layers>,
    ) {
        let had_seat = matches!(self.told.get(&worker), Some(Told::Seat { .. }));
        let Some(index) = index else {
            if self.told.remove(&worker).is_some() {
                self.let_go(desk, &worker);
            }
            return;
        };
        let told = Told::StandBy(index as u32, wanted.clone());
        if self.told.get(&worker) == Some(&told) {
            return;
        }
        // What it has loaded and is asked for still is not loaded again.
        let loaded = self.loaded.entry(worker).or_default();
        loaded.retain(|layers| wanted.contains(layers));
        if had_seat || !wanted.is_empty() {
            self.epoch += 1;
            self.told.insert(worker, told);
            self.send(desk, index, &worker, None, wanted);
        }
    }

    /// Tells a worker that nothing is wanted of it.
    pub(super) fn let_go(&mut self, desk: &mut Desk, worker: &WorkerId) {
        self.loaded.remove(worker);
        self.told.remove(worker);
        let deployment = self.id;
        desk.send(worker, ToWorker::Unserve { deployment });
    }
}
