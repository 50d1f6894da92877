//! The checker: fetches the inputs of a leaf by digest, computes it again, compares.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use concord_kernels::{Device, Tensor};
use concord_models::decoder::Stage;
use concord_models::train::{StateTensor, TrainState};
use concord_proto::ledger::{Finding, Verdict};
use concord_proto::manifest::DataManifest;
use concord_proto::rules::leaf_words;
use concord_proto::session::{
    AuditOrder, Hello, OpenRequest, Opening, Role, Scalars, ToCoordinator, ToWorker,
};
use concord_proto::tree::Node;
use concord_proto::wire::Body;
use concord_proto::wire::worker_client::WorkerClient;
use concord_proto::{
    ARITHMETIC_VERSION, Digest, JobSpec, Keypair, Leaf, PROTOCOL_VERSION, Part, Phase, Port,
    PortKind, Signed, canonical, merkle,
};
use tokio::sync::mpsc;

use crate::blobs::{Blobs, fetch_from_worker};
use crate::data::{DataSource, Microbatch};
use crate::identity::Home;
use crate::session::{self, Session};
use crate::worker::fetch_model;
use crate::{RuntimeError, measure, spec as words, tensor_blob, work};

/// How a checker runs.
#[derive(Clone, Debug)]
pub struct CheckerOptions {
    /// The coordinator, such as "http://127.0.0.1:7700".
    pub coordinator: String,
    /// Key and fetched blobs.
    pub dir: PathBuf,
    /// Where it computes.
    pub device: Device,
    /// How it cheats.
    #[cfg(feature = "liars")]
    pub lie: Option<crate::liar::Lie>,
}

/// Between two tries to reach the coordinator.
const RETRY: Duration = Duration::from_millis(500);
/// Tries before a checker that never had a session gives up.
const FIRST_TRIES: u32 = 20;

/// Runs a checker until it is refused or `leave` is told.
///
/// # Errors
/// [`RuntimeError`] where the coordinator refuses or cannot be reached at all.
pub async fn run(
    options: CheckerOptions,
    mut leave: mpsc::Receiver<()>,
) -> Result<(), RuntimeError> {
    let home = Home::open(&options.dir)?;
    let hello = Hello {
        role: Role::Checker,
        protocol: PROTOCOL_VERSION,
        arithmetic: ARITHMETIC_VERSION,
        device: measure::device_info(&options.device, measure::machine_memory()),
        endpoint: String::new(),
        held: None,
        challenge: [0; 32],
    };
    let mut tries = 0;
    loop {
        let opened = open(&options, &home.key, &hello).await;
        match opened {
            Ok((mut session, auditor)) => {
                tries = 0;
                if serve(&mut session, &auditor, &mut leave).await {
                    return Ok(());
                }
            }
            Err(error @ RuntimeError::Refused(_)) => return Err(error),
            Err(error) if tries >= FIRST_TRIES => {
                return Err(error.no_coordinator(&options.coordinator));
            }
            Err(error) => {
                if tries == 0 {
                    tracing::warn!("{error}; trying again");
                }
                tries += 1;
                tokio::select! {
                    () = tokio::time::sleep(RETRY) => {}
                    _ = leave.recv() => return Ok(()),
                }
            }
        }
    }
}

async fn open(
    options: &CheckerOptions,
    key: &Keypair,
    hello: &Hello,
) -> Result<(Session, Arc<Auditor>), RuntimeError> {
    let channel = session::connect(&options.coordinator).await?;
    let blobs = Blobs::new(channel.clone(), options.dir.join("blobs"))?;
    #[cfg_attr(not(feature = "liars"), expect(unused_mut))]
    let mut auditor = Auditor::new(options.device.clone(), blobs, key.clone());
    #[cfg(feature = "liars")]
    {
        auditor.lie.clone_from(&options.lie);
    }
    let session = Session::open(channel, key.clone(), hello.clone()).await?;
    Ok((session, Arc::new(auditor)))
}

