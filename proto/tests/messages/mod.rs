//! Values of every type that leaves a process, made from a number.

// Each test takes what it needs.
#![allow(dead_code)]

mod client;
mod ledger;
mod manifest;
mod serving;
mod session;
mod variants;
pub mod visit;

use concord_proto::client::WatchRequest;
use concord_proto::manifest::StateEntry;
use concord_proto::session::{
    AddressChallenge, AddressProof, OpenRequest, OpenedMicrobatch, Opening,
};
use concord_proto::tree::Node;
use concord_proto::*;
pub use variants::Variants;

/// A source of values: the same number gives the same values on every machine.
pub struct Source {
    seed: u64,
    count: u64,
}

impl Source {
    pub fn new(seed: u64) -> Self {
        Self { seed, count: 0 }
    }

    pub fn digest(&mut self) -> Digest {
        self.count += 1;
        Digest::of_value(Domain::Blob, &(self.seed, self.count))
    }

    pub fn u64(&mut self) -> u64 {
        let [a, b, c, d, e, f, g, h, ..] = self.digest().0;
        u64::from_le_bytes([a, b, c, d, e, f, g, h])
    }

    pub fn u32(&mut self) -> u32 {
        self.u64() as u32
    }

    pub fn flag(&mut self) -> bool {
        self.u64().is_multiple_of(2)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.u64() % bound
    }

    pub fn bits(&mut self) -> F32Bits {
        F32Bits(self.u32())
    }

    pub fn text(&mut self) -> String {
        let words = [
            "",
            "cpu avx512 x2",
            "concord://10.0.0.7:7701",
            "\u{1f980} caf\u{e9}",
        ];
        words[self.below(4) as usize].to_string()
    }

    pub fn list<T>(&mut self, make: impl Fn(&mut Self) -> T) -> Vec<T> {
        (0..self.below(4)).map(|_| make(self)).collect()
    }

    pub fn key(&mut self) -> PublicKey {
        PublicKey(self.digest().0)
    }

    pub fn job(&mut self) -> JobId {
        JobId(self.digest())
    }

    pub fn signature(&mut self) -> [u8; 64] {
        let mut signature = [0; 64];
        signature[..32].copy_from_slice(&self.digest().0);
        signature[32..].copy_from_slice(&self.digest().0);
        signature
    }

    pub fn signed(&mut self) -> Signed {
        Signed {
            signer: self.key(),
            body: self.list(|s| s.u64() as u8),
            signature: self.signature(),
        }
    }

    pub fn layers(&mut self) -> Layers {
        Layers {
            start: self.edge(),
            end: self.edge(),
        }
    }

    pub fn edge(&mut self) -> Edge {
        Edge {
            layer: self.u32() >> 1,
            expert: self.below(3) as u32,
        }
    }

    pub fn node(&mut self) -> Node {
        Node {
            start: self.u32(),
            end: self.u32(),
        }
    }

    pub fn phase(&mut self) -> LeafPhase {
        [
            LeafPhase::Forward,
            LeafPhase::Backward,
            LeafPhase::Reduce,
            LeafPhase::Norm,
            LeafPhase::Update,
        ][self.below(5) as usize]
    }

    pub fn leaf_key(&mut self) -> LeafKey {
        LeafKey {
            phase: self.phase(),
            microbatch: self.u32(),
        }
    }

    pub fn part(&mut self) -> GradientPart {
        [
            GradientPart::Own,
            GradientPart::TiedEmbed,
            GradientPart::TiedHead,
        ][self.below(3) as usize]
    }

    pub fn port(&mut self) -> Port {
        let kind = match self.below(9) {
            0 => PortKind::State,
            1 => PortKind::Moments,
            2 => PortKind::Tokens,
            3 => PortKind::Activation(self.edge()),
            4 => PortKind::Gradient(self.edge()),
            5 => PortKind::Loss,
            6 => PortKind::Partial {
                node: self.node(),
                part: self.part(),
            },
            7 => PortKind::Scalars,
            _ => PortKind::Norms,
        };
        Port {
            kind,
            digest: self.digest(),
        }
    }

