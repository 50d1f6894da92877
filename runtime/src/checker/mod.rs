//! The checker: fetches the inputs of a leaf by digest, computes it again, compares. It judges
//! answers that were served in the same way.

mod auditor;
mod queue;
mod recomputer;
mod secrets;
#[cfg(test)]
mod stalling_tests;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use concord_kernels::Device;
use concord_proto::address::Address;
use concord_proto::session::{Hello, Role, ToCoordinator, ToWorker};
use concord_proto::{ARITHMETIC_VERSION, Keypair, PROTOCOL_VERSION, PublicKey, WorkerId};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::blobs::{BlobOptions, Blobs};
use crate::faults::Faults;
use crate::heads::Heads;
use crate::identity::{BLOBS, Home};
use crate::session::{self, Session};
use crate::{Backoff, RuntimeError, measure};

pub(crate) use auditor::Auditor;
pub(crate) use queue::AuditQueue;
pub(crate) use recomputer::Recomputer;
use secrets::AuditorSecrets;

/// How a checker runs.
#[derive(Clone, Debug)]
pub struct CheckerOptions {
    /// The coordinator, such as "concord://127.0.0.1:7700".
    pub coordinator: String,
    /// Key and fetched blobs.
    pub dir: PathBuf,
    /// Which blobs stay on disk, and where others are found.
    pub blobs: BlobOptions,
    /// Where it computes.
    pub device: Device,
    /// Whether it re-runs only what its own secrets draw, of jobs that name its key.
    pub is_auditor: bool,
    /// Bytes of weights that may stay loaded from one leaf to the next.
    pub kept_bytes: u64,
    /// How it cheats, in tests; not at all by default.
    pub faults: Faults,
}

/// A checker that never had a session gives up after this.
const FIRST_SESSION_MAX: Duration = Duration::from_secs(10);
/// Orders that have been read and not been answered yet.
const ORDERS_READ: usize = 256;

