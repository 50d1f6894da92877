//! Sessions, one after another, around one engine that outlives them.

use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::Duration;

use concord_proto::limits::MESSAGE_BYTES_MAX;
use concord_proto::session::{Assignment, Hello, Role, ToCoordinator, ToWorker};
use concord_proto::wire::worker_server::WorkerServer;
use concord_proto::{ARITHMETIC_VERSION, JobId, Keypair, PROTOCOL_VERSION};
use tokio::net::TcpListener;
use tokio::sync::{Mutex, mpsc};
use tonic::transport::Channel;
use tonic::transport::server::TcpIncoming;

use super::peers::Peers;
use super::server::WorkerService;
use super::{WorkerOptions, assignment};
use crate::blobs::Blobs;
use crate::checker::Auditor;
use crate::data::DataSource;
use crate::engine::{Engine, EngineEffect, EngineEvent, Shared};
use crate::identity::Home;
use crate::session::{self, Session};
use crate::{RuntimeError, measure};

/// More than all frames and orders of two steps.
const EVENTS_MAX: usize = 1 << 16;
/// Effects that may wait for the driver.
const EFFECTS_MAX: usize = 256;
/// Between two tries to reach the coordinator.
const RETRY: Duration = Duration::from_millis(500);
/// Tries before a worker that never had a session gives up.
const FIRST_TRIES: u32 = 20;

/// Runs a worker until it is refused or `leave` is told.
///
/// # Errors
/// [`RuntimeError`] where the port is taken, the coordinator refuses, or cannot be reached at all.
pub async fn run(options: WorkerOptions, leave: mpsc::Receiver<()>) -> Result<(), RuntimeError> {
    let home = Home::open(&options.dir)?;
    let key = home.key.clone();
    let refused = |why: std::io::Error| match why.kind() {
        std::io::ErrorKind::AddrInUse => RuntimeError::PortInUse(options.listen),
        _ => RuntimeError::Io {
            action: "listen on",
            path: options.listen.to_string(),
            why,
        },
    };
    let listener = TcpListener::bind(options.listen).await.map_err(refused)?;
    let address = listener.local_addr().map_err(refused)?;
    let endpoint = options
        .advertise
        .clone()
        .unwrap_or_else(|| format!("http://{address}"));
    let info = measure::device_info(&options.device, options.memory_bytes);

    let shared = Shared::default();
    let (events, inbox) = sync_channel(EVENTS_MAX);
    let (effects, outbox) = mpsc::channel(EFFECTS_MAX);
    let service = WorkerService {
        shared: shared.clone(),
        events: events.clone(),
    };
    let service = WorkerServer::new(service)
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX);
    let server = tonic::transport::Server::builder()
        .add_service(service)
        .serve_with_incoming(TcpIncoming::from(listener).with_nodelay(Some(true)));
    let server = tokio::spawn(server);

    let engine = Engine {
        device: options.device.clone(),
        device_name: info.name.clone(),
        key: key.clone(),
        shared: shared.clone(),
        effects,
        job: None,
        #[cfg(feature = "liars")]
        lie: options.lie.clone(),
        #[cfg(all(feature = "wrong-data", not(feature = "liars")))]
        wrong_data: options.wrong_data,
        #[cfg(feature = "liars")]
        wrong_data: options
            .wrong_data
            .or(options.lie.as_ref().and_then(|lie| lie.wrong_data())),
    };
    std::thread::Builder::new()
        .name("engine".to_string())
        .spawn(move || engine.run(inbox))
        .map_err(|why| RuntimeError::Io {
            action: "start",
            path: "a thread".into(),
            why,
        })?;

    let hello = Hello {
        role: Role::Worker,
        protocol: PROTOCOL_VERSION,
        arithmetic: ARITHMETIC_VERSION,
        device: info,
        endpoint,
        held: None,
        challenge: [0; 32],
    };
    let driver = Driver {
        options,
        key,
        hello,
        shared,
        events,
        had_session: false,
    };
    let result = driver.run(outbox, leave).await;
    server.abort();
    result
}

struct Driver {
    options: WorkerOptions,
    key: Keypair,
    hello: Hello,
    shared: Shared,
    events: SyncSender<EngineEvent>,
    had_session: bool,
}

impl Driver {
    async fn run(
        mut self,
        mut outbox: mpsc::Receiver<EngineEffect>,
        mut leave: mpsc::Receiver<()>,
    ) -> Result<(), RuntimeError> {
        let mut tries = 0;
        loop {
            let error = match self.session().await {
                Ok((session, channel)) => {
                    (self.had_session, tries) = (true, 0);
                    let blobs = Blobs::new(channel.clone(), self.options.dir.join("blobs"))?;
                    let mut live = Live::new(&self, session, blobs);
                    match live.serve(&mut outbox, &mut leave).await {
                        End::Left => return Ok(()),
                        End::EngineStopped => return Err(RuntimeError::EngineStopped),
                        End::Lost => {}
                    }
                    tracing::warn!("lost the coordinator; the committed state is kept");
                    continue;
                }
                Err(error @ RuntimeError::Refused(_)) => return Err(error),
                Err(error) => error,
            };
            tries += 1;
            if !self.had_session && tries >= FIRST_TRIES {
                return Err(error.no_coordinator(&self.options.coordinator));
            }
            if tries == 1 {
                tracing::warn!("{error}; trying again");
            }
            // What the engine still says is about a plan that is no more.
            while outbox.try_recv().is_ok() {}
            tokio::select! {
                () = tokio::time::sleep(RETRY) => {}
                _ = leave.recv() => return Ok(()),
            }
        }
    }

