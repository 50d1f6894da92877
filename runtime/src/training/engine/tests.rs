//! The engine alone, driven by events: a stage that is the whole of a tiny model.

use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::Duration;

use concord_kernels::{Device, Tensor};
use concord_models::config::DecoderConfig;
use concord_models::decoder::{Batch, Trainable};
use concord_models::train::{Moment, StateTensor, TrainState};
use concord_proto::AttemptId;
use concord_proto::session::{AuditedStep, OpenRequest, Opening, Scalars, ToCoordinator};
use concord_proto::wire::FrameHeader;
use concord_proto::{
    AdapterSpec, Claim, Digest, Domain, F32Bits, FirstHalf, JobId, JobSpec, Keypair, Layers,
    LeafKey, MomentFormat, Optimizer, Order, Origin, Plan, Port, PortKind, PrecisionSpec,
    RateSchedule, Regularization, Replica, ScheduleKind, Signed, TensorState, TrainedTensor,
    UpdateRule, first_half_digest, leaf_root,
};
use tokio::sync::mpsc;
use tonic::transport::Endpoint;

use super::{
    EngineContext, EngineEffect, EngineEvent, EngineShared, ReceivedFrame, TrainingEngine,
};
use crate::blobs::{BlobOptions, Blobs};
use crate::faults::Faults;
use crate::model_blobs::ModelBlobs;
use crate::spec;
use crate::training::assignment::FetchedStage;
use crate::training::data::Microbatch;
use crate::witness::AttemptPlace;

const MICROBATCHES: u32 = 2;
const EPOCH: u32 = 3;
const TOKENS: usize = 4;

pub(crate) fn config() -> DecoderConfig {
    DecoderConfig::from_json(
        r#"{"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 8,
            "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
            "num_key_value_heads": 1, "vocab_size": 10, "max_position_embeddings": 32,
            "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "tie_word_embeddings": false}"#,
    )
    .unwrap()
}

pub(crate) fn job_spec(config: &DecoderConfig) -> JobSpec {
    let trained = Trainable::Full.tensors(config).into_iter();
    let trained = trained.map(|tensor| TrainedTensor {
        name: tensor.name,
        shape: tensor.shape.iter().map(|&dim| dim as u64).collect(),
        place: spec::place(tensor.place, false),
        decays: true,
    });
    JobSpec {
        arithmetic: 1,
        model: Digest::default(),
        data: Digest::default(),
        adapter: AdapterSpec::Full,
        initial_state: Digest::default(),
        trainable: trained.collect(),
        layers: 1,
        order: Order::AsGiven,
        micro_batch_size: 1,
        microbatches: MICROBATCHES,
        steps: 4,
        optimizer: Optimizer {
            rule: UpdateRule::AdamW {
                beta1: 0.9.into(),
                beta2: 0.999.into(),
                epsilon: 1e-8.into(),
                moments: MomentFormat::F32,
            },
            weight_decay: 0.0.into(),
            max_grad_norm: 1.0.into(),
        },
        schedule: RateSchedule {
            b_ratio: None,
            kind: ScheduleKind::Constant,
            learning_rate: 0.01.into(),
            warmup_steps: 0,
        },
        precision: PrecisionSpec {
            weights: 16,
            activations: 16,
        },
        loss_limit: None,
        evaluation: None,
        regularization: Regularization::default(),
    }
}

/// Values that are not 0 and that do not fit into 8 bits, and moments that are 0.
fn state(spec: &JobSpec) -> TrainState {
    let tensor = |shape: &[u64], value: &dyn Fn(usize) -> f32| {
        let shape: Vec<usize> = shape.iter().map(|&dim| dim as usize).collect();
        let count: usize = shape.iter().product();
        let values: Vec<f32> = (0..count).map(value).collect();
        Arc::new(Tensor::new(&shape, values).unwrap())
    };
    let all = spec.trainable.iter().map(|trained| {
        let held = StateTensor {
            value: tensor(&trained.shape, &|n| ((n * 37 % 29) as f32 - 13.5) / 31.0),
            first_moment: Moment::F32(tensor(&trained.shape, &|_| 0.0)),
            second_moment: Moment::F32(tensor(&trained.shape, &|_| 0.0)),
        };
        (trained.name.clone(), held)
    });
    TrainState(all.collect())
}

