//! Values of what clients say and hear.

use concord_proto::ExpertCuts;
use concord_proto::client::*;

use super::Source;

impl Source {
    pub fn expert_cuts(&mut self) -> ExpertCuts {
        ExpertCuts {
            experts: self.u32(),
            expert_bytes: self.u64(),
            expert_state_bytes: self.u64(),
            boundary_bytes: self.u64(),
        }
    }

    pub fn submission(&mut self) -> Submission {
        let choice = match self.flag() {
            true => PlanChoice::Auto,
            false => PlanChoice::Fixed {
                stages: self.u32(),
                replicas: self.u32(),
                shares: self.list(Self::u32),
            },
        };
        Submission {
            spec: self.spec(),
            profile: ModelProfile {
                layer_macs: self.u64(),
                head_macs: self.u64(),
                layer_bytes: self.u64(),
                embed_bytes: self.u64(),
                head_bytes: self.u64(),
                shared_bytes: self.u64(),
                layer_state_bytes: self.u64(),
                layer_gradient_bytes: self.u64(),
                layer_activation_bytes: self.u64(),
                workspace_bytes: self.u64(),
                boundary_bytes: self.u64(),
                microbatch_tokens: self.u64(),
                backward_percent: self.u32(),
                cuts: self.expert_cuts(),
            },
            options: RunOptions {
                name: self.text(),
                plan: choice,
                min_workers: self.u32(),
                checkers: self.u32(),
                checkpoint_every: self.u32(),
                checkpoints_kept: self.u32(),
                replay_every: self.u32(),
                audit_rate: self.u64(),
                recheck_rate: self.u64(),
                recompute: self.flag(),
                auditors: self.list(|s| NamedAuditor {
                    key: s.key(),
                    rate: s.u64(),
                }),
            },
        }
    }

    pub fn client_request(&mut self, variant: u64) -> ClientRequest {
        match variant {
            0 => ClientRequest::MissingBlobs(self.list(Self::digest)),
            1 => ClientRequest::Submit(Box::new(self.submission())),
            2 => ClientRequest::Jobs,
            3 => ClientRequest::Status,
            4 => ClientRequest::Cancel(self.job()),
            5 => ClientRequest::Bundle(self.job()),
            6 => ClientRequest::Fetched {
                job: self.job(),
                steps: self.u32(),
            },
            _ => panic!("ClientRequest has no variant {variant} to make"),
        }
    }

    pub fn job_state(&mut self) -> JobState {
        match self.below(6) {
            0 => JobState::Waiting(self.text()),
            1 => JobState::Running,
            2 => JobState::Auditing,
            3 => JobState::Completed {
                record: self.digest(),
                state: self.digest(),
            },
            4 => JobState::Failed(self.text()),
            _ => JobState::Cancelled,
        }
    }

    pub fn summary(&mut self) -> JobSummary {
        JobSummary {
            job: self.job(),
            name: self.text(),
            state: self.job_state(),
            step: self.u32(),
            steps: self.u32(),
            loss: self.flag().then(|| self.bits()),
        }
    }

    pub fn member(&mut self) -> MemberStatus {
        MemberStatus {
            id: self.key(),
            role: self.role(),
            device: self.device(),
            doing: self.text(),
            audits_passed: self.u64(),
        }
    }

    pub fn client_response(&mut self, variant: u64) -> ClientResponse {
        match variant {
            0 => ClientResponse::MissingBlobs(self.list(Self::digest)),
            1 => ClientResponse::Submitted(self.job()),
            2 => ClientResponse::Jobs(self.list(Self::summary)),
            3 => ClientResponse::Status(PoolStatus {
                coordinator: self.key(),
                members: self.list(Self::member),
                convicted: self.list(Self::key),
                jobs: self.list(Self::summary),
            }),
            4 => ClientResponse::Cancelled,
            5 => ClientResponse::Bundle(self.digest()),
            6 => ClientResponse::Refused(self.text()),
            7 => ClientResponse::Noted,
            _ => panic!("ClientResponse has no variant {variant} to make"),
        }
    }

    pub fn job_event(&mut self, variant: u64) -> JobEvent {
        match variant {
            0 => JobEvent::Waiting(self.text()),
            1 => JobEvent::Planned {
                plan: self.plan(),
                devices: self.list(Self::text),
                predicted_step_us: self.u64(),
                step: self.u32(),
                reason: self.text(),
            },
            2 => JobEvent::Step {
                step: self.u32(),
                loss: self.bits(),
                grad_norm: self.bits(),
                learning_rate: self.bits(),
                tokens: self.u64(),
                micros: self.u64(),
                record: self.digest(),
            },
            3 => JobEvent::Lost {
                worker: self.key(),
                reason: self.text(),
            },
            4 => JobEvent::Audited {
                worker: self.key(),
                checker: self.key(),
                step: self.u32(),
                evaluation: self.flag(),
                leaf: self.text(),
            },
            5 => JobEvent::Convicted {
                culprit: self.key(),
                offence: self.offence(),
                evidence: self.text(),
            },
            6 => JobEvent::Voided {
                from_step: self.u32(),
            },
            7 => JobEvent::Completed {
                record: self.digest(),
                state: self.digest(),
                audits: self.u64(),
                inconclusive: self.u64(),
            },
            8 => JobEvent::Failed(self.text()),
            9 => JobEvent::Cancelled,
            10 => JobEvent::Evaluated {
                step: self.u32(),
                loss: self.bits(),
                is_best: self.flag(),
                tokens: self.u64(),
                micros: self.u64(),
                record: self.digest(),
            },
            11 => JobEvent::Stopped {
                step: self.u32(),
                best_step: self.u32(),
                best_loss: self.bits(),
            },
            12 => JobEvent::Saved {
                steps: self.u32(),
                state: self.digest(),
            },
            _ => panic!("JobEvent has no variant {variant} to make"),
        }
    }
}