/// Serves until the session ends; true where the checker has left for good.
async fn serve(
    session: &mut Session,
    auditor: &Arc<Auditor>,
    leave: &mut mpsc::Receiver<()>,
) -> bool {
    let (said, mut sayings) = mpsc::channel(64);
    let mut heartbeat = tokio::time::interval(session.heartbeat);
    loop {
        let goes_on = tokio::select! {
            message = session.receive() => match message {
                Some(ToWorker::Audit(order)) => {
                    let (auditor, said) = (auditor.clone(), said.clone());
                    tokio::spawn(async move {
                        let _ = said.send(auditor.answer(*order).await).await;
                    });
                    true
                }
                Some(ToWorker::Leave) => return true,
                Some(_) => true,
                None => return false,
            },
            Some(message) = sayings.recv() => session.send(&message).await,
            _ = heartbeat.tick() => session.send(&ToCoordinator::Heartbeat).await,
            _ = leave.recv() => return true,
        };
        if !goes_on {
            return false;
        }
    }
}

/// Re-runs leaves. A worker has one, too: it judges where worker and checker disagree.
pub(crate) struct Auditor {
    device: Device,
    blobs: Blobs,
    key: Keypair,
    /// The stage of the last audit; the next one is often of the same.
    stage: Mutex<Option<CachedStage>>,
    #[cfg(feature = "liars")]
    lie: Option<crate::liar::Lie>,
}

struct CachedStage {
    spec: Digest,
    layers: concord_proto::Layers,
    stage: Stage,
}

/// The inputs of a leaf, fetched and checked against its digests.
struct Inputs {
    spec: JobSpec,
    leaf: Leaf,
    tensors: Vec<(PortKind, Vec<Arc<Tensor>>)>,
    scalars: Option<Scalars>,
    microbatch: Option<Microbatch>,
    sequence_len: usize,
}

impl Inputs {
    fn tensors(&self, wanted: impl Fn(PortKind) -> bool) -> Option<&[Arc<Tensor>]> {
        self.tensors
            .iter()
            .find(|(kind, _)| wanted(*kind))
            .map(|(_, tensors)| &tensors[..])
    }

    fn hidden(&self) -> Option<&Tensor> {
        let found = self.tensors(|kind| matches!(kind, PortKind::Activation(_)))?;
        found.first().map(|tensor| &**tensor)
    }
}

impl Auditor {
    pub(crate) fn new(device: Device, blobs: Blobs, key: Keypair) -> Self {
        Self {
            device,
            blobs,
            key,
            stage: Mutex::new(None),
            #[cfg(feature = "liars")]
            lie: None,
        }
    }

    /// Re-runs the leaf of an order and signs what was found.
    pub(crate) async fn answer(self: Arc<Self>, order: AuditOrder) -> ToCoordinator {
        let number = order.order;
        let mut verdict = Verdict {
            job: order.job,
            step: order.step,
            epoch: order.epoch,
            worker: order.worker,
            leaf: order.leaf.digest(),
            finding: Finding::Agrees,
        };
        #[cfg(feature = "liars")]
        let lie = self
            .lie
            .as_ref()
            .and_then(|lie| lie.finding(order.step, &order.leaf));
        #[cfg(not(feature = "liars"))]
        let lie: Option<Finding> = None;
        verdict.finding = match lie {
            Some(finding) => finding,
            None => self.clone().look(order).await,
        };
        ToCoordinator::Verdict {
            order: number,
            verdict: Signed::new(&self.key, &verdict),
        }
    }

    async fn look(self: Arc<Self>, order: AuditOrder) -> Finding {
        let (step, started) = (order.step, Instant::now());
        let words = leaf_words(&order.leaf);
        match self.re_run(order).await {
            Ok(finding) => {
                tracing::debug!(
                    "re-ran the {words} in step {step} in {:?}",
                    started.elapsed()
                );
                finding
            }
            Err(error) => {
                tracing::info!("cannot re-run the {words} in step {step}: {error}");
                Finding::Inconclusive {
                    reason: error.to_string(),
                }
            }
        }
    }

