//! A plan in effect: its lanes come, and it ends when one of them goes.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use concord_proto::Digest;
use concord_proto::serving::ToStage;
use concord_scheduler::SchedulerEvent as Event;
use tokio::sync::mpsc;
use tonic::Status;

use super::Pipeline;
use super::input::{Opened, Planned};
use super::passes::InFlight;
use super::shared::Standing;
use crate::core::{Seat, ServingEvent};
use crate::serving::Down;

/// A plan whose lanes are there or awaited.
pub(super) struct Epoch {
    pub(super) number: u32,
    pub(super) seats: Vec<Seat>,
    lanes: Vec<Option<mpsc::Sender<Down>>>,
    pages: u32,
    since: Instant,
    /// Whether all lanes are there.
    pub(super) is_up: bool,
    /// Adapters that its stages were assigned with.
    pub(super) adapters: BTreeSet<Digest>,
    pub(super) passes: BTreeMap<u64, InFlight>,
    /// When a pass last went on, or the first one was sent.
    pub(super) heard: Instant,
}

impl Pipeline {
    pub(super) fn is_up(&self) -> bool {
        self.epoch.as_ref().is_some_and(|epoch| epoch.is_up)
    }

    /// The core has a new plan: the one before is over.
    pub(super) fn on_planned(&mut self, planned: Planned) {
        tracing::info!(
            pipeline = self.index,
            epoch = planned.epoch,
            stages = planned.seats.len(),
            reason = planned.reason,
            "a new plan"
        );
        self.end_epoch(&planned.reason);
        {
            let mut shared = self.shared.lock();
            shared.plan(&planned);
            shared.standing = if self.was_up {
                Standing::Recovering
            } else {
                Standing::Down
            };
        }
        let Planned {
            epoch,
            seats,
            pages,
            adapters,
            ..
        } = planned;
        self.epoch = Some(Epoch {
            number: epoch,
            lanes: vec![None; seats.len()],
            seats,
            pages,
            since: Instant::now(),
            is_up: false,
            adapters,
            passes: BTreeMap::new(),
            heard: Instant::now(),
        });
    }

    /// The core has nobody for the pipeline: answers go elsewhere, if there is an elsewhere.
    pub(super) fn on_down(&mut self, reason: &str) {
        tracing::warn!(pipeline = self.index, reason, "a pipeline is down");
        self.end_epoch(reason);
        self.shared.lock().standing = Standing::Down;
        self.work_off();
        self.move_out();
    }

    /// Ends the plan in effect, if there is one.
    fn end_epoch(&mut self, reason: &str) {
        self.settle_claims();
        let Some(epoch) = self.epoch.take() else {
            return;
        };
        self.removing.clear();
        if epoch.is_up {
            let reason = reason.to_string();
            self.events.push_back(Event::Down { reason });
            self.lost = self.lost.or(Some(Instant::now()));
            self.idle_since = Some(Instant::now());
        }
        self.shared.lock().standing = if self.was_up {
            Standing::Recovering
        } else {
            Standing::Down
        };
        for lane in epoch.lanes.into_iter().flatten() {
            // A lane that is full or gone ends without being told why.
            let _ = lane.try_send(Err(Status::aborted("the plan is over")));
        }
        self.work_off();
    }

    /// A worker of the plan is lost: the core replaces it.
    pub(super) fn lose(&mut self, seat: usize, reason: &str) {
        self.end_with(seat, reason, false);
    }

    /// A worker of the plan says that it cannot go on.
    pub(super) fn on_failed(&mut self, seat: usize, reason: &str) {
        self.blame_answers();
        self.end_with(seat, reason, true);
    }

    fn end_with(&mut self, seat: usize, reason: &str, is_here: bool) {
        let Some((worker, epoch)) = self.holder(seat) else {
            return;
        };
        let name = worker.short();
        if self.hub.is_parting() {
            return self.end_epoch(&format!("worker {name}: {reason}"));
        }
        tracing::warn!(
            pipeline = self.index,
            worker = name,
            reason,
            "a stage is lost"
        );
        self.end_epoch(&format!("worker {name}: {reason}"));
        self.notify(ServingEvent::Lost {
            pipeline: self.index,
            epoch,
            worker,
            reason: reason.to_string(),
            is_here,
        });
    }

    /// A stage refuses what the one before it sends.
    pub(super) fn on_refused(&mut self, seat: usize, reason: &str) {
        let Some((worker, epoch)) = self.holder(seat) else {
            return;
        };
        if seat == 0 {
            return self.distrust(seat, "it refuses what nobody sends");
        }
        let name = worker.short();
        tracing::warn!(
            pipeline = self.index,
            worker = name,
            reason,
            "a stage refuses a pass"
        );
        self.end_epoch(&format!("worker {name} refuses a pass: {reason}"));
        self.notify(ServingEvent::Refused {
            pipeline: self.index,
            epoch,
            stage: seat as u32,
            reason: reason.to_string(),
        });
    }

