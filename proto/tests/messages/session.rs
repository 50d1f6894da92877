//! Values of what coordinator and workers say to each other.

use concord_proto::serving::{AnswerVerdict, AuditedAnswer, DeploymentId};
use concord_proto::session::*;
use concord_proto::*;

use super::{Source, Variants};

impl Source {
    pub fn losses(&mut self) -> Vec<MicrobatchLoss> {
        self.list(|s| MicrobatchLoss {
            microbatch: s.u32(),
            sum: s.bits(),
        })
    }

    pub fn norms(&mut self) -> Vec<TensorNorm> {
        self.list(|s| TensorNorm {
            tensor: s.u32(),
            squared: s.bits(),
        })
    }

    pub fn scalars(&mut self) -> Scalars {
        Scalars {
            step: self.u32(),
            first_halves: self.list(Self::digest),
            losses: self.losses(),
            norms: self.norms(),
            targets: self.u64(),
        }
    }

    pub fn device(&mut self) -> DeviceInfo {
        DeviceInfo {
            name: self.text(),
            macs_per_second: self.u64(),
            memory_bytes: self.u64(),
        }
    }

    pub fn role(&mut self) -> Role {
        [Role::Worker, Role::Checker, Role::Auditor][self.below(3) as usize]
    }

    pub fn hello(&mut self) -> Hello {
        let held = Held {
            job: self.job(),
            step: self.u32(),
            layers: self.layers(),
        };
        Hello {
            role: self.role(),
            protocol: self.u32(),
            arithmetic: self.u32(),
            device: self.device(),
            endpoint: self.text(),
            held: self.flag().then_some(held),
            challenge: [self.u32() as u8; 32],
        }
    }

    fn said_of_stages(&mut self, variant: u64, epoch: u32) -> ToCoordinator {
        let deployment = DeploymentId(self.digest());
        match variant {
            12 => ToCoordinator::StandsBy {
                deployment,
                epoch,
                layers: self.list(Self::layers),
            },
            _ => ToCoordinator::StageFailed {
                deployment,
                epoch,
                reason: self.text(),
                permanent: self.flag(),
            },
        }
    }

    pub fn sent_up(&mut self, variant: u64) -> ToCoordinator {
        let (job, epoch, step) = (self.job(), self.u32(), self.u32());
        match variant {
            0 => ToCoordinator::Hello(self.hello()),
            1 => ToCoordinator::Heartbeat,
            2 => ToCoordinator::Ready { job, epoch },
            3 => ToCoordinator::Failed {
                job,
                epoch,
                reason: self.text(),
                permanent: self.flag(),
            },
            4 => ToCoordinator::Computed {
                job,
                epoch,
                step,
                first_half: self.signed(),
                leaves: self.list(Self::leaf),
                losses: self.losses(),
                norms: self.norms(),
            },
            5 => ToCoordinator::Updated {
                claim: self.signed(),
                leaves: self.list(Self::leaf),
            },
            6 => ToCoordinator::Flushed {
                job,
                step,
                state: self.list(Self::tensor_state),
            },
            7 => ToCoordinator::Verdict {
                order: self.u64(),
                verdict: self.signed(),
            },
            8 => ToCoordinator::Enrolled {
                enrolment: self.signed(),
            },
            9 => ToCoordinator::Revealed {
                reveal: self.signed(),
            },
            10 => ToCoordinator::Drain,
            12 | 13 => self.said_of_stages(variant, epoch),
            14 => {
                let variant = self.below(AnswerVerdict::count());
                ToCoordinator::AnswerVerdict {
                    order: self.u64(),
                    verdict: self.answer_verdict(variant),
                }
            }
            15 => ToCoordinator::Unreached {
                job,
                epoch,
                worker: self.key(),
                reason: self.text(),
            },
            11 => ToCoordinator::OutOfMemory {
                job,
                epoch,
                reason: self.text(),
                needed_bytes: self.u64(),
                limit_bytes: self.u64(),
            },
            _ => panic!("ToCoordinator has no variant {variant} to make"),
        }
    }

    pub fn assignment(&mut self) -> Assignment {
        Assignment {
            plan: self.plan(),
            spec: self.digest(),
            state: self.digest(),
            endpoints: self.list(Self::text),
            recompute: self.flag(),
            depth: self.u32(),
        }
    }

    pub fn audit_order(&mut self) -> AuditOrder {
        AuditOrder {
            order: self.u64(),
            spec: self.digest(),
            job: self.job(),
            attempt: self.u32(),
            epoch: self.u32(),
            step: self.u32(),
            worker: self.key(),
            index: self.u32(),
            endpoint: self.text(),
            leaf: self.leaf(),
        }
    }

    fn enrol_order(&mut self) -> EnrolOrder {
        EnrolOrder {
            job: self.job(),
            from: self.u32(),
            length: self.u32(),
            rate: self.u64(),
            known: self.flag().then(|| self.digest()),
            last: self.flag().then(|| self.digest()),
        }
    }

    pub fn sent_down(&mut self, variant: u64) -> ToWorker {
        let (job, epoch, step) = (self.job(), self.u32(), self.u32());
        match variant {
            0 => ToWorker::Welcome {
                coordinator: self.key(),
                heartbeat_ms: self.u32(),
            },
            1 => ToWorker::Refused {
                reason: self.text(),
            },
            2 => ToWorker::Assign(Box::new(self.assignment())),
            3 => ToWorker::Step {
                job,
                epoch,
                step,
                started: self.signed(),
            },
            4 => ToWorker::Scalars {
                job,
                epoch,
                scalars: self.scalars(),
            },
            5 => ToWorker::Commit {
                job,
                epoch,
                step,
                record: self.digest(),
                release_below: self.u32(),
            },
            6 => ToWorker::Audited(AuditedStep {
                job,
                epoch,
                step,
                leaves: self.list(Self::leaf_key),
            }),
            7 => ToWorker::Enrol(self.enrol_order()),
            8 => ToWorker::Reveal {
                job,
                committed: self.signed(),
            },
            9 => ToWorker::Abort { job, epoch },
            10 => ToWorker::Flush { job },
            11 => ToWorker::Forget { job },
            12 => ToWorker::Audit(Box::new(self.audit_order())),
            13 => ToWorker::Leave,
            14 => ToWorker::Challenge {
                nonce: [self.u32() as u8; 32],
            },
            15 => ToWorker::Serve(Box::new(self.stage_assignment())),
            16 => ToWorker::Unserve {
                deployment: DeploymentId(self.digest()),
            },
            17 => ToWorker::AuditAnswer(AuditedAnswer {
                order: self.u64(),
                receipt: self.digest(),
            }),
            18 => ToWorker::Unreached {
                reason: self.text(),
            },
            _ => panic!("ToWorker has no variant {variant} to make"),
        }
    }
}