    pub fn origin(&mut self) -> Origin {
        Origin {
            worker: self.key(),
            signature: self.signature(),
        }
    }

    pub fn input(&mut self) -> ClaimInput {
        ClaimInput {
            port: self.port(),
            origin: self.flag().then(|| self.origin()),
        }
    }

    pub fn leaf(&mut self) -> Leaf {
        Leaf {
            phase: self.phase(),
            microbatch: self.u32(),
            layers: self.layers(),
            inputs: self.list(Self::input),
            outputs: self.list(Self::port),
        }
    }

    pub fn state_entry(&mut self) -> StateEntry {
        StateEntry {
            value: self.digest(),
            first_moment: self.digest(),
            second_moment: self.digest(),
        }
    }

    pub fn tensor_state(&mut self) -> TensorState {
        TensorState {
            tensor: self.u32(),
            entry: self.state_entry(),
        }
    }

    pub fn attempt(&mut self) -> concord_proto::AttemptId {
        concord_proto::AttemptId {
            number: self.u32(),
            entry: self.digest(),
        }
    }

    pub fn first_half(&mut self) -> FirstHalf {
        FirstHalf {
            attempt: self.attempt(),
            previous: self.flag().then(|| self.attempt()),
            job: self.job(),
            step: self.u32(),
            epoch: self.u32(),
            plan: self.digest(),
            arithmetic: self.u32(),
            leaf_root: self.digest(),
        }
    }

    pub fn claim(&mut self) -> Claim {
        Claim {
            job: self.job(),
            step: self.u32(),
            epoch: self.u32(),
            first_half: self.digest(),
            device: self.text(),
            leaf_root: self.digest(),
            state: self.list(Self::tensor_state),
        }
    }

    pub fn plan(&mut self) -> Plan {
        Plan {
            job: self.job(),
            epoch: self.u32(),
            stages: self.list(Self::layers),
            replicas: self.list(|s| Replica {
                workers: s.list(Self::key),
                start: s.u32(),
                end: s.u32(),
            }),
        }
    }

    pub fn record(&mut self) -> StepRecord {
        StepRecord {
            job: self.job(),
            previous: self.digest(),
            step: self.u32(),
            batch_root: self.digest(),
            loss: self.bits(),
            grad_norm: self.bits(),
            learning_rate: self.bits(),
            state_root: self.digest(),
            optimizer_root: self.digest(),
        }
    }

    pub fn lora(&mut self) -> LoraUpdates {
        LoraUpdates {
            rank: self.u32(),
            alpha: self.bits(),
            targets: self.list(Self::text),
            others: self.list(|s| OtherUpdate {
                module: s.text(),
                update: s.flag().then(|| UpdateSize {
                    rank: s.u32(),
                    alpha: s.bits(),
                }),
            }),
            saved: self.list(Self::text),
            use_dora: self.flag(),
        }
    }

