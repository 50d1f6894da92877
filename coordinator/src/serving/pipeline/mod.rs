//! The task of one pipeline: it drives the scheduler, and owns the streams of its stages.
//!
//! From a result to the next pass it waits for nothing: neither the core, nor the disk, nor the
//! client that reads an answer.

mod adapters;
mod answers;
mod claiming;
mod epoch;
mod passes;

use std::collections::{BTreeMap, VecDeque};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use concord_proto::serving::{Finish, Usage};
use concord_proto::{Digest, WorkerId};
use concord_scheduler::{Effect, Event, Scheduler, Settings};
use tokio::sync::{mpsc, oneshot};

use super::adapters::LoadedAdapters;
use super::receipts::SignerRequest;
use super::router::{Answer, PipelineInput, PipelineState, Route, Router, StageMessage};
use super::status::ServingStatus;
use crate::core::ServingEvent;
use adapters::Loading;
use answers::Done;
use claiming::Claimable;
use epoch::Epoch;

/// Inputs that may wait for a pipeline: submissions, streams, controls of clients.
const INPUTS_MAX: usize = 2_048;

/// Messages of stages that may wait for a pipeline; beyond that, stages wait.
const MESSAGES_MAX: usize = 512;

/// How often time passes.
const TICK: Duration = Duration::from_millis(100);

/// How long a pipeline waits for others.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ServingTimeouts {
    /// A stage that does not answer for this long is lost.
    pub(crate) stall: Duration,
    /// A stage that is not loaded after this is given to another worker.
    pub(crate) load: Duration,
    /// Answers wait this long for a pipeline that no worker can hold.
    pub(crate) patience: Duration,
}

/// What a pipeline needs of others.
#[derive(Clone)]
pub(super) struct PipelineContext {
    pub(super) settings: Settings,
    /// When the service started: the scheduler's time counts from then.
    pub(super) started: Instant,
    pub(super) timeouts: ServingTimeouts,
    /// To the core.
    pub(super) events: mpsc::Sender<ServingEvent>,
    pub(super) signer: mpsc::Sender<SignerRequest>,
    pub(super) router: Arc<Router>,
    pub(super) adapters: Arc<LoadedAdapters>,
    pub(super) status: Arc<ServingStatus>,
}

impl PipelineContext {
    /// Microseconds since the start.
    fn now_us(&self) -> u64 {
        self.started.elapsed().as_micros() as u64
    }
}

/// Starts the task of a pipeline.
pub(super) fn start(context: PipelineContext, index: u32) -> Route {
    let (inputs, waiting) = mpsc::channel(INPUTS_MAX);
    let (messages, saying) = mpsc::channel(MESSAGES_MAX);
    let scheduler = Scheduler::new(context.settings);
    let state = Arc::new(PipelineState::new(scheduler));
    let pipeline = Pipeline {
        index,
        context,
        state: state.clone(),
        messages,
        epoch: None,
        was_up: false,
        answers: BTreeMap::new(),
        done: BTreeMap::new(),
        unclaimed: BTreeMap::new(),
        loading: Vec::new(),
        removing: Vec::new(),
        notices: VecDeque::new(),
        events: VecDeque::new(),
        lost: None,
        idle_since: Some(Instant::now()),
        tokens: 0,
    };
    tokio::spawn(pipeline.run(waiting, saying));
    Route { inputs, state }
}

/// A complete answer, as the scheduler gives it.
struct FinishedAnswer {
    answer: Vec<u32>,
    finish: Finish,
    usage: Usage,
}

struct Pipeline {
    index: u32,
    context: PipelineContext,
    state: Arc<PipelineState>,
    /// Given to each stage stream.
    messages: mpsc::Sender<StageMessage>,
    /// The plan whose streams are there or awaited.
    epoch: Option<Epoch>,
    /// Whether it ever ran.
    was_up: bool,
    /// Answers under way, by sequence.
    answers: BTreeMap<u64, Answer>,
    /// Answers whose claims are awaited.
    done: BTreeMap<u64, Done>,
    /// How often workers have not claimed what they computed.
    unclaimed: BTreeMap<WorkerId, u32>,
    /// Adapters that stages are loading.
    loading: Vec<Loading>,
    /// Adapters that are unloaded, and the first pass that is sure not to use them.
    removing: Vec<(Digest, u64)>,
    /// On their way to the core.
    notices: VecDeque<ServingEvent>,
    /// For the scheduler.
    events: VecDeque<Event>,
    /// When a stage was lost, until tokens come again.
    lost: Option<Instant>,
    /// Since when it does not run.
    idle_since: Option<Instant>,
    /// Tokens drawn, for the rate.
    tokens: u64,
}

impl Pipeline {
    async fn run(
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

    /// Takes in an input. Breaks where it is the end, with the sender of the answer to it.
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
            } => self.on_answered(
                sequence,
                FinishedAnswer {
                    answer,
                    finish,
                    usage,
                },
            ),
            Effect::Claim {
                sequence,
                spec,
                prompt,
                positions,
                pages,
            } => self.order_claims(Claimable {
                sequence,
                spec,
                prompt,
                positions,
                pages,
            }),
            Effect::Forget { sequence } => self.forget(sequence),
            Effect::Fault { reason } => self.fault_of_last(&reason),
        }
    }

    fn on_tick(&mut self) {
        self.events.push_back(Event::Tick);
        self.drop_stalled();
        self.drop_late_claims();
        self.state.lock().count(self.context.now_us(), self.tokens);
        let is_hopeless = self
            .idle_since
            .is_some_and(|since| since.elapsed() > self.context.timeouts.patience);
        if is_hopeless && !self.answers.is_empty() {
            self.give_up();
        }
    }

    /// Tells the core, in time.
    fn notify(&mut self, event: ServingEvent) {
        self.notices.push_back(event);
    }

    fn stop(&mut self) {
        let sequences: Vec<u64> = self.answers.keys().copied().collect();
        for sequence in sequences {
            self.fail(sequence, "the server stops");
        }
        self.settle_claims();
    }
}
