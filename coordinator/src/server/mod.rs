//! The coordinator as a gRPC server: one task owns the core, all others talk to it.

pub mod access;
mod driver;
mod driver_event;
mod error;
mod probe;
mod referee;
mod references;
mod service;
mod session;
mod sweeper;
mod watch;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use concord_proto::address::Address;
use concord_proto::limits::MESSAGE_BYTES_MAX;
use concord_proto::link::accept;
use concord_proto::serving::ServedModel;
use concord_proto::wire::coordinator_server::CoordinatorServer;
use concord_proto::{Keypair, PublicKey};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot, watch as watch_channel};
use tokio::task::JoinHandle;

use crate::blobs::BlobStore;
use crate::core::{Config, Core, CoreEvent, ServingEvent};
use crate::serving::{ModelService, ServiceParts, ServingTimeouts};
use crate::store::{Secrets, Store};
use access::PoolAccess;
use driver::{CoreDriver, DriverParts};
use driver_event::DriverEvent;
use probe::Probes;
use referee::Reruns;
use service::CoordinatorService;
use sweeper::Sweeper;
use watch::Watchers;

pub use error::ServerError;
pub use referee::{OwnLink, Referee, Refereed};
pub use references::{JobBlobs, References};

/// A frame of protobuf around the longest canonical message.
const FRAMED_BYTES_MAX: usize = MESSAGE_BYTES_MAX + 4_096;

/// Events that wait for the driver: beyond that, senders wait.
const EVENTS_MAX: usize = 1_024;

/// HTTP/2 windows that keep a link of 1 Gbit/s and 50 ms full.
const STREAM_WINDOW: u32 = 4 << 20;
const CONNECTION_WINDOW: u32 = 16 << 20;

/// How long open streams may take to end at a shutdown.
const SHUTDOWN_MAX: Duration = Duration::from_secs(3);

/// How a coordinator is run.
#[derive(Clone, Debug)]
pub struct ServerOptions {
    /// Where to listen. Port 0 takes a free one.
    pub listen: SocketAddr,
    /// The folder of its state and its blobs.
    pub data_dir: PathBuf,
    /// Settings of the core; whether there is a referee, the field of that name says.
    pub config: Config,
    /// A model to serve, of which all blobs are in the store or will be before a worker joins. A
    /// coordinator that serves takes on no training jobs.
    pub serve: Option<ServedModel>,
    /// Which keys may do what.
    pub access: watch_channel::Receiver<PoolAccess>,
    /// Who decides where a checker contradicts a worker. Without one nobody is convicted on what
    /// checkers say.
    pub referee: Option<Arc<dyn Referee>>,
}

/// A coordinator that runs in this process.
pub struct RunningServer {
    /// Where it listens.
    pub addr: SocketAddr,
    /// Its public key.
    pub key: PublicKey,
    stop: oneshot::Sender<()>,
    done: JoinHandle<Result<(), ServerError>>,
    serving: Option<ModelService>,
    blobs: Arc<BlobStore>,
    /// Weak, because the driver ends once all strong senders are dropped.
    driver: mpsc::WeakSender<DriverEvent>,
}

/// What outlives the process.
#[derive(Clone)]
struct Storage {
    store: Arc<Store>,
    blobs: Arc<BlobStore>,
}

impl RunningServer {
    /// Its store of blobs, for the process that runs it.
    pub fn blobs(&self) -> &BlobStore {
        &self.blobs
    }

    /// Where workers and clients of this machine reach it, such as "concord://KEY@127.0.0.1:7700".
    pub fn url(&self) -> String {
        Address::at(self.addr).of(self.key).to_string()
    }

    /// What is served, if anything is.
    pub fn serving(&self) -> Option<ModelService> {
        self.serving.clone()
    }

    /// Announces that its members, and then it itself, are about to be ended on purpose. From then
    /// on the end of a member is expected: there is no warning and no new plan.
    pub fn part(&self) {
        if let Some(serving) = &self.serving {
            serving.part();
        }
        if let Some(driver) = self.driver.upgrade() {
            // It does not matter if the driver has ended; one that waits for a full disk is not
            // waited for.
            let _ = driver.try_send(DriverEvent::Parting);
        }
    }

    /// Ends all sessions and waits until everything is persisted.
    ///
    /// # Errors
    /// [`ServerError`], where it had ended on its own before.
    pub async fn shutdown(self) -> Result<(), ServerError> {
        if let Some(serving) = &self.serving {
            serving.stop().await;
        }
        // If it has ended already, nobody listens; the result says why.
        let _ = self.stop.send(());
        ended(self.done.await)
    }

    /// Waits until it ends on its own, which only an error makes it do.
    ///
    /// # Errors
    /// [`ServerError`]: the store cannot be used any more.
    pub async fn wait(&mut self) -> Result<(), ServerError> {
        ended((&mut self.done).await)
    }
}

fn ended(
    result: Result<Result<(), ServerError>, tokio::task::JoinError>,
) -> Result<(), ServerError> {
    result.unwrap_or_else(|why| Err(ServerError::Panicked(why.to_string())))
}

