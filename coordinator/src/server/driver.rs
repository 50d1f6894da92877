//! The task that owns the core: it turns inputs into events and carries effects out in order.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use concord_proto::WorkerId;
use concord_proto::client::ClientResponse;
use concord_proto::session::{Hello, ToWorker};
use tokio::sync::{mpsc, oneshot};
use tokio::task::AbortHandle;

use super::ServerError;
use super::probe::Probes;
use super::sweeper::Sweeper;
use super::watch::Watchers;
use crate::blobs::{BlobError, Blobs};
use crate::core::{CallId, Change, Core, Effect, Event, Question, SessionId, Time};
use crate::serving::Hub;
use crate::store::{Store, StoreError};

/// How often time passes for the core.
const TICK: Duration = Duration::from_millis(100);

/// How long to wait before trying again where the disk is full.
const FULL_PAUSE: Duration = Duration::from_secs(1);

/// What other tasks tell the driver.
pub(super) enum Input {
    /// A session began with a Hello whose signature holds.
    Opened {
        session: SessionId,
        worker: WorkerId,
        hello: Box<Hello>,
        line: Line,
    },
    /// Something happened in a session.
    Event(Event),
    /// A client asks.
    Ask(Question, oneshot::Sender<ClientResponse>),
    /// Whoever runs the coordinator is about to end its members.
    Parting,
    /// The end.
    Stop,
}

/// The way to the other end of a session.
pub(super) struct Line {
    /// Dropped, it ends the session once all messages are out.
    pub(super) messages: mpsc::Sender<ToWorker>,
    /// The task that reads what comes.
    pub(super) reader: AbortHandle,
}

pub(super) struct Driver {
    core: Core,
    store: Arc<Store>,
    blobs: Arc<Blobs>,
    sweeper: Sweeper,
    watchers: Watchers,
    /// Where a model is served.
    hub: Option<Arc<Hub>>,
    probes: Probes,
    /// Members that go are not missed any more, and nobody takes their place.
    is_parting: bool,
    started: Instant,
    lines: BTreeMap<SessionId, Line>,
    calls: BTreeMap<CallId, oneshot::Sender<ClientResponse>>,
    next_call: u64,
    /// Events that follow from effects.
    events: VecDeque<Event>,
}

impl Driver {
    pub(super) fn new(
        core: Core,
        (store, blobs, sweeper): (Arc<Store>, Arc<Blobs>, Sweeper),
        watchers: Watchers,
        hub: Option<Arc<Hub>>,
        probes: Probes,
    ) -> Self {
        Self {
            core,
            store,
            blobs,
            sweeper,
            watchers,
            hub,
            probes,
            is_parting: false,
            started: Instant::now(),
            lines: BTreeMap::new(),
            calls: BTreeMap::new(),
            next_call: 0,
            events: VecDeque::new(),
        }
    }

    /// Runs until told to stop, or until nothing can be kept any more.
    pub(super) async fn run(
        mut self,
        mut inputs: mpsc::Receiver<Input>,
    ) -> Result<(), ServerError> {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let outcome = loop {
            tokio::select! {
                _ = ticks.tick(), if !self.is_parting => {
                    self.events.push_back(Event::Tick);
                    self.sweeper.tick().await;
                }
                input = inputs.recv() => match input {
                    Some(Input::Stop) | None => break Ok(()),
                    Some(input) => self.take_in(input),
                },
            }
            if let Err(error) = self.work_off().await {
                tracing::error!(%error, "the coordinator stops");
                break Err(error);
            }
        };
        self.lines.values().for_each(|line| line.reader.abort());
        self.watchers.end();
        outcome
    }

    fn take_in(&mut self, input: Input) {
        match input {
            Input::Opened {
                session,
                worker,
                hello,
                line,
            } => {
                self.lines.insert(session, line);
                let hello = *hello;
                self.events.push_back(Event::Opened {
                    session,
                    worker,
                    hello,
                });
            }
            Input::Event(event) => {
                if let Event::Closed { session, .. } = &event {
                    self.lines.remove(session);
                    if self.is_parting {
                        return;
                    }
                }
                self.events.push_back(event);
            }
            Input::Ask(question, answer) => {
                let call = CallId(self.next_call);
                self.next_call += 1;
                self.calls.insert(call, answer);
                self.events.push_back(Event::Asked { call, question });
            }
            Input::Parting => self.is_parting = true,
            Input::Stop => {}
        }
    }

    async fn work_off(&mut self) -> Result<(), ServerError> {
        while let Some(event) = self.events.pop_front() {
            let now = Time(self.started.elapsed().as_micros() as u64);
            for effect in self.core.apply(now, event) {
                self.carry_out(effect).await?;
            }
        }
        Ok(())
    }

    async fn carry_out(&mut self, effect: Effect) -> Result<(), ServerError> {
        match effect {
            Effect::StoreBlob(bytes) => self.store_blob(bytes).await?,
            Effect::Persist(changes) => {
                self.persist(&changes).await?;
                self.sweeper.follow(&changes).await;
            }
            Effect::Send { session, message } => self.send(session, message),
            Effect::Close { session } => {
                if let Some(line) = self.lines.remove(&session) {
                    line.reader.abort();
                }
            }
            Effect::Publish { job, number, event } => {
                tracing::info!(job = %job.0.short(), number, ?event, "event");
                self.watchers.publish(job, number, event);
            }
            Effect::Reply { call, response } => {
                if let Some(answer) = self.calls.remove(&call) {
                    // Whoever asked may have gone since.
                    let _ = answer.send(response);
                }
            }
            Effect::Probe {
                session,
                worker,
                endpoint,
            } => self.probes.start(session, worker, endpoint),
            Effect::Serving(effect) => {
                if let Some(hub) = &self.hub {
                    hub.carry_out(effect).await;
                }
            }
            Effect::CheckBlobs { check, blobs } => {
                let missing = self.blobs.missing(&blobs).await?;
                self.events
                    .push_back(Event::BlobsChecked { check, missing });
            }
        }
        Ok(())
    }

    fn send(&mut self, session: SessionId, message: ToWorker) {
        let Some(line) = self.lines.get(&session) else {
            return;
        };
        if line.messages.try_send(message).is_err() {
            // Gone, or it does not read: its messages would pile up.
            line.reader.abort();
            self.lines.remove(&session);
            let reason = "it does not take its messages".to_string();
            if !self.is_parting {
                self.events.push_back(Event::Closed { session, reason });
            }
        }
    }

    async fn persist(&self, changes: &[Change]) -> Result<(), ServerError> {
        loop {
            match self.store.keep(changes).await {
                Err(error @ StoreError::Full(_)) => tracing::error!(%error, "waiting for room"),
                outcome => return Ok(outcome?),
            }
            tokio::time::sleep(FULL_PAUSE).await;
        }
    }

    async fn store_blob(&self, bytes: Vec<u8>) -> Result<(), ServerError> {
        loop {
            match self.blobs.put(bytes.clone()).await {
                Err(error @ BlobError::Full(_)) => tracing::error!(%error, "waiting for room"),
                outcome => return Ok(outcome.map(drop)?),
            }
            tokio::time::sleep(FULL_PAUSE).await;
        }
    }
}
