//! The task of a pipeline.
//!
//! From a result to the next pass it waits for nothing: neither the core, nor the disk, nor the
//! client that reads an answer.

mod claiming;
mod generations;
mod stages;

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use concord_proto::serving::{FromStage, ToStage};
use concord_scheduler::{SchedulerEffect as Effect, SchedulerEvent as Event};
use tokio::sync::{mpsc, oneshot};

use super::adapters::AdapterLoads;
use super::answers::AnswersUnderWay;
use super::claims::{AwaitedClaims, Claimable, FinishedAnswer};
use super::context::PipelineContext;
use super::fault::StageFault;
use super::outage::Outage;
use super::plan::PlanInEffect;
use crate::core::ServingEvent;
use crate::serving::router::{PipelineInput, PipelineState, StageMessage, StagePlace, StreamEnd};

/// How often time passes.
const TICK: Duration = Duration::from_millis(100);

/// The task of a pipeline, and all that it owns.
pub(super) struct Pipeline {
    index: u32,
    context: PipelineContext,
    state: Arc<PipelineState>,
    /// Given to each stage stream.
    messages: mpsc::Sender<StageMessage>,
    plan: Option<PlanInEffect>,
    answers: AnswersUnderWay,
    claims: AwaitedClaims,
    adapters: AdapterLoads,
    outage: Outage,
    /// On their way to the core.
    notices: VecDeque<ServingEvent>,
    /// For the scheduler.
    events: VecDeque<Event>,
}

impl Pipeline {
    pub(super) fn new(
        index: u32,
        context: PipelineContext,
        state: Arc<PipelineState>,
        messages: mpsc::Sender<StageMessage>,
    ) -> Self {
        Self {
            index,
            context,
            state,
            messages,
            plan: None,
            answers: AnswersUnderWay::default(),
            claims: AwaitedClaims::default(),
            adapters: AdapterLoads::default(),
            outage: Outage::new(),
            notices: VecDeque::new(),
            events: VecDeque::new(),
        }
    }

    /// Runs until it is told to stop, or until nobody can tell it anything any more.
    pub(super) async fn run(
        mut self,
        mut inputs: mpsc::Receiver<PipelineInput>,
        mut messages: mpsc::Receiver<StageMessage>,
    ) {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let core = self.context.events.clone();
        loop {
            tokio::select! {
                message = messages.recv() => {
                    if let Some(message) = message {
                        self.on_message(message);
                    }
                }
                _ = ticks.tick() => self.on_tick(),
                permit = core.reserve(), if !self.notices.is_empty() => {
                    match (permit, self.notices.pop_front()) {
                        (Ok(permit), Some(notice)) => permit.send(notice),
                        // The core has ended: so has everything.
                        _ => return,
                    }
                }
                input = inputs.recv() => {
                    let Some(input) = input else {
                        return self.stop();
                    };
                    if let ControlFlow::Break(done) = self.on_input(input) {
                        self.stop();
                        // The caller that waits may open the same store again.
                        drop(self);
                        let _ = done.send(());
                        return;
                    }
                }
            }
            self.work_off();
        }
    }

    /// Takes in an input. Breaks if it is to stop, with the sender of the answer to that.
    fn on_input(&mut self, input: PipelineInput) -> ControlFlow<oneshot::Sender<()>> {
        match input {
            PipelineInput::Submit {
                submission,
                arrival,
            } => self.on_submit(*submission, arrival),
            PipelineInput::Control {
                sequence,
                control,
                home,
            } => self.on_control(sequence, control, home),
            PipelineInput::Cancel { sequence, home } => self.on_cancel(sequence, home),
            PipelineInput::Planned(plan) => self.on_planned(*plan),
            PipelineInput::Down { reason } => self.on_down(&reason),
            PipelineInput::Stream(opened) => self.on_stream(*opened),
            PipelineInput::Evidence { sequence, stage } => self.ask_evidence(sequence, stage),
            PipelineInput::Checked { sequence } => self.on_checked(sequence),
            PipelineInput::AddAdapter { adapter, done } => self.add_adapter(adapter, done),
            PipelineInput::RemoveAdapter { adapter } => self.remove_adapter(adapter),
            PipelineInput::Stop(done) => return ControlFlow::Break(done),
        }
        ControlFlow::Continue(())
    }