/// An engine on a thread of its own, and both ends of it.
pub(super) struct Driven {
    events: SyncSender<EngineEvent>,
    effects: mpsc::Receiver<EngineEffect>,
    pub(super) job: JobId,
    pub(super) shared: EngineShared,
    _folder: tempfile::TempDir,
}

/// What a step ended with.
pub(super) struct Claimed {
    signed: Signed,
    /// The root in the claim is that of the leaves sent with it.
    covers_its_leaves: bool,
    /// Of the first microbatch.
    loss: F32Bits,
    /// Of the first tensor.
    squared_norm: F32Bits,
    state: Vec<TensorState>,
}

impl Driven {
    pub(super) async fn start(faults: Faults) -> Self {
        let (events, inbox) = sync_channel(64);
        let (effects, outbox) = mpsc::channel(64);
        let (key, device) = (Keypair::from_secret([5; 32]), Device::Reference);
        let worker = key.public();
        let shared = EngineShared::default();
        let engine = TrainingEngine::new(EngineContext {
            device,
            device_name: "reference".to_string(),
            key,
            shared: shared.clone(),
            effects,
            faults,
        });
        std::thread::spawn(move || engine.run(inbox));
        let config = config();
        let spec = job_spec(&config);
        let plan = Plan {
            job: spec.id(),
            epoch: EPOCH,
            stages: vec![Layers::new(0, 1)],
            replicas: vec![Replica {
                workers: vec![worker],
                start: 0,
                end: MICROBATCHES,
            }],
        };
        // Nobody listens there: every tensor is trained, and part of the state.
        let folder = tempfile::tempdir().unwrap();
        let coordinator = Endpoint::from_static("http://127.0.0.1:1").connect_lazy();
        let dir = folder.path().to_path_buf();
        let blobs = Blobs::new(coordinator, dir, &BlobOptions::default()).unwrap();
        let job = spec.id();
        let fetched = FetchedStage {
            job,
            slot: plan.slot(&worker).unwrap(),
            plan,
            endpoints: vec!["concord://127.0.0.1:1".to_string()],
            config: config.into(),
            tensors: ModelBlobs::none(&blobs),
            state: state(&spec),
            spec: spec.into(),
            step: 0,
            sequence_len: TOKENS,
            recompute: false,
            depth: 1,
        };
        let mut driven = Self {
            events,
            effects: outbox,
            job,
            shared,
            _folder: folder,
        };
        driven.tell(EngineEvent::Load(Box::new(fetched)));
        let ready = driven.report().await;
        assert!(matches!(ready, ToCoordinator::Ready { epoch: EPOCH, .. }));
        driven
    }

    pub(super) fn tell(&self, event: EngineEvent) {
        self.events.send(event).unwrap();
    }

    async fn effect(&mut self) -> EngineEffect {
        let effect = tokio::time::timeout(Duration::from_secs(60), self.effects.recv());
        effect.await.expect("within a minute").expect("an effect")
    }

    async fn report(&mut self) -> ToCoordinator {
        match self.effect().await {
            EngineEffect::Report(message) => message,
            EngineEffect::Send { .. } | EngineEffect::Upload { .. } => panic!("no report"),
            EngineEffect::GpuGone(error) => panic!("{error}"),
        }
    }

    fn start_step(&self, step: u32) {
        let batch = |microbatch: u32| {
            let token = |n: usize| (n as u32 * 3 + 5 * microbatch + step) % 10;
            let tokens: Vec<u32> = (0..TOKENS).map(token).collect();
            let batch = Batch::whole(TOKENS, tokens);
            let digest = Digest::of(Domain::Blob, &[microbatch as u8, step as u8]);
            let batch = Arc::new(batch);
            (microbatch, Microbatch { batch, digest })
        };
        self.tell(EngineEvent::Step {
            job: self.job,
            epoch: EPOCH,
            step,
            at: AttemptPlace {
                attempt: attempt_of(step),
                previous: None,
            },
            batches: (0..MICROBATCHES).map(batch).collect(),
        });
    }

    /// A step up to its claim, with this message in its middle.
    pub(super) async fn step_with(&mut self, step: u32, between: Option<EngineEvent>) -> Claimed {
        self.start_step(step);
        if let Some(event) = between {
            self.tell(event);
        }
        let scalars = self.first_half(step).await;
        let (loss, squared_norm) = (scalars.losses[0].sum, scalars.norms[0].squared);
        self.scalars(scalars);
        let ToCoordinator::Updated { claim, leaves } = self.report().await else {
            panic!("no claim");
        };
        let signed = claim;
        let claim: Claim = claim_of(&signed);
        Claimed {
            covers_its_leaves: claim.leaf_root == leaf_root(&leaves),
            signed,
            loss,
            squared_norm,
            state: claim.state,
        }
    }

