//! The task that owns the core: it turns inputs into events and carries effects out in order.

use std::collections::{BTreeMap, VecDeque};
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use concord_proto::client::ClientResponse;
use concord_proto::session::ToWorker;
use tokio::sync::{mpsc, oneshot, watch};

use super::access::PoolAccess;
use super::driver_event::{DriverEvent, SessionLink};
use super::probe::Probes;
use super::referee::Reruns;
use super::sweeper::Sweeper;
use super::watch::Watchers;
use super::{ServerError, Storage};
use crate::blobs::BlobError;
use crate::core::{CallId, Change, Core, CoreEffect, CoreEvent, SessionId, Time};
use crate::serving::ModelService;
use crate::store::StoreError;

/// How often the core gets a tick.
const TICK: Duration = Duration::from_millis(100);

/// How long to wait before trying again where the disk is full.
const FULL_PAUSE: Duration = Duration::from_secs(1);

/// Owns the core, and all that its effects need.
pub(super) struct CoreDriver {
    core: Core,
    storage: Storage,
    sweeper: Sweeper,
    watchers: Watchers,
    /// Present if a model is served.
    serving: Option<ModelService>,
    probes: Probes,
    access: watch::Receiver<PoolAccess>,
    reruns: Reruns,
    /// The pool is being ended on purpose: members that go are not replaced.
    is_parting: bool,
    started: Instant,
    links: BTreeMap<SessionId, SessionLink>,
    calls: BTreeMap<CallId, oneshot::Sender<ClientResponse>>,
    next_call: u64,
    /// Events that follow from effects.
    events: VecDeque<CoreEvent>,
}

/// What a driver carries effects out with.
pub(super) struct DriverParts {
    pub(super) storage: Storage,
    pub(super) sweeper: Sweeper,
    pub(super) watchers: Watchers,
    pub(super) serving: Option<ModelService>,
    pub(super) probes: Probes,
    pub(super) access: watch::Receiver<PoolAccess>,
    pub(super) reruns: Reruns,
}

impl CoreDriver {
    pub(super) fn new(core: Core, parts: DriverParts) -> Self {
        let DriverParts {
            storage,
            sweeper,
            watchers,
            serving,
            probes,
            access,
            reruns,
        } = parts;
        Self {
            core,
            storage,
            sweeper,
            watchers,
            serving,
            probes,
            access,
            reruns,
            is_parting: false,
            started: Instant::now(),
            links: BTreeMap::new(),
            calls: BTreeMap::new(),
            next_call: 0,
            events: VecDeque::new(),
        }
    }

    /// Runs until told to stop, or until nothing can be persisted any more.
    pub(super) async fn run(
        mut self,
        mut told: mpsc::Receiver<DriverEvent>,
    ) -> Result<(), ServerError> {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let outcome = loop {
            tokio::select! {
                _ = ticks.tick(), if !self.is_parting => {
                    self.events.push_back(CoreEvent::Tick);
                    self.sweeper.tick().await;
                }
                Ok(()) = self.access.changed() => self.end_unwanted(),
                event = told.recv() => {
                    let taken = event.map_or(ControlFlow::Break(()), |event| self.take_in(event));
                    if taken.is_break() {
                        break Ok(());
                    }
                }
            }
            if let Err(error) = self.work_off().await {
                tracing::error!(%error, "the coordinator stops");
                break Err(error);
            }
        };
        self.links.values().for_each(|link| link.reader.abort());
        self.watchers.end();
        outcome
    }

    /// Ends the sessions of keys that are not let in any more.
    fn end_unwanted(&mut self) {
        let access = self.access.borrow_and_update();
        let unwanted = self.links.iter().filter(|(_, link)| {
            let (role, key) = &link.member;
            !access.takes_member(*role, key)
        });
        let unwanted: Vec<SessionId> = unwanted.map(|(session, _)| *session).collect();
        drop(access);
        for session in unwanted {
            if let Some(link) = self.links.remove(&session) {
                link.reader.abort();
                let reason = "its key is not let in any more".to_string();
                self.events.push_back(CoreEvent::Closed { session, reason });
            }
        }
    }