    fn on_message(&mut self, message: StageMessage) {
        let StagePlace { epoch, stage } = message.place;
        if self.plan.as_ref().is_none_or(|plan| plan.epoch() != epoch) {
            // Of a plan that is over.
            return;
        }
        match message.message {
            Ok(FromStage::Passed(passed)) => self.on_passed(stage, &passed),
            Ok(FromStage::Result(result)) => self.on_result(stage, result),
            Ok(FromStage::Claimed { order, claim }) => self.on_claimed(stage, order, claim),
            Ok(FromStage::Evidence { order, headers }) => self.on_evidence(stage, order, headers),
            Ok(FromStage::Adapter { adapter, outcome }) => {
                let stages = self.plan.as_ref().map_or(0, PlanInEffect::stages);
                let taken = self.adapters.on_adapter(stage, stages, adapter, outcome);
                self.end_if_faulty(stage, taken);
            }
            Ok(FromStage::Failed { reason }) => self.end_for(stage, StageFault::GaveUp(reason)),
            Ok(FromStage::Refused { reason }) => self.end_for(stage, StageFault::Refused(reason)),
            Err(StreamEnd::Closed(reason)) => self.end_for(stage, StageFault::Lost(reason)),
            Err(StreamEnd::Fault(reason)) => self.end_for(stage, StageFault::Distrusted(reason)),
        }
    }

    /// Hands events to the scheduler until nothing more follows.
    fn work_off(&mut self) {
        while let Some(event) = self.events.pop_front() {
            let now = self.context.now_us();
            let effects = self.state.lock().scheduler.apply(now, event);
            for effect in effects {
                self.carry_out(effect);
            }
        }
    }

    fn carry_out(&mut self, effect: Effect) {
        match effect {
            Effect::Pass { pass, draws } => self.send_pass(pass, draws),
            Effect::Update { sequence, update } => self.deliver(sequence, update),
            Effect::Answered {
                sequence,
                answer,
                finish,
                usage,
            } => {
                let finished = FinishedAnswer {
                    answer,
                    finish,
                    usage,
                };
                if let Some(answer) = self.answers.get(sequence) {
                    self.claims.add(sequence, answer, finished);
                }
            }
            Effect::Claim {
                sequence,
                spec,
                prompt,
                positions,
                pages,
            } => self.order_claims(&Claimable {
                sequence,
                spec,
                prompt,
                positions,
                pages,
            }),
            Effect::Forget { sequence } => {
                if self.is_up() {
                    self.send_all(&ToStage::Forget { sequence });
                }
            }
            // What the last stage reported does not fit.
            Effect::Fault { reason } => {
                let last = self.plan.as_ref().map(PlanInEffect::last_stage);
                if let Some(last) = last {
                    self.end_for(last, StageFault::Distrusted(reason));
                }
            }
        }
    }

    fn on_tick(&mut self) {
        self.events.push_back(Event::Tick);
        let timeouts = self.context.timeouts;
        let plan = self.plan.as_ref();
        let stalled = plan.and_then(|plan| plan.stalled(timeouts.stall, timeouts.load));
        if let Some((stage, reason)) = stalled {
            self.end_for(stage, StageFault::lost(reason));
        }
        self.drop_late_claims();
        let (now, tokens) = (self.context.now_us(), self.answers.tokens());
        self.state.lock().count(now, tokens);
        if self.outage.lasts(timeouts.patience) && !self.answers.is_empty() {
            self.give_up();
        }
    }

    fn stop(&mut self) {
        for sequence in self.answers.sequences() {
            self.answers.fail(sequence, "the server stops", true);
        }
        self.settle_claims();
    }
}