    /// What a checker that asks for a leaf gets.
    pub(super) fn open(&self, step: u32, leaf: LeafKey) -> Opening {
        let request = OpenRequest {
            job: self.job,
            epoch: EPOCH,
            step,
            phase: leaf.phase,
            microbatch: leaf.microbatch,
        };
        self.shared.openings.lock().unwrap().open(&request)
    }

    /// The scalars that follow from the report of the first phase, which a checker could open.
    async fn first_half(&mut self, step: u32) -> Scalars {
        let ToCoordinator::Computed {
            first_half,
            leaves,
            losses,
            norms,
            ..
        } = self.report().await
        else {
            panic!("no norms");
        };
        let half: FirstHalf = first_half.open().unwrap();
        assert_eq!(half.leaf_root, leaf_root(&leaves));
        for leaf in leaves {
            assert_ne!(self.open(step, leaf.key()), Opening::Gone, "{leaf:?}");
        }
        Scalars {
            step,
            first_halves: vec![first_half_digest(&first_half)],
            losses,
            norms,
            targets: u64::from(MICROBATCHES) * (TOKENS as u64 - 1),
        }
    }

    fn scalars(&self, scalars: Scalars) {
        self.tell(EngineEvent::Scalars {
            job: self.job,
            epoch: EPOCH,
            scalars,
        });
    }

    async fn step(&mut self, step: u32) -> Claimed {
        self.step_audited(step, Vec::new()).await
    }

    /// A step up to its commit, of which checkers may ask for these leaves.
    pub(super) async fn step_audited(&mut self, step: u32, audited: Vec<LeafKey>) -> Claimed {
        let claimed = self.step_with(step, None).await;
        self.tell(EngineEvent::Commit {
            job: self.job,
            epoch: EPOCH,
            step,
            release_below: 0,
        });
        self.tell(EngineEvent::Audited(AuditedStep {
            job: self.job,
            epoch: EPOCH,
            step,
            leaves: audited,
        }));
        claimed
    }

    /// How many steps are committed, and the state after them.
    pub(super) async fn committed(&mut self) -> (u32, Vec<TensorState>) {
        self.tell(EngineEvent::Flush { job: self.job });
        let EngineEffect::Upload { then, .. } = self.effect().await else {
            panic!("no upload");
        };
        let ToCoordinator::Flushed { step, state, .. } = then else {
            panic!("{then:?}");
        };
        (step, state)
    }
}

fn attempt_of(step: u32) -> AttemptId {
    AttemptId {
        number: step,
        entry: Digest::default(),
    }
}

/// The claim itself, whether its signature fits or not.
fn claim_of(signed: &Signed) -> Claim {
    concord_proto::canonical::decode(&signed.body).unwrap()
}

#[tokio::test]
async fn a_step_leads_from_events_to_a_claim_and_its_commit_to_the_next_state() {
    let mut engine = Driven::start(Faults::default()).await;
    let (_, initial) = engine.committed().await;
    let first = engine.step(0).await;
    assert!(first.signed.open::<Claim>().is_ok());
    assert!(first.covers_its_leaves);
    assert_ne!(first.state, initial);
    assert!(first.loss.get().is_finite());
    assert_eq!(engine.committed().await, (1, first.state));
    let second = engine.step(1).await;
    assert_eq!(engine.committed().await, (2, second.state));
}

#[tokio::test]
async fn what_is_done_again_after_an_abort_is_the_same() {
    let mut engine = Driven::start(Faults::default()).await;
    let first = engine.step_with(0, None).await;
    engine.tell(EngineEvent::Abort { job: engine.job });
    assert_eq!(engine.committed().await.0, 0);
    let again = engine.step(0).await;
    assert_eq!(first.signed, again.signed);
}

