//! What judges say of answers, and what follows from it.

use concord_proto::WorkerId;
use concord_proto::ledger::Offence;
use concord_proto::serving::AnswerVerdict;

use super::{AnswerAudit, AnswerAudits, EventContext, Judgement};

/// What is to follow from the audit of an answer, in this order.
pub(in crate::core::serving) enum AnswerDecision {
    Convict {
        worker: WorkerId,
        offence: Offence,
        evidence: String,
    },
    /// Nothing proves who is wrong.
    Distrust { worker: WorkerId, reason: String },
}

/// Whom a verdict accuses.
fn accused(verdict: &AnswerVerdict) -> Vec<WorkerId> {
    match verdict {
        AnswerVerdict::WrongStage { worker, .. }
        | AnswerVerdict::WrongDraw { worker, .. }
        | AnswerVerdict::WrongLogprob { worker, .. } => vec![*worker],
        AnswerVerdict::Gap { sender, receiver } => vec![*sender, *receiver],
        AnswerVerdict::Agrees
        | AnswerVerdict::Altered { .. }
        | AnswerVerdict::Inconclusive { .. } => Vec::new(),
    }
}

impl AnswerAudits {
    pub(in crate::core::serving) fn answer(
        &mut self,
        context: &mut EventContext,
        order: u64,
        said: Judgement,
    ) -> Vec<AnswerDecision> {
        // The order was handed on since: the verdict is late.
        let Some(number) = self.ordered(order, said.judge) else {
            return Vec::new();
        };
        let Some(audit) = self.open.get_mut(&number) else {
            return Vec::new();
        };
        let Judgement { judge, verdict } = &said;
        audit.pass_on(context.now, *judge);
        match verdict {
            AnswerVerdict::Inconclusive { why } => {
                let name = &audit.name;
                tracing::warn!(judge = %judge.short(), receipt = name, why, "not judged");
                return Vec::new();
            }
            AnswerVerdict::Altered { what } => {
                tracing::error!(
                    judge = %judge.short(), receipt = audit.name, what,
                    "a judge says that this coordinator altered an answer"
                );
                self.open.remove(&number);
                self.differed += 1;
                return Vec::new();
            }
            AnswerVerdict::Agrees
            | AnswerVerdict::WrongStage { .. }
            | AnswerVerdict::Gap { .. }
            | AnswerVerdict::WrongDraw { .. }
            | AnswerVerdict::WrongLogprob { .. } => {}
        }
        // A judge that accuses a stranger has not looked at the receipt.
        let knows = |id: &WorkerId| audit.signers.contains(id);
        if !accused(verdict).iter().all(knows) {
            return Vec::new();
        }
        let verdict = verdict.clone();
        audit.said.push(said);
        let agree = |said: &&Judgement| said.verdict == verdict;
        let count = audit.said.iter().filter(agree).count();
        let is_first = audit.said.len() == 1;
        if verdict == AnswerVerdict::Agrees && (is_first || count > 1) {
            return self.accept(context, number);
        }
        if count > 1 {
            return self.follow(context, number, &verdict);
        }
        tracing::warn!(
            receipt = audit.name,
            ?verdict,
            "a judge differs: another one is asked"
        );
        Vec::new()
    }

    /// The answer is right; a judge that called it wrong was wrong, because two others agree.
    fn accept(&mut self, context: &mut EventContext, number: u64) -> Vec<AnswerDecision> {
        let Some(audit) = self.open.remove(&number) else {
            return Vec::new();
        };
        self.agreed += 1;
        for signer in &audit.signers {
            context.note_passed(signer);
        }
        note_answered(context, &audit, &AnswerVerdict::Agrees);
        let others = audit.said.into_iter();
        let others = others.filter(|said| said.verdict != AnswerVerdict::Agrees);
        let convict = |said: Judgement| AnswerDecision::Convict {
            worker: said.judge,
            offence: Offence::FalseVerdict,
            evidence: format!(
                "it called the answer {} wrong; two found it right",
                audit.name
            ),
        };
        others.map(convict).collect()
    }

