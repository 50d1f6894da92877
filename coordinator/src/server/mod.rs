//! The coordinator as a gRPC server: one task owns the core, all others talk to it.

mod accept;
mod driver;
mod error;
mod probe;
mod service;
mod session;
mod sweeper;
mod watch;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use concord_proto::limits::MESSAGE_BYTES_MAX;
use concord_proto::serving::ServedModel;
use concord_proto::wire::coordinator_server::CoordinatorServer;
use concord_proto::{Keypair, PublicKey};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use crate::blobs::Blobs;
use crate::core::{Config, Core, Event};
use crate::serving::{Hub, Parts, Serving};
use crate::store::{Secrets, Store};
use accept::accept;
use driver::{Driver, Input};
use probe::Probes;
use service::Service;
use sweeper::Sweeper;
use watch::Watchers;

pub use error::ServerError;

/// A frame of protobuf around the longest canonical message.
const FRAMED_BYTES_MAX: usize = MESSAGE_BYTES_MAX + 4_096;

/// Inputs that wait for the core: beyond that, senders wait.
const INPUTS_MAX: usize = 1_024;

/// HTTP/2 windows that keep a link of 1 Gbit/s and 50 ms full.
const STREAM_WINDOW: u32 = 4 << 20;
const CONNECTION_WINDOW: u32 = 16 << 20;

/// How long open streams may take to end at a shutdown.
const SHUTDOWN_MAX: Duration = Duration::from_secs(3);

/// How a coordinator is run.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where to listen. Port 0 takes a free one.
    pub listen: SocketAddr,
    /// Where state and blobs are kept.
    pub data_dir: PathBuf,
    /// Settings of the core.
    pub config: Config,
    /// A model to serve, of which all blobs are in the store or will be before a worker joins. A
    /// coordinator that serves takes on no training jobs.
    pub serve: Option<ServedModel>,
}

/// A coordinator that runs in this process.
pub struct RunningServer {
    /// Where it listens.
    pub addr: SocketAddr,
    /// Its public key.
    pub key: PublicKey,
    stop: oneshot::Sender<()>,
    done: JoinHandle<Result<(), ServerError>>,
    serving: Option<Serving>,
    blobs: Arc<Blobs>,
    /// The driver ends with its inputs: this does not keep them open.
    inputs: mpsc::WeakSender<Input>,
}

impl RunningServer {
    /// Its store of blobs, for whoever runs it.
    pub fn blobs(&self) -> &Blobs {
        &self.blobs
    }

    /// Where workers and clients reach it, such as "http://127.0.0.1:7700".
    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// What is served, if anything is.
    pub fn serving(&self) -> Option<Serving> {
        self.serving.clone()
    }

    /// To be told before its members are ended on purpose, and it after them: that they go is no loss
    /// then. Nobody is warned, and no new plan is made.
    pub fn part(&self) {
        if let Some(serving) = &self.serving {
            serving.hub().part();
        }
        if let Some(inputs) = self.inputs.upgrade() {
            // One that has ended misses nobody; one that waits for a full disk is not waited for.
            let _ = inputs.try_send(Input::Parting);
        }
    }