/// A neighbour may send what it likes: only what a stage takes in counts.
#[tokio::test]
async fn frames_that_no_stage_takes_in_change_nothing() {
    let honest = Driven::start(Faults::default()).await.step(0).await;
    let tensor = Arc::new(Tensor::new(&[1, 8], vec![1.0; 8]).unwrap());
    let digest = crate::tensor_blob::digest(&tensor).unwrap();
    for kind in [
        PortKind::State,
        PortKind::Moments,
        PortKind::Tokens,
        PortKind::Loss,
        PortKind::Scalars,
        PortKind::Norms,
        PortKind::Activation(0.into()),
        PortKind::Gradient(1.into()),
    ] {
        let mut engine = Driven::start(Faults::default()).await;
        let port = Port { kind, digest };
        let attempt = attempt_of(0);
        let message = Origin::message(&engine.job, &attempt, 0, &port);
        let origin = Origin::sign(&Keypair::from_secret([6; 32]), &message);
        let header = FrameHeader {
            job: engine.job,
            attempt,
            epoch: EPOCH,
            step: 0,
            microbatch: 0,
            port,
            origin,
            bytes: 1,
        };
        let frame = ReceivedFrame {
            header,
            tensors: vec![tensor.clone()],
            digests: vec![digest],
        };
        let frame = EngineEvent::Frame(Box::new(frame));
        let claimed = engine.step_with(0, Some(frame)).await;
        assert_eq!(claimed.signed, honest.signed, "{kind:?}");
    }
}

/// A coordinator that sends other scalars than the worker reported gets no signature under what
/// rests on them, and is told what is wrong. The step can be done again.
#[tokio::test]
async fn a_worker_signs_nothing_that_rests_on_altered_scalars() {
    let honest = Driven::start(Faults::default()).await.step(0).await;
    type Alteration = fn(&mut Scalars);
    let alterations: [(Alteration, &str); 7] = [
        (|s| s.norms[1].squared = 1e20.into(), "other gradient norms"),
        (
            |s| s.norms[0].squared = F32Bits(0x7fc0_0000),
            "other gradient norms",
        ),
        (|s| s.losses[1].sum = 0.0.into(), "other losses"),
        (|s| s.first_halves[0] = Digest::default(), "the first half"),
        (|s| s.first_halves.push(Digest::default()), "the first half"),
        (|s| s.norms.truncate(1), "one norm for each"),
        (|s| s.losses.clear(), "one loss for each"),
    ];
    for (alter, words) in alterations {
        let mut engine = Driven::start(Faults::default()).await;
        engine.start_step(0);
        let mut scalars = engine.first_half(0).await;
        alter(&mut scalars);
        engine.scalars(scalars);
        let said = engine.report().await;
        let ToCoordinator::Failed {
            reason, permanent, ..
        } = said
        else {
            panic!("{words}: {said:?}");
        };
        assert!(!permanent && reason.contains(words), "{reason}");
        assert!(reason.contains("nothing is signed"), "{reason}");
        let again = engine.step(0).await;
        assert_eq!(again.signed, honest.signed, "{words}");
    }
}

/// Each liar of training does what its name says, from its step on.
#[cfg(feature = "liars")]
#[tokio::test]
async fn every_liar_changes_what_its_name_says() {
    let mut honest = Driven::start(Faults::default()).await;
    let initial = honest.committed().await.1;
    let (first, second) = (honest.step(0).await, honest.step(1).await);
    for (name, changes_first) in [
        ("skipped-step@1", false),
        ("wrong-data@1", false),
        ("stale-weights", false),
        ("false-norm@1", false),
        ("replayed-claim@1", false),
        ("forged-signature@1", false),
        ("lower-precision", true),
        ("wrong-data", true),
        ("skipped-step", true),
    ] {
        let mut liar = Driven::start(name.parse().unwrap()).await;
        let (lie, lie_after) = (liar.step(0).await, liar.step(1).await);
        assert_eq!(lie.signed != first.signed, changes_first, "{name}");
        assert_ne!(lie_after.signed, second.signed, "{name}");
        match name {
            "skipped-step" => assert_eq!(lie.state, initial),
            "skipped-step@1" => assert_eq!(lie_after.state, first.state),
            "wrong-data" => assert_ne!(lie.loss, first.loss),
            "false-norm@1" => {
                assert_eq!(lie.squared_norm, first.squared_norm);
                assert_eq!(lie_after.squared_norm, 1e20.into());
            }
            "replayed-claim@1" => {
                assert_eq!(lie_after.signed, first.signed);
                assert!(!lie_after.covers_its_leaves);
            }
            "forged-signature@1" => assert!(lie_after.signed.open::<Claim>().is_err()),
            _ => assert_ne!(lie_after.state, second.state, "{name}"),
        }
    }
}
