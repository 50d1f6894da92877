//! What workers and the tasks that serve say.

use concord_proto::serving::{AnswerVerdict, DeploymentId};
use concord_proto::session::ToCoordinator;
use concord_proto::{Layers, WorkerId};

use super::super::desk::Desk;
use super::super::reported::reported;
use super::{Deployed, Failure, ServingEvent};

/// A worker whose lane broke while its session goes on is left alone for this long, where others
/// can take over.
const LANE_PAUSE_US: u64 = 2_000_000;

/// After so many failures in a row with the same layers a worker counts as too small for them.
const FAILURES_MAX: u32 = 3;

/// A verdict whose words can be shown.
fn printable(verdict: AnswerVerdict) -> AnswerVerdict {
    match verdict {
        AnswerVerdict::Altered { what } => AnswerVerdict::Altered {
            what: reported(what),
        },
        AnswerVerdict::Inconclusive { why } => AnswerVerdict::Inconclusive { why: reported(why) },
        verdict => verdict,
    }
}

impl Deployed {
    pub(in super::super) fn on_message(
        &mut self,
        desk: &mut Desk,
        worker: WorkerId,
        message: ToCoordinator,
    ) {
        match message {
            ToCoordinator::StandsBy {
                deployment, layers, ..
            } if deployment == self.id => self.on_stands_by(worker, layers),
            ToCoordinator::StageFailed {
                deployment,
                epoch,
                reason,
                permanent,
            } => {
                let reason = reported(reason);
                self.on_failed(desk, worker, (deployment, epoch), (reason, permanent));
            }
            ToCoordinator::AnswerVerdict { order, verdict } => {
                self.on_verdict(desk, worker, order, printable(verdict));
            }
            _ => {}
        }
    }

    pub(super) fn on_event(&mut self, desk: &mut Desk, event: ServingEvent) {
        match event {
            ServingEvent::Running { pipeline, epoch } => self.on_running(desk, pipeline, epoch),
            ServingEvent::Lost {
                pipeline,
                epoch,
                worker,
                reason,
                is_here,
            } => {
                let current = self.pipelines.get(pipeline as usize);
                if current.is_some_and(|p| p.epoch == epoch && p.workers.contains(&worker)) {
                    if is_here {
                        desk.pool.failed(desk.now, &worker);
                    } else {
                        desk.pool.pause(desk.now, &worker, LANE_PAUSE_US);
                    }
                    let reason = format!("worker {}: {}", worker.short(), reported(reason));
                    self.fill(desk, pipeline as usize, &reason);
                }
            }
            ServingEvent::Refused {
                pipeline,
                epoch,
                stage,
                reason,
            } => self.on_refused(desk, (pipeline, epoch), stage, &reported(reason)),
            ServingEvent::Distrusted { worker, reason } => {
                self.distrust(desk, worker, reported(reason));
            }
            ServingEvent::Guilty {
                worker,
                offence,
                evidence,
            } => self.convict(desk, worker, offence, &reported(evidence)),
            ServingEvent::Adapters(adapters) => self.adapters = adapters,
            ServingEvent::Audit {
                receipt,
                name,
                signers,
            } => self.draw(desk, receipt, name, signers),
        }
    }

    /// Of two neighbours one is wrong, and there is no proof: they are separated. Whoever comes apart
    /// from two others in this way is out.
    fn on_refused(
        &mut self,
        desk: &mut Desk,
        (index, epoch): (u32, u32),
        stage: u32,
        reason: &str,
    ) {
        let current = self.pipelines.get(index as usize);
        let workers = current.filter(|p| p.epoch == epoch).map(|p| &p.workers);
        let pair = workers.and_then(|all| {
            let stage = stage as usize;
            Some((*all.get(stage.checked_sub(1)?)?, *all.get(stage)?))
        });
        let Some((sender, receiver)) = pair else {
            return;
        };
        for (one, other) in [(sender, receiver), (receiver, sender)] {
            self.refused.entry(one).or_default().insert(other);
        }
        let has_two = |id: &WorkerId| self.refused.get(id).is_some_and(|all| all.len() > 1);
        let culprit = [sender, receiver].into_iter().find(has_two);
        let (from, to) = (sender.short(), receiver.short());
        let reason = format!("worker {to} refuses what worker {from} sends: {reason}");
        match culprit {
            Some(culprit) => self.distrust(desk, culprit, reason),
            None => {
                desk.pool.pause(desk.now, &receiver, LANE_PAUSE_US);
                self.fill(desk, index as usize, &reason);
            }
        }
    }

    fn on_running(&mut self, desk: &mut Desk, pipeline: u32, epoch: u32) {
        let current = self.pipelines.get_mut(pipeline as usize);
        let Some(pipeline) = current.filter(|pipeline| pipeline.epoch == epoch) else {
            return;
        };
        pipeline.is_running = true;
        for (worker, layers) in pipeline.workers.iter().zip(&pipeline.stages) {
            self.loaded.entry(*worker).or_default().insert(*layers);
            self.failures.remove(worker);
            if let Some(member) = desk.pool.get_mut(worker) {
                member.failures = 0;
            }
        }
    }

    /// Only what it was told to load counts.
    fn on_stands_by(&mut self, worker: WorkerId, layers: Vec<Layers>) {
        let known = |layers: &Layers| self.pipelines.iter().any(|p| p.stages.contains(layers));
        let layers: Vec<Layers> = layers.into_iter().filter(known).collect();
        if self.told.contains_key(&worker) {
            self.loaded.entry(worker).or_default().extend(layers);
        }
    }

    /// A worker says that it cannot load its layers, or cannot go on with them.
    fn on_failed(
        &mut self,
        desk: &mut Desk,
        worker: WorkerId,
        (deployment, epoch): (DeploymentId, u32),
        (reason, permanent): (String, bool),
    ) {
        let seat = self.seat(&worker);
        let is_of_seat = seat.is_some_and(|(p, _)| self.pipelines[p].epoch == epoch);
        if deployment != self.id || (seat.is_some() && !is_of_seat) {
            return;
        }
        tracing::warn!(worker = %worker.short(), %reason, "a worker cannot hold its layers");
        desk.pool.failed(desk.now, &worker);
        if permanent {
            self.gave_up.insert(worker, reason.clone());
        }
        let Some((index, stage)) = seat else {
            // It only stood by: after its pause it is asked again.
            self.told.remove(&worker);
            self.loaded.remove(&worker);
            return;
        };
        self.note_failure(worker, self.pipelines[index].stages[stage], &reason);
        let reason = format!("worker {}: {reason}", worker.short());
        self.fill(desk, index, &reason);
    }

    fn note_failure(&mut self, worker: WorkerId, layers: Layers, reason: &str) {
        let failure = self.failures.entry(worker).or_insert(Failure {
            layers,
            count: 0,
            reason: String::new(),
        });
        failure.count = if failure.layers == layers {
            failure.count + 1
        } else {
            1
        };
        failure.layers = layers;
        failure.reason = reason.to_string();
        if failure.count >= FAILURES_MAX {
            let bytes = self.bytes(layers, 0).saturating_sub(1);
            let room = self.room.entry(worker).or_insert(u64::MAX);
            *room = bytes.min(*room);
        }
    }
}
