//! The task of one pipeline: it drives the scheduler, and is the only one that knows its lanes.
//!
//! From a result to the next pass nothing is waited for: neither the core, nor the disk, nor whoever
//! reads an answer.

mod adapters;
mod answers;
mod claiming;
mod epoch;
mod input;
mod passes;
mod shared;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use concord_proto::{Digest, WorkerId};
use concord_scheduler::{Scheduler, SchedulerEffect as Effect, SchedulerEvent as Event, Settings};
use tokio::sync::mpsc;

use super::hub::Hub;
use super::routes::Route;
use crate::core::ServingEvent;
use adapters::Loading;
use answers::Done;
use epoch::Epoch;

pub(super) use answers::Answer;
pub(super) use input::{End, Input, Opened, Planned, Said, Submitted};
pub(super) use shared::{Inner, Shared, Standing};

/// What may wait for a pipeline: submissions, lanes, words of those who ask.
const INPUTS_MAX: usize = 2_048;

/// Messages of stages that may wait for a pipeline; beyond that, stages wait.
const SAID_MAX: usize = 512;

/// How often time passes.
const TICK: Duration = Duration::from_millis(100);

/// Starts the task of a pipeline.
pub(super) fn start(hub: Arc<Hub>, index: u32) -> Route {
    let (inputs, waiting) = mpsc::channel(INPUTS_MAX);
    let (said, saying) = mpsc::channel(SAID_MAX);
    let deployment = &hub.served.deployment;
    let settings = Settings::new(deployment.vocab, deployment.positions);
    let shared = Arc::new(Shared::new(Scheduler::new(settings)));
    let pipeline = Pipeline {
        index,
        hub,
        shared: shared.clone(),
        said,
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
    Route { inputs, shared }
}

struct Pipeline {
    index: u32,
    hub: Arc<Hub>,
    shared: Arc<Shared>,
    /// Given to each lane.
    said: mpsc::Sender<Said>,
    /// The plan whose lanes are there or awaited.
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
    async fn run(mut self, mut inputs: mpsc::Receiver<Input>, mut saying: mpsc::Receiver<Said>) {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let core = self.hub.events.clone();
        loop {
            tokio::select! {
                said = saying.recv() => {
                    if let Some(said) = said {
                        self.on_said(said);
                    }
                }
                _ = ticks.tick() => self.on_tick(),
                permit = core.reserve(), if !self.notices.is_empty() => {
                    match (permit, self.notices.pop_front()) {
                        (Ok(permit), Some(notice)) => permit.send(notice),
                        // The core is gone: so is everything.
                        _ => return,
                    }
                }
                input = inputs.recv() => match input {
                    Some(Input::Stop(done)) => {
                        self.stop();
                        // Whoever waits may open the same store again.
                        drop(self);
                        let _ = done.send(());
                        return;
                    }
                    None => return self.stop(),
                    Some(input) => self.on_input(input),
                },
            }
            self.work_off();
        }
    }

    fn on_input(&mut self, input: Input) {
        match input {
            Input::Submit(submitted) => self.on_submit(*submitted),
            Input::Control {
                sequence,
                control,
                home,
            } => self.on_control(sequence, control, home),
            Input::Cancel { sequence, home } => self.on_cancel(sequence, home),
            Input::Planned(planned) => self.on_planned(*planned),
            Input::Down { reason } => self.on_down(&reason),
            Input::Lane(opened) => self.on_lane(*opened),
            Input::Evidence { sequence, seat } => self.ask_evidence(sequence, seat),
            Input::Checked { sequence } => self.on_checked(sequence),
            Input::AddAdapter { adapter, done } => self.add_adapter(adapter, done),
            Input::RemoveAdapter { adapter } => self.remove_adapter(adapter),
            Input::Stop(_) => {}
        }
    }

    /// Hands events to the scheduler until nothing more follows.
    fn work_off(&mut self) {
        while let Some(event) = self.events.pop_front() {
            let now = self.hub.now_us();
            let effects = self.shared.lock().scheduler.apply(now, event);
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
            } => self.on_answered(sequence, answer, (finish, usage)),
            Effect::Claim {
                sequence,
                spec,
                prompt,
                positions,
                pages,
            } => self.order_claims(sequence, (spec, prompt, positions), pages),
            Effect::Forget { sequence } => self.forget(sequence),
            Effect::Fault { reason } => self.fault_of_last(&reason),
        }
    }

    fn on_tick(&mut self) {
        self.events.push_back(Event::Tick);
        self.drop_stalled();
        self.drop_late_claims();
        self.shared.lock().count(self.hub.now_us(), self.tokens);
        let is_hopeless = self
            .idle_since
            .is_some_and(|since| since.elapsed() > self.hub.patience);
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
