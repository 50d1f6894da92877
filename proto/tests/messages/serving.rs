//! Values of what is said while a model is served.

use concord_proto::serving::*;
use concord_proto::{Digest, Origin};

use super::Source;

impl Source {
    pub fn deployment(&mut self) -> Deployment {
        Deployment {
            arithmetic: self.u32(),
            model: self.digest(),
            tokenizer: self.digest(),
            layers: self.u32(),
            vocab: self.u32(),
            positions: self.u32(),
            precision: self.served_precision(),
        }
    }

    fn served_precision(&mut self) -> ServedPrecision {
        let (weights, activations) = (self.u32() as u8, self.u32() as u8 >> 1);
        ServedPrecision {
            weights,
            activations,
            key_values: match self.flag() {
                true => activations,
                false => self.u32() as u8,
            },
        }
    }

    pub fn stage_assignment(&mut self) -> StageAssignment {
        StageAssignment {
            deployment: self.deployment(),
            pipeline: self.u32(),
            epoch: self.u32(),
            ticket: self.digest().0,
            stages: self.list(Self::layers),
            workers: self.list(Self::key),
            endpoints: self.list(Self::text),
            stage: self.flag().then(|| self.u32()),
            pages: self.u32(),
            adapters: self.list(Self::digest),
            standby: self.list(Self::layers),
        }
    }

    pub fn stage_stream_hello(&mut self) -> StageStreamHello {
        StageStreamHello {
            deployment: DeploymentId(self.digest()),
            pipeline: self.u32(),
            epoch: self.u32(),
            stage: self.u32(),
            ticket: self.digest().0,
        }
    }

    fn run(&mut self) -> SequenceRun {
        SequenceRun {
            sequence: self.u64(),
            first: self.u32(),
            count: self.u32(),
            pages: self.list(Self::u32),
            adapter: self.flag().then(|| self.digest()),
        }
    }

    pub fn pass_header(&mut self) -> PassHeader {
        PassHeader {
            deployment: DeploymentId(self.digest()),
            epoch: self.u32(),
            pass: self.u64(),
            runs: self.list(Self::run),
            rows: self.list(Self::digest),
            origin: Origin {
                worker: self.key(),
                signature: self.signature(),
            },
        }
    }

    fn draw(&mut self) -> Draw {
        let sample = |s: &mut Self| SampleOrder {
            temperature: s.bits(),
            top_k: s.u32(),
            top_p: s.bits(),
            seed: s.u64(),
            bias: s.list(|s| (s.u32(), s.bits())),
            allowed: s.flag().then(|| s.list(|s| s.u64() as u8)),
        };
        Draw {
            run: self.u32(),
            sample: self.flag().then(|| sample(self)),
            targets: self.list(Self::u32),
            target_logprobs: self.u32() as u8,
            logprobs: self.flag().then(|| self.u32() as u8),
        }
    }

    fn token_logprob(&mut self) -> TokenLogprob {
        TokenLogprob {
            token: self.u32(),
            logprob: self.bits(),
            top: self.list(|s| (s.u32(), s.bits())),
        }
    }

    pub fn said_to_stage(&mut self, variant: u64) -> ToStage {
        match variant {
            0 => ToStage::Pass(Pass {
                number: self.u64(),
                runs: self.list(Self::run),
                tokens: self.list(Self::u32),
            }),
            1 => ToStage::Draws(DrawOrder {
                pass: self.u64(),
                draws: self.list(Self::draw),
            }),
            2 => ToStage::Claim(ClaimOrder {
                order: self.u64(),
                sequence: self.u64(),
                spec: self.digest(),
                prompt: self.u32(),
                positions: self.u32(),
                pages: self.list(Self::u32),
            }),
            3 => ToStage::Evidence {
                order: self.u64(),
                sequence: self.u64(),
            },
            4 => ToStage::Forget {
                sequence: self.u64(),
            },
            5 => ToStage::AddAdapter(self.digest()),
            6 => ToStage::RemoveAdapter(self.digest()),
            _ => panic!("ToStage has no variant {variant} to make"),
        }
    }

