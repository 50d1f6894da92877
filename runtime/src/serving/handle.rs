//! The engine of a worker that serves, as its tasks see it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use concord_proto::Keypair;
use concord_proto::serving::{FromStage, PassHeader};
use concord_proto::wire::Frame;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tonic::{Status, Streaming};

use super::engine::{StageEngine, StageEvent, What};
use super::frame::{self, FrameError, FrameReader, ReceivedPass};
use super::load::{LoadedStages, on_a_thread};
use super::seat::Seat;
use crate::RuntimeError;

/// Events that may wait for the engine: passes in flight, their draws, and orders about sequences
/// that have ended.
const EVENTS_MAX: usize = 256;
/// KiB of passes that may wait for the engine; one that is larger takes it all.
const WAITING_KIB: u32 = 256 << 10;
/// From so many bytes on a pass is checked on a thread of its own.
const LARGE_PASS: usize = 1 << 20;

/// The seat that passes come to.
#[derive(Clone)]
pub(crate) struct Current {
    pub(crate) seat: Arc<Seat>,
    /// To the coordinator. It keeps no lane open: the stage before may go on sending to a seat that
    /// is no more.
    pub(crate) up: mpsc::WeakSender<FromStage>,
}

/// The way to the engine. It outlives sessions.
#[derive(Clone)]
pub(crate) struct StageHandle {
    pub(crate) events: mpsc::Sender<StageEvent>,
    pub(crate) loaded: LoadedStages,
    current: Arc<Mutex<Option<Current>>>,
    terms: Arc<AtomicU64>,
    waiting: Arc<Semaphore>,
    gpu_gone: mpsc::Sender<RuntimeError>,
}

impl StageHandle {
    /// Starts the engine. The receiver tells when the GPU cannot go on.
    ///
    /// # Errors
    /// [`RuntimeError::Io`] where the system gives no thread.
    pub(crate) fn start(
        key: Keypair,
        device_name: String,
        #[cfg(feature = "liars")] lie: Option<crate::liar::Lie>,
    ) -> Result<(Self, mpsc::Receiver<RuntimeError>), RuntimeError> {
        let (events, inbox) = mpsc::channel(EVENTS_MAX);
        let (gpu_gone, gpu_losses) = mpsc::channel(1);
        let engine = StageEngine {
            key,
            device_name,
            gpu_gone: gpu_gone.clone(),
            serving: None,
            #[cfg(feature = "liars")]
            lie,
        };
        std::thread::Builder::new()
            .name("stage".to_string())
            .spawn(move || engine.run(inbox))
            .map_err(|why| RuntimeError::Io {
                action: "start",
                path: "a thread".into(),
                why,
            })?;
        let handle = Self {
            events,
            loaded: LoadedStages::default(),
            current: Arc::default(),
            terms: Arc::default(),
            waiting: Arc::new(Semaphore::new(WAITING_KIB as usize)),
            gpu_gone,
        };
        Ok((handle, gpu_losses))
    }

    fn lock(&self) -> MutexGuard<'_, Option<Current>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The number of the next seat.
    pub(crate) fn next_term(&self) -> u64 {
        1 + self.terms.fetch_add(1, Ordering::Relaxed)
    }

    /// Passes come to this seat from now on.
    pub(crate) fn sit(&self, current: Current) {
        *self.lock() = Some(current);
    }

    /// There is no seat any more, if it is that of `term`; nothing means any.
    pub(crate) fn leave(&self, term: Option<u64>) {
        let of_it = |current: &mut Current| term.is_none_or(|term| term == current.seat.term);
        if let Some(current) = self.lock().take_if(of_it) {
            let (term, what) = (current.seat.term, What::Leave);
            // Where there is no room, the engine finds out when it next says something.
            let _ = self.events.try_send(StageEvent { term, what });
        }
    }

    /// Tells the engine.
    ///
    /// # Errors
    /// [`RuntimeError::EngineStopped`].
    pub(crate) async fn send(&self, term: u64, what: What) -> Result<(), RuntimeError> {
        let sent = self.events.send(StageEvent { term, what }).await;
        sent.map_err(|_| RuntimeError::EngineStopped)
    }

    /// Tells the session that the GPU cannot go on.
    pub(crate) async fn gpu_is_gone(&self, error: RuntimeError) {
        let _ = self.gpu_gone.send(error).await;
    }

    /// Takes passes in from the stage before.
    ///
    /// # Errors
    /// A status for whoever sends what this stage does not take.
    pub(crate) async fn receive(&self, mut pieces: Streaming<Frame>) -> Result<(), Status> {
        let Some(mut piece) = pieces.message().await? else {
            return Ok(());
        };
        // The stage before connects as soon as it is loaded; this one may not be, until it sends.
        let current = self.lock().clone();
        let current =
            current.ok_or_else(|| Status::failed_precondition("no stage is held here"))?;
        let mut reader = FrameReader::new(&current.seat);
        loop {
            let arrived = Instant::now();
            let whole = reader.take(piece);
            if let Some((header, bytes)) = self.told(&current, whole).await? {
                let permit = self.permit(bytes.len()).await?;
                let checked = checked(&current, header, bytes).await?;
                let received = Box::new(self.told(&current, checked).await?);
                let what = What::Frame(received, arrived, permit);
                let sent = self.send(current.seat.term, what).await;
                sent.map_err(|error| Status::unavailable(error.to_string()))?;
            }
            match pieces.message().await? {
                Some(next) => piece = next,
                None => return Ok(()),
            }
        }
    }

    /// Leave for a pass of so many bytes to wait.
    async fn permit(&self, bytes: usize) -> Result<OwnedSemaphorePermit, Status> {
        let kib = u32::try_from(bytes >> 10).unwrap_or(u32::MAX);
        let kib = kib.clamp(1, WAITING_KIB);
        let permit = self.waiting.clone().acquire_many_owned(kib).await;
        permit.map_err(|error| Status::unavailable(error.to_string()))
    }

    /// Refuses what is wrong; the coordinator is told where the stage before is to blame.
    async fn told<T>(&self, current: &Current, read: Result<T, FrameError>) -> Result<T, Status> {
        let error = match read {
            Ok(read) => return Ok(read),
            Err(error) => error,
        };
        tracing::warn!("a pass is refused: {error}");
        let reason = error.to_string();
        if let FrameError::Wrong(_) = error {
            if let Some(up) = current.up.upgrade() {
                let _ = up.send(FromStage::Refused { reason }).await;
            }
            return Err(Status::invalid_argument(error.to_string()));
        }
        Err(Status::permission_denied(reason))
    }
}

async fn checked(
    current: &Current,
    header: PassHeader,
    bytes: Vec<u8>,
) -> Result<Result<ReceivedPass, FrameError>, Status> {
    let hidden = current.seat.hidden;
    if bytes.len() < LARGE_PASS {
        return Ok(frame::check(header, &bytes, hidden));
    }
    let checked = on_a_thread(move || frame::check(header, &bytes, hidden)).await;
    checked.map_err(|error| Status::internal(error.to_string()))
}
