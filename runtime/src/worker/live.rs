//! A session of a worker: orders in, what the engine wants done out.

use std::sync::Arc;
use std::time::Duration;

use concord_proto::serving::AuditedAnswer;
use concord_proto::session::{Assignment, ToCoordinator, ToWorker};
use concord_proto::{JobId, Plan};
use tokio::sync::{Mutex, mpsc};

use super::assignment;
use super::driver::{Driver, EFFECTS_MAX};
use super::peers::{Loss, Peers};
use crate::RuntimeError;
use crate::blobs::Blobs;
use crate::checker::{Auditor, Bench};
use crate::data::DataSource;
use crate::engine::{EngineEffect, EngineEvent};
use crate::serving::{Context, Host, Loader};
use crate::session::Session;

/// How long the answer to a last report is waited for.
const LAST_WORD: Duration = Duration::from_millis(500);

/// How a session ended.
pub(super) enum End {
    /// The worker has left for good.
    Left,
    /// The coordinator is gone; it may come back.
    Lost,
    /// The engine is gone: a bug. The log has its last words.
    EngineStopped,
    /// The GPU cannot go on.
    GpuGone(RuntimeError),
}

impl End {
    /// A session that is over: as wished, where the worker was about to leave.
    fn of_session(leaving: bool) -> Self {
        if leaving { Self::Left } else { Self::Lost }
    }
}

/// The plan in effect, and where its workers are reached, in its order.
struct Planned {
    plan: Plan,
    endpoints: Vec<String>,
}

/// A worker in a session.
pub(super) struct Live<'a> {
    driver: &'a Driver,
    session: Session,
    blobs: Blobs,
    auditor: Arc<Auditor>,
    host: Host,
    peers: Peers,
    data: Arc<Mutex<Option<(JobId, DataSource)>>>,
    loading: Option<tokio::task::JoinHandle<()>>,
    plan: Option<Planned>,
    said: mpsc::Sender<ToCoordinator>,
    sayings: mpsc::Receiver<ToCoordinator>,
    lost: mpsc::Sender<Loss>,
    losses: mpsc::Receiver<Loss>,
    /// From tasks that found that the GPU cannot go on.
    gpu_gone: mpsc::Sender<RuntimeError>,
    gpu_losses: mpsc::Receiver<RuntimeError>,
}

impl<'a> Live<'a> {
    pub(super) fn new(driver: &'a Driver, session: Session, blobs: Blobs) -> Self {
        let (said, sayings) = mpsc::channel(EFFECTS_MAX);
        let (lost, losses) = mpsc::channel(EFFECTS_MAX);
        let (gpu_gone, gpu_losses) = mpsc::channel(1);
        let host = host(driver, blobs.clone(), said.clone());
        // A leaf is re-run beside the engine, not behind it.
        let auditor = Auditor::new(
            driver.options.device.with_own_threads(),
            blobs.clone(),
            driver.key.clone(),
            // Nothing stays loaded: it is asked seldom, and its memory is planned for its stage.
            Bench::new(0),
        );
        Self {
            driver,
            session,
            blobs,
            auditor: Arc::new(auditor),
            host,
            peers: Peers::default(),
            data: Arc::default(),
            loading: None,
            plan: None,
            said,
            sayings,
            lost,
            losses,
            gpu_gone,
            gpu_losses,
        }
    }

    /// Serves until the session ends.
    pub(super) async fn serve(
        &mut self,
        outbox: &mut mpsc::Receiver<EngineEffect>,
        stage_losses: &mut mpsc::Receiver<RuntimeError>,
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
                    Some(EngineEffect::GpuGone(error)) => return self.last_word(error).await,
                    Some(effect) => self.effect(effect).await,
                    None => return End::EngineStopped,
                },
                error = stage_losses.recv() => {
                    let Some(error) = error else { return End::EngineStopped };
                    // The next plan must not count on this worker while it takes its leave.
                    self.session.send(&ToCoordinator::Drain).await;
                    return self.last_word(error).await;
                }
                Some(error) = self.gpu_losses.recv() => return self.last_word(error).await,
                Some(message) = self.sayings.recv() => self.session.send(&message).await,
                Some(loss) = self.losses.recv() => match self.about_loss(loss) {
                    Some(message) => self.session.send(&message).await,
                    None => true,
                },
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

    /// Lets the report that the GPU is gone out before the session ends: the answer tells that it
    /// has arrived.
    async fn last_word(&mut self, error: RuntimeError) -> End {
        let _ = tokio::time::timeout(LAST_WORD, self.session.receive()).await;
        End::GpuGone(error)
    }

