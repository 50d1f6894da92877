//! Sessions, one after another, around one engine that outlives them.

use std::sync::mpsc::{Receiver, sync_channel};
use std::time::{Duration, Instant};

use concord_proto::address::Address;
use concord_proto::limits::MESSAGE_BYTES_MAX;
use concord_proto::link::accept;
use concord_proto::session::{Hello, Role};
use concord_proto::wire::worker_server::WorkerServer;
use concord_proto::{ARITHMETIC_VERSION, Keypair, PROTOCOL_VERSION, WorkerId};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tonic::transport::Channel;

use super::WorkerOptions;
use super::context::{EFFECTS_MAX, WorkerContext};
use super::endpoint::{advertised, endpoint, is_hidden};
use super::server::WorkerService;
use super::session::{SessionEnd, WorkerSession};
use crate::blobs::Blobs;
use crate::heads::Heads;
use crate::identity::{BLOBS, Home};
use crate::serving::transport::StageHandle;
use crate::session::{self, Session};
use crate::training::engine::{
    EngineContext, EngineEffect, EngineEvent, EngineShared, TrainingEngine,
};
use crate::witness::Witness;
use crate::{Backoff, RuntimeError, measure};

/// More than all frames and orders of two steps.
const EVENTS_MAX: usize = 1 << 16;
/// Bytes that a neighbour may send ahead of what has been read.
const WINDOW_BYTES: u32 = 8 << 20;
/// A worker that never had a session gives up after this.
const FIRST_SESSION_MAX: Duration = Duration::from_secs(10);

/// Runs a worker until it is refused or `leave` is told. `started` is told its key and its address
/// once it listens.
///
/// # Errors
/// [`RuntimeError`] where the port is taken, the coordinator refuses, or cannot be reached at all.
pub async fn run(
    options: WorkerOptions,
    leave: mpsc::Receiver<()>,
    started: impl FnOnce(&WorkerId, &Address),
) -> Result<(), RuntimeError> {
    let coordinator = Address::parse(&options.coordinator)?;
    let advertised = advertised(&options)?;
    let home = Home::open(&options.dir)?;
    let key = home.key.clone();
    let (listener, endpoint) = listen(&options, advertised).await?;
    started(&key.public(), &endpoint);
    if is_hidden(&endpoint, &coordinator) {
        tracing::warn!(
            "{endpoint} is reached on this machine only, and the coordinator is at {coordinator}: \
             where other workers or checkers are on other machines, give --listen and --advertise"
        );
    }
    let info = measure::device_info(&options.device, options.memory_bytes)?;

    let shared = EngineShared::default();
    let (events, inbox) = sync_channel(EVENTS_MAX);
    let (effects, outbox) = mpsc::channel(EFFECTS_MAX);
    let faults = options.faults.clone();
    let (stage, mut gpu_losses) = StageHandle::start(key.clone(), info.name.clone(), faults)?;
    let service = WorkerService {
        key: key.clone(),
        shared: shared.clone(),
        events: events.clone(),
        stage: stage.clone(),
    };
    let server = tokio::spawn(serve(service, listener, key.clone()));
    let context = EngineContext {
        device: options.device.clone(),
        device_name: info.name.clone(),
        key: key.clone(),
        shared: shared.clone(),
        effects,
        faults: options.faults.clone(),
    };
    start(TrainingEngine::new(context), inbox)?;

    let hello = Hello {
        role: Role::Worker,
        protocol: PROTOCOL_VERSION,
        arithmetic: ARITHMETIC_VERSION,
        device: info,
        endpoint: endpoint.to_string(),
        held: None,
        challenge: [0; 32],
    };
    let stage_device = options.device.with_own_threads();
    let context = WorkerContext {
        heads: Heads::new(&options.dir),
        options,
        key,
        witness: Witness::default(),
        hello,
        events,
        stage,
        stage_device,
    };
    let driver = WorkerDriver {
        context,
        shared,
        had_session: false,
    };
    let result = driver.run(outbox, &mut gpu_losses, leave).await;
    server.abort();
    result
}