    /// A worker of the plan has said what cannot be: it is out.
    pub(super) fn distrust(&mut self, seat: usize, reason: &str) {
        let Some((worker, _)) = self.holder(seat) else {
            return;
        };
        self.end_epoch(&format!("worker {}: {reason}", worker.short()));
        let reason = reason.to_string();
        self.notify(ServingEvent::Distrusted { worker, reason });
    }

    pub(super) fn holder(&self, seat: usize) -> Option<(concord_proto::WorkerId, u32)> {
        let epoch = self.epoch.as_ref()?;
        Some((epoch.seats.get(seat)?.worker, epoch.number))
    }

    /// A stage is loaded. Its lane has to show that it is the one that was assigned.
    pub(super) fn on_lane(&mut self, opened: Opened) {
        let refuse = |why: &str| {
            let _ = opened
                .to
                .try_send(Err(Status::failed_precondition(why.to_string())));
        };
        let Some(epoch) = &mut self.epoch else {
            return refuse("the pipeline has no plan");
        };
        if opened.epoch != epoch.number {
            return refuse("the plan is over");
        }
        let at = opened.seat as usize;
        let Some(seat) = epoch.seats.get(at) else {
            return refuse("the pipeline has no such stage");
        };
        if seat.worker != opened.worker || seat.ticket != opened.ticket {
            let worker = opened.worker.short();
            tracing::warn!(
                pipeline = self.index,
                worker,
                "a lane without its ticket is refused"
            );
            return refuse("the ticket is not that of the seat");
        }
        if epoch.lanes[at].is_some() {
            return refuse("the stage has its lane already");
        }
        if opened.taken.send(self.said.clone()).is_err() {
            // It went away while it was looked at.
            return;
        }
        epoch.lanes[at] = Some(opened.to);
        if epoch.lanes.iter().all(Option::is_some) {
            self.go_up();
        }
    }

    fn go_up(&mut self) {
        let Some(epoch) = &mut self.epoch else {
            return;
        };
        epoch.is_up = true;
        let (number, stages, pages) = (epoch.number, epoch.seats.len() as u32, epoch.pages);
        tracing::info!(
            pipeline = self.index,
            epoch = number,
            "all stages are there"
        );
        for answer in self.answers.values_mut() {
            answer.begin();
        }
        self.notify(ServingEvent::Running {
            pipeline: self.index,
            epoch: number,
        });
        self.shared.lock().standing = Standing::Running;
        if self.was_up {
            let mut state = self.hub.state();
            state.failovers += 1;
            if self.answers.is_empty() {
                let lost = self.lost.take().map(|lost| lost.elapsed().as_secs_f64());
                state.last_resume = lost.or(state.last_resume);
            }
        }
        (self.was_up, self.idle_since) = (true, None);
        self.events.push_back(Event::Up { stages, pages });
        self.load_adapters();
    }

    /// Sends to a stage. One that does not take its messages is lost.
    pub(super) fn send(&mut self, seat: usize, message: ToStage) {
        let epoch = self.epoch.as_ref();
        let lane = epoch.and_then(|epoch| epoch.lanes.get(seat)?.as_ref());
        if lane.is_some_and(|lane| lane.try_send(Ok(message)).is_err()) {
            self.lose(seat, "it does not take its messages");
        }
    }

    /// Sends to all stages.
    pub(super) fn send_all(&mut self, message: &ToStage) {
        let count = self.epoch.as_ref().map_or(0, |epoch| epoch.seats.len());
        for seat in 0..count {
            self.send(seat, message.clone());
        }
    }

    /// A stage that is not loaded in time holds all others up, as does one that does not answer.
    pub(super) fn drop_stalled(&mut self) {
        let Some(epoch) = &self.epoch else {
            return;
        };
        let silent = if epoch.is_up {
            let oldest = epoch.passes.values().next();
            let late = oldest.filter(|_| epoch.heard.elapsed() > self.hub.stall);
            late.map(|pass| (pass.silent(), "it does not answer a pass"))
        } else if epoch.since.elapsed() > self.hub.load {
            let missing = epoch.lanes.iter().position(Option::is_none);
            missing.map(|seat| (seat, "it does not load its stage in time"))
        } else {
            None
        };
        if let Some((seat, reason)) = silent {
            self.lose(seat, reason);
        }
    }
}