    pub fn spec(&mut self) -> JobSpec {
        let adapter = match self.flag() {
            true => AdapterSpec::Full,
            false => AdapterSpec::Lora(self.lora()),
        };
        let order = match self.flag() {
            true => Order::AsGiven,
            false => Order::Shuffled { seed: self.u64() },
        };
        let kinds = [
            ScheduleKind::Cosine,
            ScheduleKind::Linear,
            ScheduleKind::Constant,
            ScheduleKind::FromZero(CurveFromZero::Cosine { floor: self.bits() }),
            ScheduleKind::FromZero(CurveFromZero::Linear),
            ScheduleKind::FromZero(CurveFromZero::Constant),
            ScheduleKind::FromZero(CurveFromZero::InverseSqrt),
        ];
        JobSpec {
            arithmetic: self.u32(),
            model: self.digest(),
            data: self.digest(),
            adapter,
            initial_state: self.digest(),
            trainable: self.list(Self::trainable),
            layers: self.u32(),
            order,
            micro_batch_size: self.u32(),
            microbatches: self.u32(),
            steps: self.u32(),
            optimizer: Optimizer {
                rule: UpdateRule::AdamW {
                    beta1: self.bits(),
                    beta2: self.bits(),
                    epsilon: self.bits(),
                    moments: match self.flag() {
                        true => MomentFormat::F32,
                        false => MomentFormat::Bits8,
                    },
                },
                weight_decay: self.bits(),
                max_grad_norm: self.bits(),
            },
            schedule: RateSchedule {
                b_ratio: None,
                kind: kinds[self.below(7) as usize],
                learning_rate: self.bits(),
                warmup_steps: self.u32(),
            },
            precision: PrecisionSpec {
                weights: self.u64() as u8,
                activations: self.u64() as u8,
            },
            loss_limit: self.flag().then(|| LossLimit {
                threshold: self.bits(),
                updates: self.u32(),
            }),
            evaluation: self.flag().then(|| self.evaluation()),
            regularization: Regularization {
                lora_dropout: self.bits(),
                embedding_noise: self.bits(),
                label_smoothing: self.bits(),
                z_loss: self.bits(),
                seed: self.u64(),
            },
        }
    }

    fn evaluation(&mut self) -> EvaluationSpec {
        let sequences = self.u32();
        EvaluationSpec {
            held_out: match self.flag() {
                true => HeldOut::Last { sequences },
                false => HeldOut::Drawn {
                    sequences,
                    seed: self.u64(),
                },
            },
            micro_batch_size: self.u32(),
            every: self.u32(),
            at_start: self.flag(),
            patience: self.flag().then(|| Patience {
                evaluations: self.u32(),
                threshold: self.bits(),
            }),
            keep_best: self.flag(),
        }
    }

    pub fn trainable(&mut self) -> TrainedTensor {
        let places = [
            ModelPlace::Embed,
            ModelPlace::Layer(self.u32()),
            ModelPlace::Head,
            ModelPlace::EmbedAndHead,
        ];
        TrainedTensor {
            name: self.text(),
            shape: self.list(Self::u64),
            place: places[self.below(4) as usize],
            decays: self.below(2) == 1,
        }
    }

    pub fn open_request(&mut self) -> OpenRequest {
        OpenRequest {
            job: self.job(),
            epoch: self.u32(),
            step: self.u32(),
            phase: self.phase(),
            microbatch: self.u32(),
        }
    }

    pub fn address_challenge(&mut self) -> AddressChallenge {
        AddressChallenge {
            worker: self.key(),
            nonce: self.digest().0,
        }
    }

    pub fn address_proof(&mut self) -> AddressProof {
        AddressProof {
            signature: self.signature(),
        }
    }

    pub fn opening(&mut self) -> Opening {
        match self.below(3) {
            0 => Opening::Inputs(self.list(|s| s.list(Self::digest))),
            1 => Opening::Again {
                values: self.list(Self::digest),
                microbatches: self.list(|s| OpenedMicrobatch {
                    activation: s.flag().then(|| s.digest()),
                    gradient: s.flag().then(|| s.digest()),
                }),
            },
            _ => Opening::Gone,
        }
    }

    pub fn frame_header(&mut self) -> FrameHeader {
        FrameHeader {
            attempt: self.attempt(),
            job: self.job(),
            epoch: self.u32(),
            step: self.u32(),
            microbatch: self.u32(),
            port: self.port(),
            origin: self.origin(),
            bytes: self.u64(),
        }
    }

    pub fn watch_request(&mut self) -> WatchRequest {
        WatchRequest {
            job: self.job(),
            from: self.u64(),
        }
    }

    pub fn path(&mut self) -> merkle::MerklePath {
        merkle::MerklePath {
            index: self.u32(),
            count: self.u32(),
            siblings: self.list(Self::digest),
        }
    }
}
