//! Plans, the stages that hold them, and passes through these.

use concord_proto::serving::{DrawOrder, Pass, PassResult, Passed, ToStage};
use concord_scheduler::SchedulerEvent as Event;

use super::Pipeline;
use crate::core::ServingEvent;
use crate::serving::pipeline::fault::StageFault;
use crate::serving::pipeline::plan::PlanInEffect;
use crate::serving::router::{PipelinePlan, Standing, StreamOpened};

impl Pipeline {
    pub(super) fn is_up(&self) -> bool {
        self.plan.as_ref().is_some_and(PlanInEffect::is_up)
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
        self.end_plan(&plan.reason);
        {
            let mut figures = self.state.lock();
            figures.plan(&plan);
            figures.standing = self.outage.standing();
        }
        self.plan = Some(PlanInEffect::new(plan));
    }

    /// The core has no worker for the pipeline: answers move to another one, if there is one.
    pub(super) fn on_down(&mut self, reason: &str) {
        tracing::warn!(pipeline = self.index, reason, "a pipeline is down");
        self.end_plan(reason);
        self.state.lock().standing = Standing::Down;
        self.work_off();
        self.move_out();
    }

    /// Ends the plan in effect, if there is one.
    pub(super) fn end_plan(&mut self, reason: &str) {
        self.settle_claims();
        let Some(plan) = self.plan.take() else {
            return;
        };
        self.adapters.forget_removed();
        if plan.is_up() {
            let reason = reason.to_string();
            self.events.push_back(Event::Down { reason });
            self.outage.begin();
        }
        self.state.lock().standing = self.outage.standing();
        plan.close();
        self.work_off();
    }

    pub(super) fn end_if_faulty(&mut self, stage: usize, outcome: Result<(), StageFault>) {
        if let Err(fault) = outcome {
            self.end_for(stage, fault);
        }
    }

    /// Ends the plan because of a stage, and tells the core.
    pub(super) fn end_for(&mut self, stage: usize, fault: StageFault) {
        let Some(plan) = &self.plan else {
            return;
        };
        let Some(worker) = plan.holder(stage) else {
            return;
        };
        let (pipeline, epoch, name) = (self.index, plan.epoch(), worker.short());
        let is_here = matches!(fault, StageFault::GaveUp(_));
        match fault {
            StageFault::Lost(reason) | StageFault::GaveUp(reason) => {
                if is_here {
                    self.blame_answers();
                }
                if self.context.status.is_parting() {
                    return self.end_plan(&format!("worker {name}: {reason}"));
                }
                tracing::warn!(pipeline, worker = name, reason, "a stage is lost");
                self.end_plan(&format!("worker {name}: {reason}"));
                self.notices.push_back(ServingEvent::Lost {
                    pipeline,
                    epoch,
                    worker,
                    reason,
                    is_here,
                });
            }
            StageFault::Refused(_) if stage == 0 => {
                let reason = "it refuses what nobody sends";
                self.end_for(stage, StageFault::distrusted(reason));
            }
            StageFault::Refused(reason) => {
                tracing::warn!(pipeline, worker = name, reason, "a stage refuses a pass");
                self.end_plan(&format!("worker {name} refuses a pass: {reason}"));
                self.notices.push_back(ServingEvent::Refused {
                    pipeline,
                    epoch,
                    stage: stage as u32,
                    reason,
                });
            }
            StageFault::Distrusted(reason) => {
                self.end_plan(&format!("worker {name}: {reason}"));
                let distrusted = ServingEvent::Distrusted { worker, reason };
                self.notices.push_back(distrusted);
            }
        }
    }

    pub(super) fn on_stream(&mut self, opened: StreamOpened) {
        let Some(plan) = &mut self.plan else {
            return opened.refuse("the pipeline has no plan");
        };
        if plan.accept(opened, self.messages.clone()) {
            let (epoch, stages, pages) = (plan.epoch(), plan.stages() as u32, plan.pages());
            self.go_up(epoch, Event::Up { stages, pages });
        }
    }

    /// All stages of the plan are there.
    pub(super) fn go_up(&mut self, epoch: u32, up: Event) {
        let pipeline = self.index;
        tracing::info!(pipeline, epoch, "all stages are there");
        self.answers.begin();
        self.notices
            .push_back(ServingEvent::Running { pipeline, epoch });
        self.state.lock().standing = Standing::Running;
        if self.outage.end() {
            self.context.status.failed_over();
            if self.answers.is_empty() {
                self.on_resumed();
            }
        }
        self.events.push_back(up);
        self.load_adapters();
    }

    /// The answers go on after the loss of a stage, if there was one.
    pub(super) fn on_resumed(&mut self) {
        if let Some(after) = self.outage.resumed() {
            self.context.status.resumed(after);
        }
    }

    /// Sends to a stage. One that does not take its messages is lost.
    pub(super) fn send(&mut self, stage: usize, message: ToStage) {
        let plan = self.plan.as_ref();
        if plan.is_some_and(|plan| !plan.send(stage, message)) {
            self.end_for(stage, StageFault::lost("it does not take its messages"));
        }
    }

    /// Sends to all stages.
    pub(super) fn send_all(&mut self, message: &ToStage) {
        let count = self.plan.as_ref().map_or(0, PlanInEffect::stages);
        for stage in 0..count {
            self.send(stage, message.clone());
        }
    }

    pub(super) fn send_pass(&mut self, pass: Pass, draws: DrawOrder) {
        let Some(plan) = self.plan.as_mut().filter(|plan| plan.is_up()) else {
            return;
        };
        plan.passes.begin(&pass, plan.stages());
        let last = plan.last_stage();
        // What to draw is there before the pass arrives.
        self.send(last, ToStage::Draws(draws));
        self.send(0, ToStage::Pass(pass));
    }

    pub(super) fn on_passed(&mut self, stage: usize, passed: &Passed) {
        self.state.lock().passed(stage, passed);
        let Some(plan) = &mut self.plan else {
            return;
        };
        if let Err(fault) = plan.passes.on_passed(stage, passed) {
            return self.end_for(stage, fault);
        }
        if !passed.broken.is_empty() {
            let runs = passed.broken.clone();
            let pass = passed.pass;
            self.events.push_back(Event::Broken { pass, runs });
        }
        self.release(passed.pass);
    }

    pub(super) fn on_result(&mut self, stage: usize, result: PassResult) {
        let Some(plan) = &mut self.plan else {
            return;
        };
        let (pass, is_last) = (result.pass, stage == plan.last_stage());
        match plan.passes.on_result(is_last, result) {
            Ok(()) => self.release(pass),
            Err(fault) => self.end_for(stage, fault),
        }
    }

    /// Gives a result to the scheduler once its pass has left all stages.
    pub(super) fn release(&mut self, number: u64) {
        let plan = self.plan.as_mut();
        if let Some(result) = plan.and_then(|plan| plan.passes.complete(number)) {
            self.events.push_back(Event::Result(result));
            self.let_adapters_go();
        }
    }
}
