//! A session of a worker: orders come in, effects of the engine go out.

use std::sync::Arc;
use std::time::Duration;

use concord_proto::serving::AuditedAnswer;
use concord_proto::session::{Assignment, AuditOrder, ToCoordinator, ToWorker};
use concord_proto::{JobId, Plan, Signed};
use tokio::sync::{Mutex, mpsc};

use super::context::{EFFECTS_MAX, WorkerContext};
use crate::RuntimeError;
use crate::blobs::Blobs;
use crate::checker::{AuditQueue, Auditor};
use crate::serving::stage::StageLoader;
use crate::serving::{Host, HostContext};
use crate::session::Session;
use crate::training::assignment;
use crate::training::data::DataSource;
use crate::training::engine::{EngineEffect, EngineEvent};
use crate::training::peers::{PeerLoss, Peers};

/// How long the answer to the last report is waited for.
const LAST_WORD: Duration = Duration::from_millis(500);

/// How a session ended.
pub(super) enum SessionEnd {
    /// The worker has left for good.
    Left,
    /// The coordinator is gone; it may come back.
    Lost,
    /// The engine has stopped: a bug. The log says where.
    EngineStopped,
    /// The GPU cannot go on.
    GpuGone(RuntimeError),
}

impl SessionEnd {
    /// The end of a session: as wished, if the worker was about to leave.
    fn of_session(leaving: bool) -> Self {
        if leaving { Self::Left } else { Self::Lost }
    }
}

/// The plan in effect, and where its workers are reached, in its order.
struct PlanInEffect {
    plan: Plan,
    endpoints: Vec<String>,
}

/// A worker in a session.
pub(super) struct WorkerSession<'a> {
    context: &'a WorkerContext,
    session: Session,
    blobs: Blobs,
    auditor: Arc<Auditor>,
    host: Host,
    peers: Peers,
    data: Arc<Mutex<Option<(JobId, DataSource)>>>,
    loading: Option<tokio::task::JoinHandle<()>>,
    plan: Option<PlanInEffect>,
    outbound: mpsc::Sender<ToCoordinator>,
    messages: mpsc::Receiver<ToCoordinator>,
    lost: mpsc::Sender<PeerLoss>,
    losses: mpsc::Receiver<PeerLoss>,
    /// From tasks that found that the GPU cannot go on.
    gpu_gone: mpsc::Sender<RuntimeError>,
    gpu_losses: mpsc::Receiver<RuntimeError>,
}