/// Takes the port, and tells the address that others connect to.
async fn listen(
    options: &WorkerOptions,
    advertised: Option<Address>,
) -> Result<(TcpListener, Address), RuntimeError> {
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
    Ok((listener, endpoint(advertised, address)?))
}

/// Serves other workers and checkers until it is aborted.
async fn serve(
    service: WorkerService,
    listener: TcpListener,
    key: Keypair,
) -> Result<(), tonic::transport::Error> {
    let service = WorkerServer::new(service)
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX);
    tonic::transport::Server::builder()
        // A pass of a prompt is megabytes: it must not wait for an acknowledgement every 64 KiB.
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(2 * WINDOW_BYTES)
        .add_service(service)
        .serve_with_incoming(accept(listener, &key))
        .await
}

/// Starts the thread of the engine.
fn start(engine: TrainingEngine, inbox: Receiver<EngineEvent>) -> Result<(), RuntimeError> {
    let thread = std::thread::Builder::new().name("engine".to_string());
    let started = thread.spawn(move || engine.run(inbox));
    started.map(drop).map_err(|why| RuntimeError::Io {
        action: "start",
        path: "a thread".into(),
        why,
    })
}

/// Holds sessions, one after another.
struct WorkerDriver {
    context: WorkerContext,
    shared: EngineShared,
    had_session: bool,
}

impl WorkerDriver {
    async fn run(
        mut self,
        mut outbox: mpsc::Receiver<EngineEffect>,
        gpu_losses: &mut mpsc::Receiver<RuntimeError>,
        mut leave: mpsc::Receiver<()>,
    ) -> Result<(), RuntimeError> {
        let mut backoff = Backoff::for_coordinator();
        let started = Instant::now();
        let mut warned = false;
        loop {
            let opened = tokio::select! {
                opened = self.session() => opened,
                _ = leave.recv() => return Ok(()),
            };
            match opened {
                Ok((session, channel)) => {
                    (self.had_session, warned) = (true, false);
                    let since = Instant::now();
                    let dir = self.context.options.dir.join(BLOBS);
                    let blobs = Blobs::new(channel.clone(), dir, &self.context.options.blobs)?;
                    let mut serving = WorkerSession::new(&self.context, session, blobs);
                    match serving.serve(&mut outbox, gpu_losses, &mut leave).await {
                        SessionEnd::Left => return Ok(()),
                        SessionEnd::EngineStopped => return Err(RuntimeError::EngineStopped),
                        SessionEnd::GpuGone(error) => return Err(error),
                        SessionEnd::Lost => {}
                    }
                    tracing::warn!("lost the coordinator; the committed state is kept");
                    backoff.after(since.elapsed());
                }
                Err(error) if error.is_refusal() => return Err(error),
                Err(error) if !self.had_session && started.elapsed() >= FIRST_SESSION_MAX => {
                    return Err(error.no_coordinator(&self.context.options.coordinator));
                }
                Err(error) => {
                    if !warned {
                        tracing::warn!("{error}; trying again");
                    }
                    warned = true;
                }
            }
            tokio::select! {
                () = tokio::time::sleep(backoff.pause()) => {}
                _ = leave.recv() => return Ok(()),
            }
            // Effects that are left are about a plan that is no more.
            while outbox.try_recv().is_ok() {}
        }
    }

    async fn session(&self) -> Result<(Session, Channel), RuntimeError> {
        let coordinator = &self.context.options.coordinator;
        let address = Address::parse(coordinator)?;
        let channel = session::connect(coordinator, &self.context.key).await?;
        let held = *self
            .shared
            .held
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(held) = held {
            let _ = self
                .context
                .events
                .send(EngineEvent::Abort { job: held.job });
        }
        let hello = Hello {
            held,
            ..self.context.hello.clone()
        };
        let session =
            Session::open((channel.clone(), &address), self.context.key.clone(), hello).await?;
        Ok((session, channel))
    }
}