    async fn session(&self) -> Result<(Session, Channel), RuntimeError> {
        let channel = session::connect(&self.options.coordinator).await?;
        let held = *self
            .shared
            .held
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(held) = held {
            let _ = self.events.send(EngineEvent::Abort { job: held.job });
        }
        let hello = Hello {
            held,
            ..self.hello.clone()
        };
        let session = Session::open(channel.clone(), self.key.clone(), hello).await?;
        Ok((session, channel))
    }
}

/// How a session ended.
enum End {
    /// The worker has left for good.
    Left,
    /// The coordinator is gone; it may come back.
    Lost,
    /// The engine is gone: a bug. The log has its last words.
    EngineStopped,
}

impl End {
    /// A session that is over: as wished, where the worker was about to leave.
    fn of_session(leaving: bool) -> Self {
        if leaving { Self::Left } else { Self::Lost }
    }
}

/// A worker in a session.
struct Live<'a> {
    driver: &'a Driver,
    session: Session,
    blobs: Blobs,
    auditor: Arc<Auditor>,
    peers: Peers,
    data: Arc<Mutex<Option<(JobId, DataSource)>>>,
    loading: Option<tokio::task::JoinHandle<()>>,
    plan: Option<concord_proto::Plan>,
    said: mpsc::Sender<ToCoordinator>,
    sayings: mpsc::Receiver<ToCoordinator>,
    lost: mpsc::Sender<(u32, String)>,
    losses: mpsc::Receiver<(u32, String)>,
}

impl<'a> Live<'a> {
    fn new(driver: &'a Driver, session: Session, blobs: Blobs) -> Self {
        let (said, sayings) = mpsc::channel(EFFECTS_MAX);
        let (lost, losses) = mpsc::channel(EFFECTS_MAX);
        // A leaf is re-run beside the engine, not behind it.
        let auditor = Auditor::new(
            driver.options.device.with_own_threads(),
            blobs.clone(),
            driver.key.clone(),
        );
        Self {
            driver,
            session,
            blobs,
            auditor: Arc::new(auditor),
            peers: Peers::default(),
            data: Arc::default(),
            loading: None,
            plan: None,
            said,
            sayings,
            lost,
            losses,
        }
    }

    /// Serves until the session ends.
    async fn serve(
        &mut self,
        outbox: &mut mpsc::Receiver<EngineEffect>,
        leave: &mut mpsc::Receiver<()>,
    ) -> End {
        let mut heartbeat = tokio::time::interval(self.session.heartbeat);
        let mut leaving = false;
        loop {
            let goes_on = tokio::select! {
                message = self.session.receive() => match message {
                    Some(ToWorker::Leave) => return End::Left,
                    Some(message) => self.order(message).await,
                    None => return End::of_session(leaving),
                },
                effect = outbox.recv() => match effect {
                    Some(effect) => self.effect(effect).await,
                    None => return End::EngineStopped,
                },
                Some(message) = self.sayings.recv() => self.session.send(&message).await,
                Some((epoch, why)) = self.losses.recv() => {
                    // A neighbour that an older plan had may well be gone.
                    let is_current = self.plan.as_ref().is_some_and(|plan| plan.epoch == epoch);
                    if is_current { self.fail(why).await } else { true }
                }
                _ = heartbeat.tick() => self.session.send(&ToCoordinator::Heartbeat).await,
                _ = leave.recv(), if !leaving => {
                    leaving = true;
                    self.session.send(&ToCoordinator::Drain).await
                }
            };
            if !goes_on {
                return End::of_session(leaving);
            }
        }
    }

    async fn fail(&mut self, reason: String) -> bool {
        let Some(plan) = &self.plan else { return true };
        let (job, epoch) = (plan.job, plan.epoch);
        let permanent = false;
        self.session
            .send(&ToCoordinator::Failed {
                job,
                epoch,
                reason,
                permanent,
            })
            .await
    }