    async fn re_run(self: Arc<Self>, order: AuditOrder) -> Result<Finding, RuntimeError> {
        let inputs = self.fetch(&order).await?;
        let (config, base) = fetch_model(&self.blobs, &inputs.spec, order.leaf.layers).await?;
        let auditor = self.clone();
        let computed = tokio::task::spawn_blocking(move || {
            auditor
                .compute(order.spec, &inputs, config, &base)
                .map(|ports| (ports, inputs.leaf))
        });
        let (mut computed, leaf) = computed
            .await
            .map_err(|error| RuntimeError::Unsupported(error.to_string()))??;
        computed.sort_by_key(|port| port.kind);
        let mut claimed = leaf.outputs;
        claimed.sort_by_key(|port| port.kind);
        Ok(if computed == claimed {
            Finding::Agrees
        } else {
            Finding::Differs { computed }
        })
    }

    async fn fetch(&self, order: &AuditOrder) -> Result<Inputs, RuntimeError> {
        let spec: JobSpec = self.blobs.get_value(order.spec, "job spec").await?;
        let leaf = order.leaf.clone();
        let request = OpenRequest {
            job: order.job,
            epoch: order.epoch,
            step: order.step,
            phase: leaf.phase,
            microbatch: leaf.microbatch,
        };
        let channel = session::connect(&order.endpoint).await?;
        let withheld = |why: String| RuntimeError::Unreachable {
            endpoint: format!("worker {}", order.worker.short()),
            why,
        };
        let mut client = WorkerClient::new(channel.clone());
        let answer = client
            .open(Body {
                bytes: canonical::encode(&request),
            })
            .await;
        let body = answer
            .map_err(|status| withheld(status.message().to_string()))?
            .into_inner();
        let opening: Opening =
            canonical::decode(&body.bytes).map_err(|error| withheld(error.to_string()))?;
        let Opening::Inputs(ports) = opening else {
            return Err(withheld("the inputs of the leaf are gone".to_string()));
        };
        if ports.len() != leaf.inputs.len() {
            return Err(withheld("it opened another number of inputs".to_string()));
        }
        let mut inputs = Inputs {
            spec,
            leaf: leaf.clone(),
            tensors: Vec::new(),
            scalars: None,
            microbatch: None,
            sequence_len: 0,
        };
        for (input, digests) in leaf.inputs.iter().zip(ports) {
            let port = input.port;
            if !opens(port, &digests) {
                return Err(withheld(format!("what it opened is not {:?}", port.kind)));
            }
            let blobs = fetch_together(&channel, digests).await?;
            inputs.take(port, blobs)?;
        }
        let data: DataManifest = self
            .blobs
            .get_value(inputs.spec.data, "data manifest")
            .await?;
        inputs.sequence_len = data.sequence_len as usize;
        if matches!(leaf.phase, Phase::Forward | Phase::Backward) {
            let mut source = DataSource::new(&inputs.spec, Arc::new(data))?;
            let microbatch = source
                .microbatch(&self.blobs, order.step, leaf.microbatch)
                .await?;
            inputs.microbatch = Some(microbatch);
        }
        Ok(inputs)
    }

    fn compute(
        &self,
        spec_digest: Digest,
        inputs: &Inputs,
        config: Arc<concord_models::config::DecoderConfig>,
        base: &dyn concord_models::decoder::TensorSource,
    ) -> Result<Vec<Port>, RuntimeError> {
        match inputs.leaf.phase {
            Phase::Reduce => self.reduce(inputs),
            Phase::Update => self.update(inputs),
            Phase::Forward | Phase::Backward => {
                let layers = inputs.leaf.layers;
                let values = inputs.state_values()?;
                let mut cached = self.stage.lock().unwrap_or_else(PoisonError::into_inner);
                let fits = |c: &&mut CachedStage| (c.spec, c.layers) == (spec_digest, layers);
                if let Some(cached) = cached.as_mut().filter(fits) {
                    cached.stage.refresh(&values);
                    return microbatch(&cached.stage, inputs);
                }
                let (spec, len) = (&inputs.spec, inputs.sequence_len);
                let options = words::stage_options(spec, config, layers, &self.device, len)?;
                let stage = Stage::load(options, base, &values)?;
                let ports = microbatch(&stage, inputs);
                *cached = Some(CachedStage {
                    spec: spec_digest,
                    layers,
                    stage,
                });
                ports
            }
        }
    }