    /// Two judges say the same.
    fn follow(
        &mut self,
        context: &mut EventContext,
        number: u64,
        verdict: &AnswerVerdict,
    ) -> Vec<AnswerDecision> {
        let Some(audit) = self.open.remove(&number) else {
            return Vec::new();
        };
        self.differed += 1;
        note_answered(context, &audit, verdict);
        let evidence = format!("answer {}: {}", audit.name, words(verdict));
        let mut decisions = Vec::new();
        match verdict {
            AnswerVerdict::WrongStage { worker, .. }
            | AnswerVerdict::WrongDraw { worker, .. }
            | AnswerVerdict::WrongLogprob { worker, .. } => {
                decisions.push(AnswerDecision::Convict {
                    worker: *worker,
                    offence: Offence::WrongResult,
                    evidence: evidence.clone(),
                });
            }
            // Only what they signed at the time could show which of the two lies.
            AnswerVerdict::Gap { .. } => {
                let distrust = |worker| AnswerDecision::Distrust {
                    worker,
                    reason: evidence.clone(),
                };
                decisions.extend(accused(verdict).into_iter().map(distrust));
            }
            AnswerVerdict::Agrees
            | AnswerVerdict::Altered { .. }
            | AnswerVerdict::Inconclusive { .. } => {}
        }
        for said in audit.said {
            if said.verdict == AnswerVerdict::Agrees {
                decisions.push(AnswerDecision::Convict {
                    worker: said.judge,
                    offence: Offence::FalseVerdict,
                    evidence: evidence.clone(),
                });
            }
        }
        decisions
    }

    /// Nobody is left to ask.
    pub(in crate::core::serving) fn give_up(&mut self, number: u64) -> Vec<AnswerDecision> {
        let Some(audit) = self.open.remove(&number) else {
            return Vec::new();
        };
        let mut said = audit.said.iter();
        let Some(accusing) = said.find(|said| !accused(&said.verdict).is_empty()) else {
            tracing::warn!(receipt = audit.name, "nobody is there to judge an answer");
            return Vec::new();
        };
        self.differed += 1;
        let mut said = audit.said.iter();
        if said.any(|said| said.verdict == AnswerVerdict::Agrees) {
            tracing::error!(
                receipt = audit.name,
                "two judges differ, and no third is there"
            );
            return Vec::new();
        }
        let (words, judge) = (words(&accusing.verdict), accusing.judge.short());
        let reason = format!("answer {}: {words}, says {judge}", audit.name);
        let distrust = |worker| AnswerDecision::Distrust {
            worker,
            reason: reason.clone(),
        };
        accused(&accusing.verdict)
            .into_iter()
            .map(distrust)
            .collect()
    }
}

/// Counts an audit for those whose verdict was right.
fn note_answered(context: &mut EventContext, audit: &AnswerAudit, right: &AnswerVerdict) {
    for said in audit.said.iter().filter(|said| said.verdict == *right) {
        context.members.note_answered(&said.judge, 1);
    }
}

fn words(verdict: &AnswerVerdict) -> String {
    match verdict {
        AnswerVerdict::Agrees => "it is right".to_string(),
        AnswerVerdict::WrongStage {
            worker,
            layers,
            expected,
            claimed,
        } => format!(
            "worker {} claims {} of layers {layers}, and it is {}",
            worker.short(),
            claimed.short(),
            expected.short()
        ),
        AnswerVerdict::Gap { sender, receiver } => format!(
            "worker {} claims to have sent something else than worker {} claims to have received",
            sender.short(),
            receiver.short()
        ),
        AnswerVerdict::WrongDraw {
            worker,
            index,
            expected,
            found,
        } => format!(
            "worker {} drew token {found} at {index}, and it is {expected}",
            worker.short()
        ),
        AnswerVerdict::WrongLogprob {
            worker, position, ..
        } => format!(
            "worker {} gave other logprobs of token {position} than its hidden states give",
            worker.short()
        ),
        AnswerVerdict::Altered { what } | AnswerVerdict::Inconclusive { why: what } => what.clone(),
    }
}
