//! A small job to simulate: every kind of place, data in an order from a seed.

use concord_coordinator::core::{Asker, CallId, CoreEvent, NewJob, Question};
use concord_proto::ExpertCuts;
use concord_proto::PublicKey;
use concord_proto::TrainingSequence;
use concord_proto::client::{ModelProfile, PlanChoice, RunOptions, Submission};
use concord_proto::manifest::{DataManifest, StateEntry, StateManifest};
use concord_proto::{
    ARITHMETIC_VERSION, AdapterSpec, Digest, Domain, EvaluationSpec, F32Bits, HeldOut, JobSpec,
    ModelPlace, MomentFormat, Optimizer, Order, Patience, PrecisionSpec, RateSchedule,
    Regularization, ScheduleKind, TrainedTensor, UpdateRule,
};

/// A question of [`ADMIN`].
pub fn asked(call: u64, question: Question) -> CoreEvent {
    CoreEvent::Asked {
        call: CallId(call),
        by: ADMIN,
        question,
    }
}

/// Who asks for everything in these tests.
pub const ADMIN: Asker = Asker {
    key: PublicKey([200; 32]),
    is_admin: true,
};

pub const LAYERS: u32 = 4;
pub const MICROBATCHES: u32 = 5;
pub const ALWAYS: u64 = 1 << 32;

pub fn digest(words: &str) -> Digest {
    Digest::of(Domain::Blob, words.as_bytes())
}

fn trainable(tied: bool) -> Vec<TrainedTensor> {
    let tensor = |name: String, place| TrainedTensor {
        name,
        shape: vec![2],
        place,
        decays: true,
    };
    let mut all: Vec<TrainedTensor> = (0..LAYERS)
        .flat_map(|layer| {
            ["a", "b"]
                .map(|which| tensor(format!("layers.{layer}.{which}"), ModelPlace::Layer(layer)))
        })
        .collect();
    if tied {
        all.push(tensor("embed".to_string(), ModelPlace::EmbedAndHead));
    } else {
        all.push(tensor("embed".to_string(), ModelPlace::Embed));
        all.push(tensor("head".to_string(), ModelPlace::Head));
    }
    all.sort_by(|a, b| a.name.cmp(&b.name));
    all
}

/// The same job, with an evaluation after each update on the last 4 sequences. It keeps the best
/// state, and has this much patience.
pub fn evaluated(mut new: NewJob, patience: Option<u32>) -> NewJob {
    new.submission.spec.evaluation = Some(EvaluationSpec {
        held_out: HeldOut::Last { sequences: 4 },
        micro_batch_size: 1,
        every: 1,
        at_start: true,
        patience: patience.map(|evaluations| Patience {
            evaluations,
            threshold: F32Bits::from(0.0),
        }),
        keep_best: true,
    });
    new
}

/// A job of `steps` steps, with a plan of stages x replicas and no audits.
pub fn job(steps: u32, plan: (u32, u32), tied: bool) -> NewJob {
    let sequences =
        (0..11u32).map(|i| TrainingSequence::whole(vec![i, i + 1, i + 2], vec![0, 1, 1]).entry());
    let data = DataManifest {
        sequence_len: 3,
        chunk_sequences: 11,
        chunks: vec![digest("chunk")],
        sequences: sequences.collect(),
    };
    let trainable = trainable(tied);
    let entry = |tensor: &TrainedTensor| StateEntry {
        value: digest(&tensor.name),
        first_moment: digest("zero"),
        second_moment: digest("zero"),
    };
    let initial = StateManifest {
        step: 0,
        entries: trainable.iter().map(entry).collect(),
    };
    let (one, zero) = (F32Bits::from(1.0), F32Bits::from(0.0));
    let spec = JobSpec {
        arithmetic: ARITHMETIC_VERSION,
        model: digest("model"),
        data: Digest::of_value(Domain::Blob, &data),
        adapter: AdapterSpec::Full,
        initial_state: Digest::of_value(Domain::Blob, &initial),
        trainable,
        layers: LAYERS,
        order: Order::Shuffled { seed: 7 },
        micro_batch_size: 2,
        microbatches: MICROBATCHES,
        steps,
        optimizer: Optimizer {
            rule: UpdateRule::AdamW {
                beta1: one,
                beta2: one,
                epsilon: one,
                moments: MomentFormat::F32,
            },
            weight_decay: zero,
            max_grad_norm: one,
        },
        schedule: RateSchedule {
            b_ratio: None,
            kind: ScheduleKind::Constant,
            learning_rate: one,
            warmup_steps: 0,
        },
        precision: PrecisionSpec {
            weights: 16,
            activations: 16,
        },
        loss_limit: None,
        evaluation: None,
        regularization: Regularization::default(),
    };
    let profile = ModelProfile {
        layer_macs: 1_000_000,
        head_macs: 1_000_000,
        layer_bytes: 1_000,
        embed_bytes: 1_000,
        head_bytes: 1_000,
        shared_bytes: 0,
        layer_state_bytes: 1_000,
        layer_gradient_bytes: 250,
        layer_activation_bytes: 1_000,
        workspace_bytes: 0,
        boundary_bytes: 1_000,
        microbatch_tokens: 6,
        backward_percent: 200,
        cuts: ExpertCuts::default(),
    };
    let (stages, replicas) = plan;
    let options = RunOptions {
        name: "simulated".to_string(),
        plan: PlanChoice::Fixed {
            stages,
            replicas,
            shares: Vec::new(),
        },
        min_workers: stages * replicas,
        checkers: 0,
        checkpoint_every: 3,
        checkpoints_kept: 0,
        replay_every: 0,
        audit_rate: 0,
        recheck_rate: 0,
        recompute: false,
        auditors: Vec::new(),
    };
    NewJob {
        submission: Submission {
            spec,
            profile,
            options,
        },
        submitters: vec![ADMIN.key],
        data,
        initial,
    }
}