    fn reduce(&self, inputs: &Inputs) -> Result<Vec<Port>, RuntimeError> {
        let mut ports = Vec::new();
        for output in &inputs.leaf.outputs {
            let PortKind::Partial { node, part } = output.kind else {
                continue;
            };
            let of = |microbatch: u32| {
                let kind = PortKind::Partial {
                    node: Node::leaf(microbatch),
                    part,
                };
                inputs.tensors(|found| found == kind)
            };
            if (node.start..node.end).any(|microbatch| of(microbatch).is_none()) {
                return Err(missing("a gradient"));
            }
            let leaf = |microbatch: u32| of(microbatch).unwrap_or(&[]);
            let sum = work::PartSum::new(work::reduce(&self.device, node, &leaf));
            ports.push(sum.port(node, part));
        }
        Ok(ports)
    }

    fn update(&self, inputs: &Inputs) -> Result<Vec<Port>, RuntimeError> {
        let (spec, layers) = (&inputs.spec, inputs.leaf.layers);
        let scalars = inputs
            .scalars
            .as_ref()
            .ok_or_else(|| missing("the scalars"))?;
        let state = inputs.state()?;
        let mut totals = BTreeMap::new();
        for part in [Part::Own, Part::TiedEmbed, Part::TiedHead] {
            let root = Node {
                start: 0,
                end: spec.microbatches,
            };
            if let Some(total) = self.total(inputs, part, root) {
                totals.insert(part, total);
            }
        }
        let gradients = work::step_gradients(spec, layers, &self.device, totals);
        let held = work::held_names(spec, layers);
        if held.iter().any(|(_, name)| !gradients.contains_key(name)) {
            return Err(missing("a gradient"));
        }
        let updated = work::update(spec, layers, &self.device, &state, &gradients, scalars)?;
        let mut ports = updated.outputs();
        // The norms that the worker reported are part of what it is held to.
        let norms = work::norms(spec, layers, &self.device, &gradients);
        if norms.iter().any(|norm| !scalars.norms.contains(norm)) {
            let mut right = scalars.clone();
            right.norms = norms;
            ports.push(Port {
                kind: PortKind::Scalars,
                digest: right.digest(),
            });
        }
        Ok(ports)
    }

    fn total(&self, inputs: &Inputs, part: Part, node: Node) -> Option<Vec<Arc<Tensor>>> {
        let kind = PortKind::Partial { node, part };
        if let Some(sum) = inputs.tensors(|found| found == kind) {
            return Some(sum.to_vec());
        }
        let (left, right) = node.children()?;
        let mut sum = self.total(inputs, part, left)?;
        work::add(&self.device, &mut sum, self.total(inputs, part, right)?);
        Some(sum)
    }
}

/// Blobs fetched from a worker at a time.
const FETCHED_AT_ONCE: usize = 32;

async fn fetch_together(
    channel: &tonic::transport::Channel,
    digests: Vec<Digest>,
) -> Result<Vec<(Digest, Vec<u8>)>, RuntimeError> {
    let mut blobs = Vec::new();
    for some in digests.chunks(FETCHED_AT_ONCE) {
        let fetch = |&digest: &Digest| tokio::spawn(fetch_from_worker(channel.clone(), digest));
        let tasks: Vec<_> = some.iter().map(fetch).collect();
        for (digest, task) in some.iter().zip(tasks) {
            let failed = |error: tokio::task::JoinError| RuntimeError::Unreachable {
                endpoint: "a worker".to_string(),
                why: error.to_string(),
            };
            blobs.push((*digest, task.await.map_err(failed)??));
        }
    }
    Ok(blobs)
}