    /// Ends all sessions and waits until everything is kept.
    ///
    /// # Errors
    /// [`ServerError`], where it had ended on its own before.
    pub async fn shutdown(self) -> Result<(), ServerError> {
        // If it has ended already, nobody listens; the result says why.
        if let Some(serving) = &self.serving {
            serving.hub().stop().await;
        }
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

/// Starts a coordinator, with everything that an earlier one in the same folder has kept.
///
/// # Errors
/// [`ServerError`]: the port or the folder is in use, or the store cannot be read.
pub async fn start(options: Options) -> Result<RunningServer, ServerError> {
    let listen = options.listen;
    let store = Store::open(&options.data_dir).await?;
    let blobs = open_blobs(options.data_dir.join("blobs")).await?;
    let listener = TcpListener::bind(listen)
        .await
        .map_err(|why| ServerError::listen(listen, why))?;
    let failed = |why| ServerError::listen(listen, why);
    let addr = listener.local_addr().map_err(failed)?;
    let secrets = store.secrets(fresh_secrets()?).await?;
    let key = Keypair::from_secret(secrets.key);
    let kept = store.load(&blobs).await?;
    let (store, blobs) = (Arc::new(store), Arc::new(blobs));
    let sweeper = Sweeper::new(&kept, blobs.clone()).await;
    let mut core = Core::restore(options.config, key.clone(), secrets.nonce, kept);
    let watchers = Watchers::default();
    let (inputs, waiting) = mpsc::channel(INPUTS_MAX);
    let mut hub = None;
    if let Some(served) = options.serve {
        if core.has_job() {
            return Err(ServerError::Trains(options.data_dir));
        }
        core = core.serving(served.clone());
        let parts = (store.clone(), blobs.clone());
        let secrets = (key.clone(), core.audit_nonce());
        hub = Some(start_hub(
            served,
            parts,
            secrets,
            options.config,
            inputs.clone(),
        ));
    }
    let serving = hub.clone().map(Serving::new);
    let (state, watched) = (watchers.clone(), hub.clone());
    let probes = Probes::new(&inputs);
    let kept = (store.clone(), blobs.clone(), sweeper);
    let driver = Driver::new(core, kept, state, watched, probes);
    let (shown, told) = (blobs.clone(), inputs.downgrade());
    let service = Service::new(key.clone(), inputs.clone(), store, blobs, watchers, hub);
    let (stop, stopped) = oneshot::channel();
    let driver = tokio::spawn(driver.run(waiting));
    let done = tokio::spawn(serve(listener, service, driver, inputs, stopped));
    let key = key.public();
    tracing::info!(%addr, key = %key.short(), "coordinator listens");
    Ok(RunningServer {
        addr,
        key,
        stop,
        done,
        serving,
        blobs: shown,
        inputs: told,
    })
}

/// Opens the store of blobs on a thread for files: what an earlier process left half written goes.
async fn open_blobs(folder: PathBuf) -> Result<Blobs, ServerError> {
    let open = tokio::task::spawn_blocking(move || Blobs::open(&folder));
    let opened = open.await;
    let blobs = opened.map_err(|why| ServerError::Panicked(why.to_string()))?;
    Ok(blobs?)
}

/// Starts the tasks that serve, and one that tells the core what they notice.
fn start_hub(
    served: ServedModel,
    (store, blobs): (Arc<Store>, Arc<Blobs>),
    (key, nonce): (Keypair, [u8; 32]),
    config: Config,
    inputs: mpsc::Sender<Input>,
) -> Arc<Hub> {
    let (events, mut noticed) = mpsc::channel(INPUTS_MAX);
    tokio::spawn(async move {
        while let Some(event) = noticed.recv().await {
            if inputs
                .send(Input::Event(Event::Serving(event)))
                .await
                .is_err()
            {
                return;
            }
        }
    });
    Hub::start(Parts {
        served,
        key,
        nonce,
        store,
        blobs,
        events,
        stall: Duration::from_micros(config.serving_stall_us),
        patience: Duration::from_micros(config.serving_patience_us),
        load: Duration::from_micros(config.stall_us),
    })
}

fn fresh_secrets() -> Result<Secrets, ServerError> {
    let mut secrets = [[0; 32]; 2];
    for secret in &mut secrets {
        getrandom::fill(secret).map_err(|why| ServerError::Random(why.to_string()))?;
    }
    let [key, nonce] = secrets;
    Ok(Secrets { key, nonce })
}

/// Serves until told to stop, or until the driver ends because it can keep nothing any more.
async fn serve(
    listener: TcpListener,
    service: Service,
    mut driver: JoinHandle<Result<(), ServerError>>,
    inputs: mpsc::Sender<Input>,
    stopped: oneshot::Receiver<()>,
) -> Result<(), ServerError> {
    let (end, ending) = oneshot::channel::<()>();
    let service = CoordinatorServer::new(service)
        .max_decoding_message_size(FRAMED_BYTES_MAX)
        .max_encoding_message_size(FRAMED_BYTES_MAX);
    let server = tonic::transport::Server::builder()
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .add_service(service)
        .serve_with_incoming_shutdown(accept(listener), async {
            // Dropped or sent: either way it is the end.
            let _ = ending.await;
        });
    let mut server = tokio::spawn(server);
    let outcome = tokio::select! {
        _ = stopped => {
            // A driver that is gone has said why in its result.
            let _ = inputs.send(Input::Stop).await;
            ended(driver.await)
        }
        result = &mut driver => ended(result),
        result = &mut server => {
            driver.abort();
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