    pub fn said_by_stage(&mut self, variant: u64) -> FromStage {
        let outcome = |s: &mut Self| if s.flag() { Ok(()) } else { Err(s.text()) };
        match variant {
            0 => FromStage::Passed(Passed {
                pass: self.u64(),
                rows: self.u32(),
                runs: self.digest(),
                broken: self.list(Self::u32),
                queue_us: self.u32(),
                compute_us: self.u32(),
                wait_us: self.u32(),
                wire_us: self.u32(),
                bytes: self.u64(),
            }),
            1 => FromStage::Result(PassResult {
                pass: self.u64(),
                drawn: self.list(|s| Drawn {
                    run: s.u32(),
                    token: s.flag().then(|| s.token_logprob()),
                    scored: s.list(Self::token_logprob),
                }),
            }),
            2 => FromStage::Claimed {
                order: self.u64(),
                claim: outcome(self).map(|()| self.signed()),
            },
            3 => FromStage::Evidence {
                order: self.u64(),
                headers: self.list(Self::pass_header),
            },
            4 => FromStage::Adapter {
                adapter: self.digest(),
                outcome: outcome(self),
            },
            5 => FromStage::Refused {
                reason: self.text(),
            },
            6 => FromStage::Failed {
                reason: self.text(),
            },
            _ => panic!("FromStage has no variant {variant} to make"),
        }
    }

    fn generation_spec(&mut self) -> GenerationSpec {
        let grammar = match self.below(4) {
            0 => None,
            1 => Some(GrammarSpec::JsonObject),
            2 => Some(GrammarSpec::JsonSchema(self.text())),
            _ => Some(GrammarSpec::Lark(self.text())),
        };
        GenerationSpec {
            deployment: DeploymentId(self.digest()),
            adapter: self.flag().then(|| self.digest()),
            prompt: self.list(Self::u32),
            sampling: SamplingSpec {
                temperature: self.bits(),
                top_k: self.u32(),
                top_p: self.bits(),
                seed: self.u64(),
                frequency_penalty: self.bits(),
                presence_penalty: self.bits(),
                logit_bias: self.list(|s| (s.u32(), s.bits())),
                grammar,
            },
            max_tokens: self.u32(),
            stop_tokens: self.list(Self::u32),
            stop_texts: self.list(Self::text),
            readings: self.list(|s| TokenReading {
                token: s.u32(),
                bytes: s.list(|s| s.u64() as u8),
                is_hidden: s.flag(),
            }),
            logprobs: self.flag().then(|| self.u32() as u8),
            prompt_logprobs: self.flag().then(|| self.u32() as u8),
        }
    }

    pub fn receipt_batch(&mut self) -> ReceiptBatch {
        ReceiptBatch {
            root: self.digest(),
            count: self.u32(),
        }
    }

    pub fn batched_receipt(&mut self) -> BatchedReceipt {
        BatchedReceipt {
            receipt: self.list(|s| s.u64() as u8),
            path: self.path(),
            batch: self.signed(),
        }
    }

    pub fn receipt(&mut self) -> Receipt {
        Receipt {
            id: self.text(),
            deployment: self.deployment(),
            model: self.text(),
            spec: self.generation_spec(),
            answer: self.list(Self::u32),
            logprobs: GivenLogprobs {
                prompt: self.list(Self::token_logprob),
                answer: self.list(Self::token_logprob),
            },
            finish: [
                Finish::StopToken,
                Finish::StopText,
                Finish::Grammar,
                Finish::Length,
                Finish::Cancelled,
            ][self.below(5) as usize],
            usage: Usage {
                prompt: self.u32(),
                cached: self.u32(),
                answer: self.u32(),
            },
            body: self.digest(),
            text: self.digest(),
            claims: self.list(Self::signed),
            issued: self.u64(),
        }
    }

    pub fn stage_claim(&mut self) -> StageClaim {
        StageClaim {
            deployment: DeploymentId(self.digest()),
            spec: self.digest(),
            arithmetic: self.u32(),
            layers: self.layers(),
            positions: self.u32(),
            input: self.digest(),
            output: self.digest(),
            drawn: self.flag().then(|| ClaimedDraws {
                earlier: self.u32(),
                tokens: self.digest(),
                scored: self.flag().then(|| self.digest()),
            }),
            device: self.text(),
        }
    }

    pub fn answer_verdict(&mut self, variant: u64) -> AnswerVerdict {
        match variant {
            0 => AnswerVerdict::Agrees,
            1 => AnswerVerdict::WrongStage {
                worker: self.key(),
                layers: self.layers(),
                expected: self.digest(),
                claimed: Digest::default(),
            },
            2 => AnswerVerdict::Gap {
                sender: self.key(),
                receiver: self.key(),
            },
            3 => AnswerVerdict::WrongDraw {
                worker: self.key(),
                index: self.u32(),
                expected: self.u32(),
                found: self.u32(),
            },
            4 => AnswerVerdict::WrongLogprob {
                worker: self.key(),
                position: self.u32(),
                expected: self.digest(),
                found: Digest::default(),
            },
            5 => AnswerVerdict::Altered { what: self.text() },
            6 => AnswerVerdict::Inconclusive { why: self.text() },
            _ => panic!("AnswerVerdict has no variant {variant} to make"),
        }
    }
}