/// Whether addresses open a port.
fn opens(port: Port, digests: &[Digest]) -> bool {
    match port.kind {
        PortKind::State | PortKind::Moments | PortKind::Partial { .. } => {
            merkle::root(digests) == port.digest
        }
        PortKind::Tokens | PortKind::Loss => digests.is_empty(),
        PortKind::Activation(_) | PortKind::Gradient(_) | PortKind::Scalars => {
            digests == [port.digest]
        }
    }
}

fn missing(what: &str) -> RuntimeError {
    RuntimeError::Unsupported(format!("the leaf lacks {what}"))
}

fn microbatch(stage: &Stage, inputs: &Inputs) -> Result<Vec<Port>, RuntimeError> {
    let (spec, leaf) = (&inputs.spec, &inputs.leaf);
    let batch = inputs
        .microbatch
        .as_ref()
        .ok_or_else(|| missing("its tokens"))?;
    if !stage.is_first() && inputs.hidden().is_none() {
        return Err(missing("its hidden states"));
    }
    let forwarded = work::forward(stage, leaf.layers, &batch.batch, inputs.hidden())?;
    if leaf.phase == Phase::Forward {
        return Ok(vec![forwarded.output]);
    }
    let gradient = inputs.tensors(|kind| matches!(kind, PortKind::Gradient(_)));
    let gradient = gradient
        .and_then(|tensors| tensors.first())
        .map(|tensor| &**tensor);
    let (layers, number) = (leaf.layers, leaf.microbatch);
    let done = work::backward(
        spec,
        stage,
        layers,
        number,
        &batch.batch,
        forwarded,
        gradient,
    )?;
    Ok(done.outputs)
}

impl Inputs {
    fn take(&mut self, port: Port, blobs: Vec<(Digest, Vec<u8>)>) -> Result<(), RuntimeError> {
        if port.kind == PortKind::Scalars {
            for (digest, bytes) in blobs {
                let bad = |why: String| RuntimeError::BadBlob {
                    digest,
                    what: "scalars",
                    why,
                };
                self.scalars =
                    Some(canonical::decode(&bytes).map_err(|error| bad(error.to_string()))?);
            }
            return Ok(());
        }
        let mut tensors = Vec::new();
        for (digest, bytes) in blobs {
            let bad = |why| RuntimeError::BadBlob {
                digest,
                what: "tensor",
                why,
            };
            tensors.push(Arc::new(tensor_blob::decode(&bytes).map_err(bad)?));
        }
        self.tensors.push((port.kind, tensors));
        Ok(())
    }

    fn state_values(&self) -> Result<BTreeMap<String, Tensor>, RuntimeError> {
        let held = work::held_names(&self.spec, self.leaf.layers);
        let values = self.tensors(|kind| kind == PortKind::State).unwrap_or(&[]);
        if values.len() != held.len() {
            return Err(missing("its state"));
        }
        let shaped = held.iter().zip(values).all(|((index, _), tensor)| {
            let shape = &self.spec.trainable[*index as usize].shape;
            shape
                .iter()
                .copied()
                .eq(tensor.shape().iter().map(|&dim| dim as u64))
        });
        if !shaped {
            return Err(missing("a state of the right shape"));
        }
        let pair =
            |((_, name), value): (&(u32, String), &Arc<Tensor>)| (name.clone(), (**value).clone());
        Ok(held.iter().zip(values).map(pair).collect())
    }

    fn state(&self) -> Result<TrainState, RuntimeError> {
        let values = self.state_values()?;
        let moments = self
            .tensors(|kind| kind == PortKind::Moments)
            .unwrap_or(&[]);
        if moments.len() != 2 * values.len() {
            return Err(missing("its moments"));
        }
        let tensor = |((name, value), pair): ((String, Tensor), &[Arc<Tensor>])| {
            let (first_moment, second_moment) = (pair[0].clone(), pair[1].clone());
            (
                name,
                StateTensor {
                    value: Arc::new(value),
                    first_moment,
                    second_moment,
                },
            )
        };
        Ok(TrainState(
            values
                .into_iter()
                .zip(moments.chunks_exact(2))
                .map(tensor)
                .collect(),
        ))
    }
}