/// Runs a checker until it is refused or `leave` is told. `started` is told its key.
///
/// # Errors
/// [`RuntimeError`] where the coordinator refuses or cannot be reached at all.
pub async fn run(
    options: CheckerOptions,
    mut leave: mpsc::Receiver<()>,
    started: impl FnOnce(&WorkerId),
) -> Result<(), RuntimeError> {
    let home = Home::open(&options.dir)?;
    started(&home.key.public());
    let hello = Hello {
        role: match options.is_auditor {
            true => Role::Auditor,
            false => Role::Checker,
        },
        protocol: PROTOCOL_VERSION,
        arithmetic: ARITHMETIC_VERSION,
        device: measure::device_info(&options.device, measure::device_memory(&options.device))?,
        endpoint: String::new(),
        held: None,
        challenge: [0; 32],
    };
    let queue = AuditQueue::new(options.kept_bytes);
    let secrets = AuditorSecrets::new(&options.dir);
    let heads = Heads::new(&options.dir);
    let mut backoff = Backoff::for_coordinator();
    let started = Instant::now();
    let (mut had_session, mut warned) = (false, false);
    loop {
        let opened = tokio::select! {
            opened = open(&options, &home.key, &hello, queue.clone()) => opened,
            _ = leave.recv() => return Ok(()),
        };
        match opened {
            Ok((mut session, auditor)) => {
                (had_session, warned) = (true, false);
                let since = Instant::now();
                let own = (&home.key, &secrets, &heads);
                if serve(&mut session, &auditor, own, &mut leave).await? {
                    return Ok(());
                }
                tracing::warn!("lost the coordinator");
                backoff.after(since.elapsed());
            }
            Err(error) if error.is_refusal() => return Err(error),
            Err(error) if !had_session && started.elapsed() >= FIRST_SESSION_MAX => {
                return Err(error.no_coordinator(&options.coordinator));
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
    }
}

async fn open(
    options: &CheckerOptions,
    key: &Keypair,
    hello: &Hello,
    queue: AuditQueue,
) -> Result<(Session, Arc<Auditor>), RuntimeError> {
    let address = Address::parse(&options.coordinator)?;
    let channel = session::connect(&options.coordinator, key).await?;
    let blobs = Blobs::new(channel.clone(), options.dir.join(BLOBS), &options.blobs)?;
    let auditor = Auditor::new(
        options.device.clone(),
        blobs,
        key.clone(),
        queue,
        options.faults.clone(),
    );
    let session = Session::open((channel, &address), key.clone(), hello.clone()).await?;
    Ok((session, Arc::new(auditor)))
}

/// Serves until the session ends; true where the checker has left for good.
///
/// # Errors
/// [`RuntimeError::Kernel`] where a GPU fails: what was asked last has been answered.
async fn serve(
    session: &mut Session,
    auditor: &Arc<Auditor>,
    own: (&Keypair, &AuditorSecrets, &Heads),
    leave: &mut mpsc::Receiver<()>,
) -> Result<bool, RuntimeError> {
    let (outbound, mut messages) = mpsc::channel(64);
    // Orders of a session that is over are dropped: nobody waits for their answers.
    let mut orders = JoinSet::new();
    let mut heartbeat = tokio::time::interval(session.heartbeat);
    loop {
        let goes_on = tokio::select! {
            // More are read than the queue takes, and these are refused; beyond that the
            // coordinator waits.
            message = session.receive(), if orders.len() < ORDERS_READ => match message {
                Some(ToWorker::Audit(order)) => {
                    let (auditor, outbound) = (auditor.clone(), outbound.clone());
                    orders.spawn(async move {
                        let _ = outbound.send(auditor.audit_leaf(*order).await).await;
                    });
                    true
                }
                Some(ToWorker::AuditAnswer(order)) => {
                    let (auditor, outbound) = (auditor.clone(), outbound.clone());
                    let coordinator = session.coordinator();
                    orders.spawn(async move {
                        let verdict = auditor.audit_answer(order, coordinator).await;
                        let _ = outbound.send(verdict).await;
                    });
                    true
                }
                Some(
                    message @ (ToWorker::Enrol(_)
                    | ToWorker::Reveal { .. }
                    | ToWorker::Forget { .. }),
                ) => {
                    let answer = answer(session.coordinator(), own, message);
                    say(session, answer).await
                }
                Some(ToWorker::Leave) => return Ok(true),
                Some(message) => {
                    ignore(&message);
                    true
                }
                None => return Ok(false),
            },
            Some(message) = messages.recv() => {
                if let ToCoordinator::Verdict { verdict, .. } = &message {
                    own.2.said(session.coordinator(), verdict);
                }
                let sent = session.send(&message).await;
                if let Some(error) = auditor.gpu_gone() {
                    return Err(error);
                }
                sent
            }
            Some(_) = orders.join_next() => true,
            _ = heartbeat.tick() => session.send(&ToCoordinator::Heartbeat).await,
            _ = leave.recv() => return Ok(true),
        };
        if !goes_on {
            return Ok(false);
        }
    }
}

/// What is said to a coordinator that asks for secrets. Its head is kept, of jobs alone that there
/// are secrets for.
///
/// # Errors
/// As [`AuditorSecrets::answer`].
fn answer(
    coordinator: PublicKey,
    (key, secrets, heads): (&Keypair, &AuditorSecrets, &Heads),
    message: ToWorker,
) -> Result<Vec<ToCoordinator>, RuntimeError> {
    let shown = match &message {
        ToWorker::Reveal { job, committed } => Some((*job, committed.clone())),
        _ => None,
    };
    if matches!(message, ToWorker::Forget { .. }) {
        // The job is over.
        heads.flush();
    }
    let answer = secrets.answer(key, coordinator, message)?;
    if let Some((job, committed)) = shown {
        heads.saw(coordinator, job, &committed);
    }
    Ok(answer)
}

/// Answers, or says why there is no answer. False where the session is over.
async fn say(session: &Session, answer: Result<Vec<ToCoordinator>, RuntimeError>) -> bool {
    match answer {
        Ok(messages) => {
            for message in messages {
                if !session.send(&message).await {
                    return false;
                }
            }
            true
        }
        Err(error) => {
            tracing::warn!("{error}");
            true
        }
    }
}

/// Notes a message that is not for a checker.
fn ignore(message: &ToWorker) {
    match message {
        ToWorker::Audit(_) | ToWorker::AuditAnswer(_) | ToWorker::Leave => {}
        ToWorker::Challenge { .. }
        | ToWorker::Welcome { .. }
        | ToWorker::Refused { .. }
        | ToWorker::Assign(_)
        | ToWorker::Step { .. }
        | ToWorker::Scalars { .. }
        | ToWorker::Commit { .. }
        | ToWorker::Audited(_)
        | ToWorker::Enrol(_)
        | ToWorker::Reveal { .. }
        | ToWorker::Abort { .. }
        | ToWorker::Flush { .. }
        | ToWorker::Forget { .. }
        | ToWorker::Serve(_)
        | ToWorker::Unserve { .. }
        | ToWorker::Unreached { .. } => {
            tracing::debug!("the coordinator sent a message that is none for a checker");
        }
    }
}
