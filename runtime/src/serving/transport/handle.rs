//! The engine of a worker that serves, as its tasks see it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use concord_proto::Keypair;
use concord_proto::serving::{FromStage, PassHeader};
use concord_proto::wire::Frame;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tonic::{Status, Streaming};

use super::frame::{self, FrameError, FrameReader};
use crate::RuntimeError;
use crate::faults::Faults;
use crate::serving::stage::{
    ReceivedPass, ServedStages, ServingEngine, StageBinding, StageEvent, StageEventKind,
    on_a_thread,
};

/// Events that may wait for the engine: passes in flight, their draws, and orders about sequences
/// that have ended.
const EVENTS_MAX: usize = 256;
/// KiB of passes that may wait for the engine; one that is larger takes it all.
const WAITING_KIB: u32 = 256 << 10;
/// From so many bytes on a pass is checked on a thread of its own.
const LARGE_PASS: usize = 1 << 20;

/// The binding that passes come to.
#[derive(Clone)]
pub(crate) struct CurrentBinding {
    pub(crate) binding: Arc<StageBinding>,
    /// To the coordinator. Weak, so that it holds no stage stream open: the stage before may go on
    /// sending to a binding that is no more.
    pub(crate) up: mpsc::WeakSender<FromStage>,
}

/// How tasks reach the engine. It outlives sessions.
#[derive(Clone)]
pub(crate) struct StageHandle {
    pub(crate) events: mpsc::Sender<StageEvent>,
    pub(crate) loaded: ServedStages,
    current: Arc<Mutex<Option<CurrentBinding>>>,
    incarnations: Arc<AtomicU64>,
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
        faults: Faults,
    ) -> Result<(Self, mpsc::Receiver<RuntimeError>), RuntimeError> {
        let (events, inbox) = mpsc::channel(EVENTS_MAX);
        let (gpu_gone, gpu_losses) = mpsc::channel(1);
        let engine = ServingEngine::new(key, device_name, gpu_gone.clone(), faults);
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
            loaded: ServedStages::default(),
            current: Arc::default(),
            incarnations: Arc::default(),
            waiting: Arc::new(Semaphore::new(WAITING_KIB as usize)),
            gpu_gone,
        };
        Ok((handle, gpu_losses))
    }

    fn lock(&self) -> MutexGuard<'_, Option<CurrentBinding>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The number of the next binding.
    pub(crate) fn next_incarnation(&self) -> u64 {
        1 + self.incarnations.fetch_add(1, Ordering::Relaxed)
    }

    /// Passes come to this binding from now on.
    pub(crate) fn bind(&self, current: CurrentBinding) {
        *self.lock() = Some(current);
    }

    /// Undoes the binding, if it is that of `incarnation`; with none, any.
    pub(crate) fn unbind(&self, incarnation: Option<u64>) {
        let is_it = |current: &mut CurrentBinding| {
            incarnation.is_none_or(|incarnation| incarnation == current.binding.incarnation)
        };
        if let Some(current) = self.lock().take_if(is_it) {
            let (incarnation, kind) = (current.binding.incarnation, StageEventKind::Unbind);
            // Where there is no room, the engine finds out when it next sends something.
            let _ = self.events.try_send(StageEvent { incarnation, kind });
        }
    }

    /// Tells the engine.
    ///
    /// # Errors
    /// [`RuntimeError::EngineStopped`].
    pub(crate) async fn send(
        &self,
        incarnation: u64,
        kind: StageEventKind,
    ) -> Result<(), RuntimeError> {
        let sent = self.events.send(StageEvent { incarnation, kind }).await;
        sent.map_err(|_| RuntimeError::EngineStopped)
    }

    /// Tells the session that the GPU cannot go on.
    pub(crate) async fn gpu_is_gone(&self, error: RuntimeError) {
        let _ = self.gpu_gone.send(error).await;
    }

    /// Takes passes in from the stage before.
    ///
    /// # Errors
    /// A status for a sender of what this stage does not take.
    pub(crate) async fn receive(&self, mut pieces: Streaming<Frame>) -> Result<(), Status> {
        let Some(mut piece) = pieces.message().await? else {
            return Ok(());
        };
        // The stage before may connect before this one is loaded, but it sends only afterwards: so
        // the binding is looked up with the first piece.
        let current = self.lock().clone();
        let current =
            current.ok_or_else(|| Status::failed_precondition("no stage is held here"))?;
        let mut reader = FrameReader::new(&current.binding);
        loop {
            let arrived = Instant::now();
            let whole = reader.take(piece);
            if let Some((header, bytes)) = self.told(&current, whole).await? {
                let permit = self.permit(bytes.len()).await?;
                let checked = checked(&current, header, bytes).await?;
                let received = Box::new(self.told(&current, checked).await?);
                let event = StageEventKind::Pass(received, arrived, permit);
                let sent = self.send(current.binding.incarnation, event).await;
                sent.map_err(|error| Status::unavailable(error.to_string()))?;
            }
            match pieces.message().await? {
                Some(next) => piece = next,
                None => return Ok(()),
            }
        }
    }

    /// Room for a pass of so many bytes to wait for the engine.
    async fn permit(&self, bytes: usize) -> Result<OwnedSemaphorePermit, Status> {
        let kib = u32::try_from(bytes >> 10).unwrap_or(u32::MAX);
        let kib = kib.clamp(1, WAITING_KIB);
        let permit = self.waiting.clone().acquire_many_owned(kib).await;
        permit.map_err(|error| Status::unavailable(error.to_string()))
    }

    /// Refuses what is wrong; the coordinator is told where the stage before is to blame.
    async fn told<T>(
        &self,
        current: &CurrentBinding,
        read: Result<T, FrameError>,
    ) -> Result<T, Status> {
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
    current: &CurrentBinding,
    header: PassHeader,
    bytes: Vec<u8>,
) -> Result<Result<ReceivedPass, FrameError>, Status> {
    let columns = current.binding.entering;
    if bytes.len() < LARGE_PASS {
        return Ok(frame::check(header, &bytes, columns));
    }
    let checked = on_a_thread(move || frame::check(header, &bytes, columns)).await;
    checked.map_err(|error| Status::internal(error.to_string()))
}
