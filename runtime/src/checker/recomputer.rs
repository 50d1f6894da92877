//! Leaves computed again: their inputs are fetched from the worker, by digest, one leaf is computed
//! at a time.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use concord_kernels::Device;
use concord_kernels::packed::BlockFormat;
use concord_models::config::DecoderConfig;
use concord_models::memory::{TrainingBytes, TrainingRun};
use concord_proto::ledger::Finding;
use concord_proto::session::AuditOrder;
use concord_proto::{Digest, JobSpec, Keypair, Leaf, PortKind, WorkerId};
use concord_verify::training::{leaf_words, sorted_ports};
use tokio::sync::OwnedMutexGuard;

use super::queue::{AuditQueue, LeafPlace, busy, same_job};
use crate::blobs::Blobs;
use crate::training::audit::{
    AuditedJob, GivenInputs, Inputs, LeafRerun, OpenedLeaf, Trace, missing,
};
use crate::training::leaf_work;
use crate::{RuntimeError, spec};

/// What a worker has not given by then it is as if it did not have: a coordinator takes an order
/// back after a minute, and would hold the silence against the checker.
const FETCHED_MAX: Duration = Duration::from_secs(45);

/// What came of a re-run, and the addresses of what it was made from.
pub(crate) struct Recomputed {
    pub(crate) finding: Finding,
    pub(crate) inputs: Vec<Vec<Digest>>,
    /// What only who has computed the leaf knows; zeros where it was not computed.
    pub(crate) trace: Digest,
    /// Whether there is the memory for it.
    pub(crate) has_room: bool,
}

/// Computes leaves again.
pub(crate) struct Recomputer {
    pub(super) device: Device,
    pub(super) blobs: Blobs,
    /// What it asks workers with.
    pub(super) key: Keypair,
    pub(super) queue: AuditQueue,
    /// Leaves that are counted to take more bytes are not begun.
    memory_bytes: u64,
    /// Set once the GPU cannot go on.
    gpu_gone: Mutex<Option<RuntimeError>>,
}

impl Recomputer {
    pub(crate) fn new(
        (device, blobs, key): (Device, Blobs, Keypair),
        queue: AuditQueue,
        memory_bytes: u64,
    ) -> Self {
        Self {
            device,
            blobs,
            key,
            queue,
            memory_bytes,
            gpu_gone: Mutex::new(None),
        }
    }

    /// Computes the leaf of an order again, and compares. Its trace is under the key of `checker`.
    pub(crate) async fn recompute(
        self: Arc<Self>,
        order: AuditOrder,
        checker: &WorkerId,
    ) -> Recomputed {
        let cannot = |reason, has_room| Recomputed {
            finding: Finding::Inconclusive { reason },
            inputs: Vec::new(),
            trace: Digest::default(),
            has_room,
        };
        let Some(_place) = self.queue.enter() else {
            return cannot(busy(), true);
        };
        let (step, started) = (order.step, Instant::now());
        let words = leaf_words(&order.leaf);
        match self.clone().compute_leaf(order, Trace::new(checker)).await {
            Ok(found) => {
                let took = started.elapsed();
                tracing::debug!("computed the {words} in step {step} again in {took:?}");
                found
            }
            Err(error) => {
                tracing::info!("cannot compute the {words} in step {step} again: {error}");
                let has_room = !matches!(error, RuntimeError::NoRoomForLeaf { .. });
                let reason = error.to_string();
                self.note_failure(error);
                cannot(reason, has_room)
            }
        }
    }

    pub(super) fn note_failure(&self, error: RuntimeError) {
        if error.gpu_is_gone() {
            let mut gone = self.gpu_gone.lock().unwrap_or_else(PoisonError::into_inner);
            *gone = Some(error);
        }
    }

    /// Why nothing can be computed here any more: the GPU cannot go on.
    pub(crate) fn gpu_gone(&self) -> Option<RuntimeError> {
        self.gpu_gone
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }

    async fn compute_leaf(
        self: Arc<Self>,
        order: AuditOrder,
        mut trace: Trace,
    ) -> Result<Recomputed, RuntimeError> {
        let (spec, step, layers) = (order.spec, order.step, order.leaf.layers);
        let job_spec = {
            let (mut held, job_spec) = self.job(spec).await?;
            // The verdict names the job: what it says is about that one and no other.
            if job_spec.id() != order.job {
                return Err(RuntimeError::BadBlob {
                    digest: spec,
                    what: "spec of the job",
                    why: "it is that of another job than the order names".to_string(),
                });
            }
            let job = same_job(&mut held, spec).ok_or_else(|| missing("its job"))?;
            self.check_room(job, &order.leaf)?;
            job_spec
        };
        let (given, place) = self.fetch(order, &job_spec).await?;
        let mut held = self.job(spec).await?.0;
        let job = same_job(&mut held, spec).ok_or_else(|| missing("its job"))?;
        let addresses = given.addresses.clone();
        let inputs = Inputs::join(given, &self.blobs, job, step).await?;
        let base = job.base(&self.blobs, layers).await?;
        let config = job.config.clone();
        let computing = self.queue.computing().await;
        drop(held);
        let recomputer = self.clone();
        let computed = tokio::task::spawn_blocking(move || {
            // Held to the end of the work, even where nobody waits for it any more.
            let _held = (computing, place);
            let rerun = LeafRerun {
                device: &recomputer.device,
                stages: &recomputer.queue.stages,
                inputs: &inputs,
            };
            let ports = rerun.compute(spec, config, &base, &mut trace)?;
            Ok::<_, RuntimeError>((ports, inputs.leaf, trace.finish()))
        });
        let (mut computed, leaf, trace) = computed
            .await
            .map_err(|error| RuntimeError::Unsupported(error.to_string()))??;
        computed.sort_by_key(|port| port.kind);
        let is_same = sorted_ports(&computed) == sorted_ports(&leaf.outputs);
        let finding = match is_same {
            true => Finding::Agrees,
            false => Finding::Differs { computed },
        };
        Ok(Recomputed {
            finding,
            inputs: addresses,
            trace,
            has_room: true,
        })
    }

    /// Refuses a leaf that is counted to take more memory than there is for it.
    fn check_room(&self, job: &AuditedJob, leaf: &Leaf) -> Result<(), RuntimeError> {
        let needed = leaf_bytes(&job.spec, &job.config, job.data.sequence_len(), leaf)?;
        match needed <= self.memory_bytes {
            true => Ok(()),
            false => Err(RuntimeError::NoRoomForLeaf {
                needed,
                limit: self.memory_bytes,
            }),
        }
    }

    /// The job with the spec at this address, which is fetched where another one is held; and its
    /// spec.
    async fn job(
        &self,
        address: Digest,
    ) -> Result<(OwnedMutexGuard<Option<AuditedJob>>, Arc<JobSpec>), RuntimeError> {
        let mut held = self.queue.job().await;
        if same_job(&mut held, address).is_none() {
            // Frees the memory of the job before.
            *held = None;
            *held = Some(AuditedJob::fetch(&self.blobs, address).await?);
        }
        let job = same_job(&mut held, address);
        let spec = job.map(|job| job.spec.clone());
        let spec = spec.ok_or_else(|| missing("its job"))?;
        Ok((held, spec))
    }