    async fn order(&mut self, message: ToWorker) -> bool {
        match message {
            ToWorker::Assign(assignment) => self.load(*assignment),
            ToWorker::Step {
                job, epoch, step, ..
            } => self.step(job, epoch, step),
            ToWorker::Scalars {
                job,
                epoch,
                scalars,
            } => {
                self.engine(EngineEvent::Scalars {
                    job,
                    epoch,
                    scalars,
                });
            }
            ToWorker::Commit {
                job,
                epoch,
                step,
                release_below,
                ..
            } => {
                self.engine(EngineEvent::Commit {
                    job,
                    epoch,
                    step,
                    release_below,
                });
            }
            ToWorker::Release { job, below } => self.engine(EngineEvent::Release { job, below }),
            ToWorker::Abort { job, .. } => {
                self.plan = None;
                self.peers.close();
                self.engine(EngineEvent::Abort { job });
            }
            ToWorker::Flush { job } => self.engine(EngineEvent::Flush { job }),
            ToWorker::Forget { job } => {
                self.plan = None;
                self.peers.close();
                self.engine(EngineEvent::Forget { job });
            }
            ToWorker::Audit(order) => {
                let (auditor, said) = (self.auditor.clone(), self.said.clone());
                tokio::spawn(async move {
                    let message = auditor.answer(*order).await;
                    let _ = said.send(message).await;
                });
            }
            ToWorker::Challenge { .. }
            | ToWorker::Welcome { .. }
            | ToWorker::Refused { .. }
            | ToWorker::Leave => {}
        }
        true
    }

    fn engine(&self, event: EngineEvent) {
        if self.driver.events.send(event).is_err() {
            tracing::error!("the engine is gone");
        }
    }

    fn load(&mut self, assignment: Assignment) {
        if let Some(loading) = self.loading.take() {
            loading.abort();
        }
        self.plan = Some(assignment.plan.clone());
        let (job, epoch) = (assignment.plan.job, assignment.plan.epoch);
        let (blobs, events) = (self.blobs.clone(), self.driver.events.clone());
        let (said, data) = (self.said.clone(), self.data.clone());
        let worker = self.driver.key.public();
        #[cfg(feature = "liars")]
        let lower = self
            .driver
            .options
            .lie
            .as_ref()
            .is_some_and(|lie| lie.lowers_precision());
        self.loading = Some(tokio::spawn(async move {
            match assignment::fetch(&blobs, assignment, worker).await {
                #[cfg_attr(not(feature = "liars"), expect(unused_mut))]
                Ok((mut loaded, source)) => {
                    #[cfg(feature = "liars")]
                    if lower {
                        loaded.lower_precision = Some(concord_kernels::coded::Precision::I8);
                    }
                    *data.lock().await = Some((job, source));
                    let _ = events.send(EngineEvent::Load(Box::new(loaded)));
                }
                Err(error) => {
                    let permanent = error.is_permanent();
                    let reason = error.to_string();
                    let failed = ToCoordinator::Failed {
                        job,
                        epoch,
                        reason,
                        permanent,
                    };
                    let _ = said.send(failed).await;
                }
            }
        }));
    }

    /// Fetches the microbatches of a step, then starts it.
    fn step(&mut self, job: JobId, epoch: u32, step: u32) {
        let Some(plan) = self
            .plan
            .as_ref()
            .filter(|p| (p.job, p.epoch) == (job, epoch))
        else {
            return;
        };
        let Some(seat) = plan.seat(&self.driver.key.public()) else {
            return;
        };
        let replica = &plan.replicas[seat.replica];
        let run = replica.start..replica.end;
        let (blobs, events) = (self.blobs.clone(), self.driver.events.clone());
        let (said, data) = (self.said.clone(), self.data.clone());
        tokio::spawn(async move {
            let mut data = data.lock().await;
            let Some((_, source)) = data.as_mut().filter(|(of, _)| *of == job) else {
                return;
            };
            let mut batches = Vec::new();
            for microbatch in run {
                match source.microbatch(&blobs, step, microbatch).await {
                    Ok(batch) => batches.push((microbatch, batch)),
                    Err(error) => {
                        let permanent = error.is_permanent();
                        let reason = error.to_string();
                        let failed = ToCoordinator::Failed {
                            job,
                            epoch,
                            reason,
                            permanent,
                        };
                        let _ = said.send(failed).await;
                        return;
                    }
                }
            }
            let _ = events.send(EngineEvent::Step {
                job,
                epoch,
                step,
                batches,
            });
        });
    }

    async fn effect(&mut self, effect: EngineEffect) -> bool {
        match effect {
            #[cfg(feature = "liars")]
            EngineEffect::Report(ToCoordinator::Computed { step, .. })
                if self
                    .driver
                    .options
                    .lie
                    .as_ref()
                    .is_some_and(|lie| lie.garbles(step)) =>
            {
                self.session.send_garbage().await
            }
            EngineEffect::Report(message) => self.session.send(&message).await,
            EngineEffect::Send {
                endpoint,
                header,
                tensors,
                ..
            } => {
                self.peers.send(endpoint, header, tensors, &self.lost).await;
                true
            }
            EngineEffect::Upload {
                job,
                epoch,
                tensors,
                then,
            } => {
                let (blobs, said) = (self.blobs.clone(), self.said.clone());
                tokio::spawn(async move {
                    // A state is stored between two plans, too: it names its own, not the present.
                    let failed = |error| ToCoordinator::Failed {
                        job,
                        epoch,
                        reason: format!("the state cannot be stored: {error}"),
                        permanent: false,
                    };
                    let stored = blobs.put_all(tensors).await;
                    let message = stored.map_or_else(failed, |()| then);
                    let _ = said.send(message).await;
                });
                true
            }
        }
    }
}
