//! A plan in effect: the streams of its stages open, and it ends when one of them does.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use concord_proto::serving::ToStage;
use concord_proto::{Digest, WorkerId};
use tokio::sync::mpsc;
use tonic::Status;

use super::claims::Claimants;
use super::passes::PassesInFlight;
use crate::core::StageHolder;
use crate::serving::receipts::HeldStage;
use crate::serving::router::{PipelinePlan, StageItem, StageMessage, StreamOpened};

/// A plan whose streams are there or awaited.
pub(super) struct PlanInEffect {
    epoch: u32,
    /// Who holds the stages, in order.
    holders: Vec<StageHolder>,
    /// By stage.
    streams: Vec<Option<mpsc::Sender<StageItem>>>,
    pages: u32,
    since: Instant,
    is_up: bool,
    /// Adapters that its stages were assigned with.
    adapters: BTreeSet<Digest>,
    pub(super) passes: PassesInFlight,
}

impl PlanInEffect {
    pub(super) fn new(plan: PipelinePlan) -> Self {
        Self {
            epoch: plan.epoch,
            streams: vec![None; plan.holders.len()],
            holders: plan.holders,
            pages: plan.pages,
            since: Instant::now(),
            is_up: false,
            adapters: plan.adapters,
            passes: PassesInFlight::new(),
        }
    }

    pub(super) fn epoch(&self) -> u32 {
        self.epoch
    }

    /// Pages of keys and values that each stage has.
    pub(super) fn pages(&self) -> u32 {
        self.pages
    }

    pub(super) fn stages(&self) -> usize {
        self.holders.len()
    }

    pub(super) fn last_stage(&self) -> usize {
        self.holders.len().saturating_sub(1)
    }

    pub(super) fn holder(&self, stage: usize) -> Option<WorkerId> {
        self.holders.get(stage).map(|holder| holder.worker)
    }

    /// Who has to claim an answer that this plan computed.
    pub(super) fn claimants(&self) -> Claimants {
        let held = |holder: &StageHolder| HeldStage {
            worker: holder.worker,
            layers: holder.layers,
        };
        Claimants {
            epoch: self.epoch,
            stages: self.holders.iter().map(held).collect(),
        }
    }

    /// Whether all streams are there.
    pub(super) fn is_up(&self) -> bool {
        self.is_up
    }

    /// Those of `adapters` that its stages were not assigned with.
    pub(super) fn lacks(&self, mut adapters: BTreeSet<Digest>) -> BTreeSet<Digest> {
        adapters.retain(|adapter| !self.adapters.contains(adapter));
        adapters
    }

    /// A stage is loaded. Its stream has to show that it belongs to the worker that was assigned.
    /// Gives whether all streams are there now.
    pub(super) fn accept(
        &mut self,
        opened: StreamOpened,
        messages: mpsc::Sender<StageMessage>,
    ) -> bool {
        if let Err(why) = self.check(&opened) {
            opened.refuse(why);
            return false;
        }
        if opened.accepted.send(messages).is_err() {
            // It closed while it was looked at.
            return false;
        }
        self.streams[opened.place.stage] = Some(opened.to);
        self.is_up = self.streams.iter().all(Option::is_some);
        self.is_up
    }

    /// Why a stream is not accepted.
    fn check(&self, opened: &StreamOpened) -> Result<(), &'static str> {
        if opened.place.epoch != self.epoch {
            return Err("the plan is over");
        }
        let stage = opened.place.stage;
        let Some(holder) = self.holders.get(stage) else {
            return Err("the pipeline has no such stage");
        };
        if holder.worker != opened.worker || holder.ticket != opened.ticket {
            let (epoch, worker) = (self.epoch, opened.worker.short());
            tracing::warn!(
                epoch,
                stage,
                worker,
                "a stage stream without its ticket is refused"
            );
            return Err("the ticket is not that of the stage");
        }
        if self.streams[stage].is_some() {
            return Err("the stage has its stream already");
        }
        Ok(())
    }

    /// Sends to a stage, if it has a stream. Gives whether the stage takes its messages.
    pub(super) fn send(&self, stage: usize, message: ToStage) -> bool {
        let stream = self.streams.get(stage).and_then(Option::as_ref);
        stream.is_none_or(|stream| stream.try_send(Ok(message)).is_ok())
    }

    /// A stage that holds up all others: it is not loaded in time, or does not answer a pass.
    pub(super) fn stalled(&self, stall: Duration, load: Duration) -> Option<(usize, &'static str)> {
        if self.is_up {
            let silent = self.passes.stalled(stall)?;
            return Some((silent, "it does not answer a pass"));
        }
        if self.since.elapsed() <= load {
            return None;
        }
        let missing = self.streams.iter().position(Option::is_none)?;
        Some((missing, "it does not load its stage in time"))
    }

    /// Ends the streams of all stages.
    pub(super) fn close(self) {
        for stream in self.streams.into_iter().flatten() {
            // A stream that is full or gone ends without being told why.
            let _ = stream.try_send(Err(Status::aborted("the plan is over")));
        }
    }
}