    /// What the coordinator is told where tensors do not get to a neighbour.
    fn about_loss(&self, loss: Loss) -> Option<ToCoordinator> {
        let Loss {
            epoch,
            endpoint,
            why,
            is_unreached,
        } = loss;
        // A neighbour that an older plan had may well be gone.
        let current = self.plan.as_ref().filter(|p| p.plan.epoch == epoch);
        let Planned { plan, endpoints } = current?;
        let mut seats = plan.workers().zip(endpoints);
        let job = plan.job;
        Some(match seats.find(|(_, at)| **at == endpoint) {
            Some(((_, worker), _)) if is_unreached => ToCoordinator::Unreached {
                job,
                epoch,
                worker,
                reason: why,
            },
            _ => ToCoordinator::Failed {
                job,
                epoch,
                reason: format!("the worker at {endpoint} takes no more tensors: {why}"),
                permanent: false,
            },
        })
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
                let gpu_gone = self.gpu_gone.clone();
                tokio::spawn(async move {
                    let message = auditor.clone().answer(*order).await;
                    let _ = said.send(message).await;
                    if let Some(error) = auditor.gpu_gone() {
                        let _ = gpu_gone.send(error).await;
                    }
                });
            }
            ToWorker::AuditAnswer(order) => self.judge(order),
            ToWorker::Serve(assignment) => self.host.serve(*assignment),
            ToWorker::Unserve { deployment } => self.host.unserve(deployment),
            ToWorker::Unreached { reason } => self.warn_unreached(&reason),
            ToWorker::Challenge { .. }
            | ToWorker::Welcome { .. }
            | ToWorker::Refused { .. }
            | ToWorker::Leave => {}
        }
        true
    }

    fn warn_unreached(&self, reason: &str) {
        let endpoint = &self.driver.hello.endpoint;
        tracing::warn!(
            "others cannot reach this worker at {endpoint}: {reason}. Give --listen and \
             --advertise an address that they reach"
        );
    }

    /// Computes an answer again, beside the engine.
    fn judge(&self, order: AuditedAnswer) {
        let (auditor, said) = (self.auditor.clone(), self.said.clone());
        let gpu_gone = self.gpu_gone.clone();
        let coordinator = self.session.coordinator();
        tokio::spawn(async move {
            let message = auditor.clone().judge(order, coordinator).await;
            let _ = said.send(message).await;
            if let Some(error) = auditor.gpu_gone() {
                let _ = gpu_gone.send(error).await;
            }
        });
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
        self.plan = Some(Planned {
            plan: assignment.plan.clone(),
            endpoints: assignment.endpoints.clone(),
        });
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
                    let _ = said.send(failed(job, epoch, &error)).await;
                }
            }
        }));
    }

    /// Fetches the microbatches of a step, then starts it.
    fn step(&mut self, job: JobId, epoch: u32, step: u32) {
        let Some(plan) = self
            .plan
            .as_ref()
            .map(|planned| &planned.plan)
            .filter(|p| (p.job, p.epoch) == (job, epoch))
        else {
            return;
        };
        let Some(seat) = plan.slot(&self.driver.key.public()) else {
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
                        let _ = said.send(failed(job, epoch, &error)).await;
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
            EngineEffect::GpuGone(_) => false,
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
                let gpu_gone = self.gpu_gone.clone();
                tokio::spawn(async move {
                    let Err(error) = blobs.put_all(tensors).await else {
                        let _ = said.send(then).await;
                        return;
                    };
                    // A state is stored between two plans, too: it names its own, not the present.
                    let failed = ToCoordinator::Failed {
                        job,
                        epoch,
                        reason: format!("the state cannot be stored: {error}"),
                        permanent: false,
                    };
                    let _ = said.send(failed).await;
                    if error.gpu_is_gone() {
                        let _ = gpu_gone.send(error).await;
                    }
                });
                true
            }
        }
    }
}

/// The part of a worker that serves.
fn host(driver: &Driver, blobs: Blobs, said: mpsc::Sender<ToCoordinator>) -> Host {
    let options = &driver.options;
    let loader = Loader {
        blobs,
        device: driver.stage_device.clone(),
        memory_bytes: options.memory_bytes,
        loaded: driver.stage.loaded.clone(),
        #[cfg(feature = "liars")]
        lie: options.lie.clone(),
    };
    Host::new(Context {
        handle: driver.stage.clone(),
        loader,
        key: driver.key.clone(),
        coordinator: options.coordinator.clone(),
        said,
    })
}

/// What is said of a plan that cannot be served.
fn failed(job: JobId, epoch: u32, error: &RuntimeError) -> ToCoordinator {
    ToCoordinator::Failed {
        job,
        epoch,
        reason: error.to_string(),
        permanent: error.is_of_job(),
    }
}