    /// Fetches the inputs that the worker of a leaf gives. All workers are asked at once to open
    /// their leaves; the inputs are fetched in turns, so that a worker that stalls delays only its
    /// own leaves.
    pub(super) async fn fetch(
        &self,
        order: AuditOrder,
        spec: &JobSpec,
    ) -> Result<(GivenInputs, LeafPlace), RuntimeError> {
        let worker = order.worker;
        let opened = OpenedLeaf::ask(order, spec, &self.key, self.memory_bytes).await?;
        let fetched = async {
            let turn = self.queue.turn(worker).await;
            let given = opened.fetch().await?;
            Ok((given, turn.fetched()))
        };
        let fetched = tokio::time::timeout(FETCHED_MAX, fetched).await;
        fetched.unwrap_or_else(|_| {
            Err(RuntimeError::Unreachable {
                endpoint: format!("worker {}", worker.short()),
                why: format!("it has not given the inputs of this leaf within {FETCHED_MAX:?}"),
            })
        })
    }
}

/// Bytes that a leaf takes, counted as those of a stage with one microbatch in flight, and of the
/// gradients that it adds up.
fn leaf_bytes(
    spec: &JobSpec,
    config: &DecoderConfig,
    sequence_len: usize,
    leaf: &Leaf,
) -> Result<u64, RuntimeError> {
    let evaluation = spec.evaluation.map_or(0, |of| of.micro_batch_size);
    let run = TrainingRun {
        trainable: spec::trainable(&spec.adapter)?,
        sequence_len: sequence_len as u32,
        micro_batch_size: spec.micro_batch_size.max(evaluation),
        microbatches: 1,
        recompute: false,
        moments: spec::moments(spec),
        drops: spec.regularization.lora_dropout.get() > 0.0,
        smooths: spec.regularization.label_smoothing.get() > 0.0,
    };
    // What stays packed takes less.
    let bytes = TrainingBytes::of(config, &run, &|_| BlockFormat::F32);
    let stage = bytes.stage(spec::span(leaf.layers), 1).total();
    let held = leaf_work::held_names(spec, leaf.layers).into_iter();
    let elements = held.map(|(index, _)| {
        let shape = &spec.trainable[index as usize].shape;
        shape
            .iter()
            .fold(4, |all: u64, &dim| all.saturating_mul(dim))
    });
    let gradient = elements.fold(0, u64::saturating_add);
    let is_sum = |kind| matches!(kind, PortKind::Partial { .. });
    let inputs = leaf.inputs.iter();
    let sums = inputs.filter(|input| is_sum(input.port.kind)).count() as u64;
    Ok(stage.saturating_add(gradient.saturating_mul(sums)))
}

#[cfg(test)]
mod tests {
    use concord_proto::{ClaimInput, Digest, GradientPart, Layers, LeafPhase, Port, tree::Node};

    use super::*;
    use crate::training::engine::tests::{config, job_spec};

    fn leaf(phase: LeafPhase, layers: Layers, sums: u32) -> Leaf {
        let sum = |start| ClaimInput {
            port: Port {
                kind: PortKind::Partial {
                    node: Node::leaf(start),
                    part: GradientPart::Own,
                },
                digest: Digest::default(),
            },
            origin: None,
        };
        Leaf {
            phase,
            microbatch: 0,
            layers,
            inputs: (0..sums).map(sum).collect(),
            outputs: Vec::new(),
        }
    }

    #[test]
    fn a_leaf_is_counted_with_its_layers_and_with_what_it_adds_up() {
        let config = DecoderConfig {
            layers: 2,
            sliding_window: vec![None; 2],
            ..config()
        };
        let spec = JobSpec {
            layers: 2,
            ..job_spec(&config)
        };
        let all = Layers::new(0, config.layers as u32);
        let bytes = |leaf: &Leaf| leaf_bytes(&spec, &config, 16, leaf).unwrap();
        let forward = bytes(&leaf(LeafPhase::Forward, all, 0));
        let few = bytes(&leaf(LeafPhase::Forward, Layers::new(0, 1), 0));
        assert!(few < forward, "{few} of one layer, {forward} of all");
        let sum = |count| bytes(&leaf(LeafPhase::Reduce, all, count));
        assert_eq!(sum(0), forward);
        let gradient = sum(1) - sum(0);
        assert!(gradient > 0);
        assert_eq!(sum(5) - sum(0), 5 * gradient);
    }
}