    /// Takes in what the driver is told. Breaks if it is to stop.
    fn take_in(&mut self, event: DriverEvent) -> ControlFlow<()> {
        match event {
            DriverEvent::Opened {
                session,
                worker,
                hello,
                link,
            } => {
                // It may have been revoked since it was let in.
                let (role, key) = link.member;
                if !self.access.borrow().takes_member(role, &key) {
                    link.reader.abort();
                    return ControlFlow::Continue(());
                }
                self.links.insert(session, link);
                let hello = *hello;
                self.events.push_back(CoreEvent::Opened {
                    session,
                    worker,
                    hello,
                });
            }
            DriverEvent::Core(event) => {
                if let CoreEvent::Closed { session, .. } = &event {
                    self.links.remove(session);
                    if self.is_parting {
                        return ControlFlow::Continue(());
                    }
                }
                self.events.push_back(event);
            }
            DriverEvent::Ask(by, question, answer) => {
                let call = CallId(self.next_call);
                self.next_call += 1;
                self.calls.insert(call, answer);
                self.events
                    .push_back(CoreEvent::Asked { call, by, question });
            }
            DriverEvent::Parting => self.is_parting = true,
            DriverEvent::Stop => return ControlFlow::Break(()),
        }
        ControlFlow::Continue(())
    }

    async fn work_off(&mut self) -> Result<(), ServerError> {
        while let Some(event) = self.events.pop_front() {
            if let CoreEvent::Closed { session, .. } = &event {
                self.probes.stop(session);
            }
            let now = Time(self.started.elapsed().as_micros() as u64);
            for effect in self.core.apply(now, event) {
                self.carry_out(effect).await?;
            }
        }
        Ok(())
    }

    async fn carry_out(&mut self, effect: CoreEffect) -> Result<(), ServerError> {
        match effect {
            CoreEffect::StoreBlob(bytes) => self.store_blob(bytes).await?,
            CoreEffect::Persist(changes) => {
                self.persist(&changes).await?;
                self.sweeper.follow(&changes).await;
            }
            CoreEffect::Send { session, message } => self.send(session, message),
            CoreEffect::Close { session } => {
                self.probes.stop(&session);
                if let Some(link) = self.links.remove(&session) {
                    link.reader.abort();
                }
            }
            CoreEffect::Publish { job, number, event } => {
                tracing::info!(job = %job.0.short(), number, ?event, "event");
                self.watchers.publish(job, number, event);
            }
            CoreEffect::Reply { call, response } => {
                if let Some(answer) = self.calls.remove(&call) {
                    // The client may have gone since.
                    let _ = answer.send(response);
                }
            }
            CoreEffect::Probe {
                session,
                worker,
                endpoint,
            } => self.probes.start(session, worker, endpoint),
            CoreEffect::Referee { order, traced } => self.reruns.start(*order, traced),
            CoreEffect::Serving(effect) => {
                if let Some(serving) = &self.serving {
                    serving.carry_out(effect).await;
                }
            }
            CoreEffect::CheckBlobs { check, blobs } => {
                let missing = self.storage.blobs.missing(&blobs).await?;
                self.events
                    .push_back(CoreEvent::BlobsChecked { check, missing });
            }
        }
        Ok(())
    }

    fn send(&mut self, session: SessionId, message: ToWorker) {
        let Some(link) = self.links.get(&session) else {
            return;
        };
        if link.messages.try_send(message).is_err() {
            // It is gone, or does not read, and its messages would pile up.
            link.reader.abort();
            self.links.remove(&session);
            let reason = "it does not take its messages".to_string();
            if !self.is_parting {
                self.events.push_back(CoreEvent::Closed { session, reason });
            }
        }
    }

    async fn persist(&self, changes: &[Change]) -> Result<(), ServerError> {
        loop {
            match self.storage.store.persist(changes).await {
                Err(error @ StoreError::Full(_)) => tracing::error!(%error, "waiting for room"),
                outcome => return Ok(outcome?),
            }
            tokio::time::sleep(FULL_PAUSE).await;
        }
    }

    async fn store_blob(&self, bytes: Vec<u8>) -> Result<(), ServerError> {
        loop {
            match self.storage.blobs.put(bytes.clone()).await {
                Err(error @ BlobError::Full(_)) => tracing::error!(%error, "waiting for room"),
                outcome => return Ok(outcome.map(drop)?),
            }
            tokio::time::sleep(FULL_PAUSE).await;
        }
    }
}