impl<'a> WorkerSession<'a> {
    pub(super) fn new(context: &'a WorkerContext, session: Session, blobs: Blobs) -> Self {
        let (outbound, messages) = mpsc::channel(EFFECTS_MAX);
        let (lost, losses) = mpsc::channel(EFFECTS_MAX);
        let (gpu_gone, gpu_losses) = mpsc::channel(1);
        let host = host(context, blobs.clone(), outbound.clone());
        // A leaf is audited beside the engine, not behind it.
        let auditor = Auditor::new(
            context.options.device.with_own_threads(),
            blobs.clone(),
            context.key.clone(),
            // Nothing stays loaded: it is asked seldom, and its memory is planned for its stage.
            AuditQueue::new(0),
            context.options.faults.clone(),
        );
        Self {
            context,
            session,
            blobs,
            auditor: Arc::new(auditor),
            host,
            peers: Peers::new(context.key.clone(), context.events.clone()),
            data: Arc::default(),
            loading: None,
            plan: None,
            outbound,
            messages,
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
    ) -> SessionEnd {
        let mut heartbeat = tokio::time::interval(self.session.heartbeat);
        let mut leaving = false;
        loop {
            let goes_on = tokio::select! {
                message = self.session.receive() => match message {
                    Some(ToWorker::Leave) => return SessionEnd::Left,
                    Some(message) => self.order(message).await,
                    None => return SessionEnd::of_session(leaving),
                },
                effect = outbox.recv() => match effect {
                    Some(EngineEffect::GpuGone(error)) => return self.last_word(error).await,
                    Some(effect) => self.effect(effect).await,
                    None => return SessionEnd::EngineStopped,
                },
                error = stage_losses.recv() => {
                    let Some(error) = error else { return SessionEnd::EngineStopped };
                    // The next plan must not count on this worker while it takes its leave.
                    self.session.send(&ToCoordinator::Drain).await;
                    return self.last_word(error).await;
                }
                Some(error) = self.gpu_losses.recv() => return self.last_word(error).await,
                Some(message) = self.messages.recv() => self.session.send(&message).await,
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
                return SessionEnd::of_session(leaving);
            }
        }
    }

    /// Lets the report that the GPU is gone out before the session ends: the answer tells that it
    /// has arrived.
    async fn last_word(&mut self, error: RuntimeError) -> SessionEnd {
        let _ = tokio::time::timeout(LAST_WORD, self.session.receive()).await;
        SessionEnd::GpuGone(error)
    }

    /// What the coordinator is told if tensors do not get to a neighbour.
    fn about_loss(&self, loss: PeerLoss) -> Option<ToCoordinator> {
        let PeerLoss {
            epoch,
            endpoint,
            why,
            is_unreached,
        } = loss;
        // A neighbour that an older plan had may well be gone.
        let current = self.plan.as_ref().filter(|p| p.plan.epoch == epoch);
        let PlanInEffect { plan, endpoints } = current?;
        let mut places = plan.workers().zip(endpoints);
        let job = plan.job;
        Some(match places.find(|(_, at)| **at == endpoint) {
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
                job,
                epoch,
                step,
                started,
            } => self.step(job, epoch, step, &started),
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
            ToWorker::Audited(audited) => self.engine(EngineEvent::Audited(audited)),
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
            ToWorker::Audit(order) => self.audit(*order),
            ToWorker::AuditAnswer(order) => self.audit_answer(order),
            ToWorker::Serve(assignment) => self.host.serve(*assignment),
            ToWorker::Unserve { deployment } => self.host.unserve(deployment),
            ToWorker::Unreached { reason } => self.warn_unreached(&reason),
            ToWorker::Challenge { .. }
            | ToWorker::Welcome { .. }
            | ToWorker::Refused { .. }
            | ToWorker::Enrol(_)
            | ToWorker::Reveal { .. }
            | ToWorker::Leave => {}
        }
        true
    }

    /// Re-runs a leaf, beside the engine.
    fn audit(&self, order: AuditOrder) {
        let (auditor, outbound) = (self.auditor.clone(), self.outbound.clone());
        let gpu_gone = self.gpu_gone.clone();
        tokio::spawn(async move {
            let message = auditor.clone().audit_leaf(order).await;
            let _ = outbound.send(message).await;
            if let Some(error) = auditor.gpu_gone() {
                let _ = gpu_gone.send(error).await;
            }
        });
    }

    fn warn_unreached(&self, reason: &str) {
        let endpoint = &self.context.hello.endpoint;
        tracing::warn!(
            "others cannot reach this worker at {endpoint}: {reason}. Give --listen and \
             --advertise an address that they reach"
        );
    }

    /// Computes an answer again, beside the engine.
    fn audit_answer(&self, order: AuditedAnswer) {
        let (auditor, outbound) = (self.auditor.clone(), self.outbound.clone());
        let gpu_gone = self.gpu_gone.clone();
        let coordinator = self.session.coordinator();
        tokio::spawn(async move {
            let message = auditor.clone().audit_answer(order, coordinator).await;
            let _ = outbound.send(message).await;
            if let Some(error) = auditor.gpu_gone() {
                let _ = gpu_gone.send(error).await;
            }
        });
    }

    fn engine(&self, event: EngineEvent) {
        if self.context.events.send(event).is_err() {
            tracing::error!("the engine is gone");
        }
    }

    fn load(&mut self, assignment: Assignment) {
        if let Some(loading) = self.loading.take() {
            loading.abort();
        }
        self.plan = Some(PlanInEffect {
            plan: assignment.plan.clone(),
            endpoints: assignment.endpoints.clone(),
        });
        let (job, epoch) = (assignment.plan.job, assignment.plan.epoch);
        let (blobs, events) = (self.blobs.clone(), self.context.events.clone());
        let (outbound, data) = (self.outbound.clone(), self.data.clone());
        let worker = self.context.key.public();
        self.loading = Some(tokio::spawn(async move {
            match assignment::fetch(&blobs, assignment, worker).await {
                Ok((loaded, source)) => {
                    *data.lock().await = Some((job, source));
                    let _ = events.send(EngineEvent::Load(Box::new(loaded)));
                }
                Err(error) => {
                    let _ = outbound.send(failed(job, epoch, &error)).await;
                }
            }
        }));
    }

    /// Fetches the microbatches of a step, then starts it.
    fn step(&mut self, job: JobId, epoch: u32, step: u32, started: &Signed) {
        let Some(plan) = self
            .plan
            .as_ref()
            .map(|planned| &planned.plan)
            .filter(|p| (p.job, p.epoch) == (job, epoch))
        else {
            return;
        };
        let Some(slot) = plan.slot(&self.context.key.public()) else {
            return;
        };
        let replica = &plan.replicas[slot.replica];
        let (witness, coordinator) = (&self.context.witness, self.session.coordinator());
        let at = match witness.started(coordinator, job, (epoch, step), started) {
            Ok(at) => at,
            Err(error) => {
                tracing::warn!("{error}");
                let _ = self.outbound.try_send(failed(job, epoch, &error));
                return;
            }
        };
        self.context.heads.saw(coordinator, job, started);
        let (start, end) = (replica.start, replica.end);
        let (blobs, events) = (self.blobs.clone(), self.context.events.clone());
        let (outbound, data) = (self.outbound.clone(), self.data.clone());
        tokio::spawn(async move {
            let mut data = data.lock().await;
            let Some((_, source)) = data.as_mut().filter(|(of, _)| *of == job) else {
                return;
            };
            let mut batches = Vec::new();
            for microbatch in source.run_of(step, start, end) {
                match source.microbatch(&blobs, step, microbatch).await {
                    Ok(batch) => batches.push((microbatch, batch)),
                    Err(error) => {
                        let _ = outbound.send(failed(job, epoch, &error)).await;
                        return;
                    }
                }
            }
            let _ = events.send(EngineEvent::Step {
                job,
                epoch,
                step,
                at,
                batches,
            });
        });
    }

    async fn report(&mut self, message: ToCoordinator) -> bool {
        let (faults, key) = (&self.context.options.faults, &self.context.key);
        match faults.before_reporting(key, &message) {
            Some(other) => self.session.send_signed(other).await,
            None => self.session.send(&message).await,
        }
    }

    async fn effect(&mut self, effect: EngineEffect) -> bool {
        match effect {
            EngineEffect::Report(message) => self.report(message).await,
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
                blobs: state,
                then,
            } => {
                let (blobs, outbound) = (self.blobs.clone(), self.outbound.clone());
                let gpu_gone = self.gpu_gone.clone();
                tokio::spawn(async move {
                    let Err(error) = blobs.put_all(state).await else {
                        let _ = outbound.send(then).await;
                        return;
                    };
                    // A state is stored between two plans, too: the epoch is that of its own plan,
                    // not of the present one.
                    let failed = ToCoordinator::Failed {
                        job,
                        epoch,
                        reason: format!("the state cannot be stored: {error}"),
                        permanent: false,
                    };
                    let _ = outbound.send(failed).await;
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
fn host(context: &WorkerContext, blobs: Blobs, outbound: mpsc::Sender<ToCoordinator>) -> Host {
    let options = &context.options;
    let loader = StageLoader {
        blobs,
        device: context.stage_device.clone(),
        memory_bytes: options.memory_bytes,
        loaded: context.stage.loaded.clone(),
        faults: options.faults.clone(),
    };
    Host::new(HostContext {
        handle: context.stage.clone(),
        loader,
        key: context.key.clone(),
        coordinator: options.coordinator.clone(),
        outbound,
    })
}

/// What the coordinator is told of a plan that cannot be carried out.
fn failed(job: JobId, epoch: u32, error: &RuntimeError) -> ToCoordinator {
    ToCoordinator::Failed {
        job,
        epoch,
        reason: error.to_string(),
        permanent: error.is_of_job(),
    }
}
