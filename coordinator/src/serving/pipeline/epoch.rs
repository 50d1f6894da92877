//! A plan in effect: the streams of its stages open, and it ends when one of them does.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use concord_proto::Digest;
use concord_proto::serving::ToStage;
use concord_scheduler::Event;
use tokio::sync::mpsc;
use tonic::Status;

use super::Pipeline;
use super::passes::InFlight;
use crate::core::{Seat as StageHolder, ServingEvent};
use crate::serving::router::{PipelinePlan, StageItem, Standing, StreamOpened};

/// A plan whose streams are there or awaited.
pub(super) struct Epoch {
    pub(super) number: u32,
    /// Who holds the stages, in order.
    pub(super) holders: Vec<StageHolder>,
    /// By stage.
    streams: Vec<Option<mpsc::Sender<StageItem>>>,
    pages: u32,
    since: Instant,
    /// Whether all streams are there.
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
    pub(super) fn on_planned(&mut self, plan: PipelinePlan) {
        tracing::info!(
            pipeline = self.index,
            epoch = plan.epoch,
            stages = plan.holders.len(),
            reason = plan.reason,
            "a new plan"
        );
        self.end_epoch(&plan.reason);
        {
            let mut figures = self.state.lock();
            figures.plan(&plan);
            figures.standing = if self.was_up {
                Standing::Recovering
            } else {
                Standing::Down
            };
        }
        let PipelinePlan {
            epoch,
            holders,
            pages,
            adapters,
            ..
        } = plan;
        self.epoch = Some(Epoch {
            number: epoch,
            streams: vec![None; holders.len()],
            holders,
            pages,
            since: Instant::now(),
            is_up: false,
            adapters,
            passes: BTreeMap::new(),
            heard: Instant::now(),
        });
    }

    /// The core has no worker for the pipeline: answers move to another one, if there is one.
    pub(super) fn on_down(&mut self, reason: &str) {
        tracing::warn!(pipeline = self.index, reason, "a pipeline is down");
        self.end_epoch(reason);
        self.state.lock().standing = Standing::Down;
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
        self.state.lock().standing = if self.was_up {
            Standing::Recovering
        } else {
            Standing::Down
        };
        for stream in epoch.streams.into_iter().flatten() {
            // A stream that is full or gone ends without being told why.
            let _ = stream.try_send(Err(Status::aborted("the plan is over")));
        }
        self.work_off();
    }

    /// A worker of the plan is lost: the core replaces it.
    pub(super) fn lose(&mut self, stage: usize, reason: &str) {
        self.end_with(stage, reason, false);
    }

    /// A worker of the plan says that it cannot go on.
    pub(super) fn on_failed(&mut self, stage: usize, reason: &str) {
        self.blame_answers();
        self.end_with(stage, reason, true);
    }

    fn end_with(&mut self, stage: usize, reason: &str, is_here: bool) {
        let Some((worker, epoch)) = self.holder(stage) else {
            return;
        };
        let name = worker.short();
        if self.context.status.is_parting() {
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
    pub(super) fn on_refused(&mut self, stage: usize, reason: &str) {
        let Some((worker, epoch)) = self.holder(stage) else {
            return;
        };
        if stage == 0 {
            return self.distrust(stage, "it refuses what nobody sends");
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
            stage: stage as u32,
            reason: reason.to_string(),
        });
    }

    /// A worker of the plan has said what cannot be true: it is out.
    pub(super) fn distrust(&mut self, stage: usize, reason: &str) {
        let Some((worker, _)) = self.holder(stage) else {
            return;
        };
        self.end_epoch(&format!("worker {}: {reason}", worker.short()));
        let reason = reason.to_string();
        self.notify(ServingEvent::Distrusted { worker, reason });
    }

    pub(super) fn holder(&self, stage: usize) -> Option<(concord_proto::WorkerId, u32)> {
        let epoch = self.epoch.as_ref()?;
        Some((epoch.holders.get(stage)?.worker, epoch.number))
    }

    /// A stage is loaded. Its stream has to show that it belongs to the worker that was assigned.
    pub(super) fn on_stream(&mut self, opened: StreamOpened) {
        let refuse = |why: &str| {
            let _ = opened
                .to
                .try_send(Err(Status::failed_precondition(why.to_string())));
        };
        let Some(epoch) = &mut self.epoch else {
            return refuse("the pipeline has no plan");
        };
        if opened.place.epoch != epoch.number {
            return refuse("the plan is over");
        }
        let stage = opened.place.stage;
        let Some(holder) = epoch.holders.get(stage) else {
            return refuse("the pipeline has no such stage");
        };
        if holder.worker != opened.worker || holder.ticket != opened.ticket {
            let worker = opened.worker.short();
            tracing::warn!(
                pipeline = self.index,
                worker,
                "a stage stream without its ticket is refused"
            );
            return refuse("the ticket is not that of the stage");
        }
        if epoch.streams[stage].is_some() {
            return refuse("the stage has its stream already");
        }
        if opened.accepted.send(self.messages.clone()).is_err() {
            // It closed while it was looked at.
            return;
        }
        epoch.streams[stage] = Some(opened.to);
        if epoch.streams.iter().all(Option::is_some) {
            self.go_up();
        }
    }

    fn go_up(&mut self) {
        let Some(epoch) = &mut self.epoch else {
            return;
        };
        epoch.is_up = true;
        let (number, stages, pages) = (epoch.number, epoch.holders.len() as u32, epoch.pages);
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
        self.state.lock().standing = Standing::Running;
        if self.was_up {
            self.context.status.failed_over();
            if self.answers.is_empty()
                && let Some(lost) = self.lost.take()
            {
                self.context.status.resumed(lost.elapsed());
            }
        }
        (self.was_up, self.idle_since) = (true, None);
        self.events.push_back(Event::Up { stages, pages });
        self.load_adapters();
    }

    /// Sends to a stage. One that does not take its messages is lost.
    pub(super) fn send(&mut self, stage: usize, message: ToStage) {
        let epoch = self.epoch.as_ref();
        let stream = epoch.and_then(|epoch| epoch.streams.get(stage)?.as_ref());
        if stream.is_some_and(|stream| stream.try_send(Ok(message)).is_err()) {
            self.lose(stage, "it does not take its messages");
        }
    }

    /// Sends to all stages.
    pub(super) fn send_all(&mut self, message: &ToStage) {
        let count = self.epoch.as_ref().map_or(0, |epoch| epoch.holders.len());
        for stage in 0..count {
            self.send(stage, message.clone());
        }
    }

    /// Loses a stage that is not loaded in time, or that does not answer a pass: it holds up all others.
    pub(super) fn drop_stalled(&mut self) {
        let Some(epoch) = &self.epoch else {
            return;
        };
        let silent = if epoch.is_up {
            let oldest = epoch.passes.values().next();
            let late = oldest.filter(|_| epoch.heard.elapsed() > self.context.timeouts.stall);
            late.map(|pass| (pass.silent(), "it does not answer a pass"))
        } else if epoch.since.elapsed() > self.context.timeouts.load {
            let missing = epoch.streams.iter().position(Option::is_none);
            missing.map(|stage| (stage, "it does not load its stage in time"))
        } else {
            None
        };
        if let Some((stage, reason)) = silent {
            self.lose(stage, reason);
        }
    }
}