/// Starts a coordinator, with everything that an earlier one in the same folder has persisted.
///
/// # Errors
/// [`ServerError`]: the port or the folder is in use, or the store cannot be read.
pub async fn start(options: ServerOptions) -> Result<RunningServer, ServerError> {
    let listen = options.listen;
    let storage = open_storage(&options).await?;
    let Storage { store, blobs } = storage.clone();
    let failed = |why| ServerError::listen(listen, why);
    let listener = TcpListener::bind(listen).await.map_err(failed)?;
    let addr = listener.local_addr().map_err(failed)?;
    let secrets = store.secrets(fresh_secrets()?).await?;
    let key = Keypair::from_secret(secrets.key);
    let persisted = store.load(&blobs).await?;
    let sweeper = Sweeper::new(&persisted, blobs.clone()).await;
    let config = Config {
        referee: options.referee.is_some(),
        ..options.config
    };
    let mut core = Core::restore(config, key.clone(), secrets.nonce, persisted);
    let (events, told) = mpsc::channel(EVENTS_MAX);
    let mut serving = None;
    if let Some(served) = options.serve {
        if core.has_job() {
            return Err(ServerError::Trains(options.data_dir));
        }
        core = core.serving(served.clone());
        serving = Some(ModelService::start(ServiceParts {
            served,
            key: key.clone(),
            nonce: core.audit_nonce(),
            store,
            blobs: blobs.clone(),
            events: serving_events(events.clone()),
            timeouts: timeouts(&options.config),
        }));
    }
    let watchers = Watchers::default();
    let parts = DriverParts {
        storage: storage.clone(),
        sweeper,
        watchers: watchers.clone(),
        serving: serving.clone(),
        probes: Probes::new(&events, key.clone()),
        access: options.access.clone(),
        reruns: Reruns::new(options.referee, own_link(addr, &key), &events),
    };
    let driver = tokio::spawn(CoreDriver::new(core, parts).run(told));
    let service = CoordinatorService {
        key: key.clone(),
        driver: events.clone(),
        storage,
        watchers,
        serving: serving.clone(),
        next_session: AtomicU64::new(0),
        access: options.access,
    };
    let weak = events.downgrade();
    let (stop, stopped) = oneshot::channel();
    let tasks = ServerTasks { driver, events };
    let done = tokio::spawn(tasks.serve(listener, service, stopped));
    let key = key.public();
    tracing::info!(%addr, key = %key.short(), "coordinator listens");
    Ok(RunningServer {
        addr,
        key,
        stop,
        done,
        serving,
        blobs,
        driver: weak,
    })
}

/// How this process reaches its own coordinator.
fn own_link(addr: SocketAddr, key: &Keypair) -> OwnLink {
    let host = match addr.ip() {
        ip if !ip.is_unspecified() => ip,
        IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
    };
    let addr = SocketAddr::new(host, addr.port());
    OwnLink {
        url: Address::at(addr).of(key.public()).to_string(),
        key: key.clone(),
    }
}

/// Opens the store, and the blobs on a thread for files: what an earlier process left half written
/// is removed.
async fn open_storage(options: &ServerOptions) -> Result<Storage, ServerError> {
    let store = Store::open(&options.data_dir).await?;
    let folder = options.data_dir.join("blobs");
    let open = tokio::task::spawn_blocking(move || BlobStore::open(&folder));
    let blobs = open.await;
    let blobs = blobs.map_err(|why| ServerError::Panicked(why.to_string()))??;
    Ok(Storage {
        store: Arc::new(store),
        blobs: Arc::new(blobs),
    })
}

fn timeouts(config: &Config) -> ServingTimeouts {
    ServingTimeouts {
        stall: Duration::from_micros(config.serving_stall_us),
        load: Duration::from_micros(config.stall_us),
        patience: Duration::from_micros(config.serving_patience_us),
    }
}

/// A channel for what the tasks that serve notice. Another task passes it on to the driver.
fn serving_events(driver: mpsc::Sender<DriverEvent>) -> mpsc::Sender<ServingEvent> {
    let (events, mut noticed) = mpsc::channel(EVENTS_MAX);
    tokio::spawn(async move {
        while let Some(event) = noticed.recv().await {
            let event = DriverEvent::Core(CoreEvent::Serving(event));
            if driver.send(event).await.is_err() {
                return;
            }
        }
    });
    events
}

fn fresh_secrets() -> Result<Secrets, ServerError> {
    let mut secrets = [[0; 32]; 2];
    for secret in &mut secrets {
        getrandom::fill(secret).map_err(|why| ServerError::Random(why.to_string()))?;
    }
    let [key, nonce] = secrets;
    Ok(Secrets { key, nonce })
}

/// The task that owns the core, and the way to it.
struct ServerTasks {
    driver: JoinHandle<Result<(), ServerError>>,
    events: mpsc::Sender<DriverEvent>,
}

impl ServerTasks {
    /// Serves until told to stop, or until the driver ends because it can persist nothing any more.
    async fn serve(
        mut self,
        listener: TcpListener,
        service: CoordinatorService,
        stopped: oneshot::Receiver<()>,
    ) -> Result<(), ServerError> {
        let (end, ending) = oneshot::channel::<()>();
        let key = service.key.clone();
        let service = CoordinatorServer::new(service)
            .max_decoding_message_size(FRAMED_BYTES_MAX)
            .max_encoding_message_size(FRAMED_BYTES_MAX);
        let server = tonic::transport::Server::builder()
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .add_service(service)
            .serve_with_incoming_shutdown(accept(listener, &key), async {
                // Dropped or sent: either way it is the end.
                let _ = ending.await;
            });
        let mut server = tokio::spawn(server);
        let outcome = tokio::select! {
            _ = stopped => {
                // A driver that has ended has said why in its result.
                let _ = self.events.send(DriverEvent::Stop).await;
                ended(self.driver.await)
            }
            result = &mut self.driver => ended(result),
            result = &mut server => {
                self.driver.abort();
                let why = result.map(|r| r.map_err(|why| why.to_string()));
                Err(ServerError::Serve(format!("{why:?}")))
            }
        };
        drop(end);
        if !server.is_finished()
            && tokio::time::timeout(SHUTDOWN_MAX, &mut server)
                .await
                .is_err()
        {
            server.abort();
        }
        outcome
    }
}
