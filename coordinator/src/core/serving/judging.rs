//! Answers that are computed again: what follows from what judges say.

use concord_proto::WorkerId;
use concord_proto::ledger::Offence;
use concord_proto::serving::AnswerVerdict;

use super::super::desk::Desk;
use super::Deployed;
use super::audits::Audit;

/// Whom a verdict accuses.
fn accused(verdict: &AnswerVerdict) -> Vec<WorkerId> {
    match verdict {
        AnswerVerdict::WrongStage { worker, .. } | AnswerVerdict::WrongDraw { worker, .. } => {
            vec![*worker]
        }
        AnswerVerdict::Gap { sender, receiver } => vec![*sender, *receiver],
        AnswerVerdict::Agrees
        | AnswerVerdict::Altered { .. }
        | AnswerVerdict::Inconclusive { .. } => Vec::new(),
    }
}

impl Deployed {
    pub(super) fn on_verdict(
        &mut self,
        desk: &mut Desk,
        judge: WorkerId,
        order: u64,
        verdict: AnswerVerdict,
    ) {
        let mut open = self.audits.open.iter_mut();
        let is_asked = |ordered: Option<(u64, WorkerId, _)>| {
            ordered.is_some_and(|(number, id, _)| number == order && id == judge)
        };
        // An order that was handed on since: the answer is late.
        let Some((&number, audit)) = open.find(|(_, audit)| is_asked(audit.ordered)) else {
            return;
        };
        audit.pass_on(desk.now, judge);
        let name = audit.name.clone();
        let knows = |id: &WorkerId| audit.signers.contains(id);
        match &verdict {
            AnswerVerdict::Inconclusive { why } => {
                tracing::warn!(judge = %judge.short(), receipt = name, why, "not judged");
                return;
            }
            AnswerVerdict::Altered { what } => {
                tracing::error!(
                    judge = %judge.short(), receipt = name, what,
                    "a judge says that this coordinator altered an answer"
                );
                self.audits.open.remove(&number);
                self.audits.differed += 1;
                return;
            }
            // Whoever accuses a stranger has not looked at the receipt.
            _ if !accused(&verdict).iter().all(knows) => return,
            _ => {}
        }
        audit.said.push((judge, verdict.clone()));
        let agree = |(_, said): &&(WorkerId, AnswerVerdict)| *said == verdict;
        let count = audit.said.iter().filter(agree).count();
        let is_first = audit.said.len() == 1;
        if verdict == AnswerVerdict::Agrees && (is_first || count > 1) {
            self.accept(desk, number);
        } else if count > 1 {
            self.carry_out(desk, number, &verdict);
        } else {
            tracing::warn!(
                judge = %judge.short(), receipt = name, ?verdict,
                "a judge differs: another one is asked"
            );
        }
    }

    /// The answer is right; whoever called it wrong was wrong, because two others agree.
    fn accept(&mut self, desk: &mut Desk, number: u64) {
        let Some(audit) = self.audits.open.remove(&number) else {
            return;
        };
        self.audits.agreed += 1;
        for signer in &audit.signers {
            if let Some(member) = desk.pool.get_mut(signer) {
                member.passed += 1;
                let kept = member.kept();
                desk.out.keep(kept);
            }
        }
        note_answered(desk, &audit, &AnswerVerdict::Agrees);
        let others = audit.said.into_iter();
        for (judge, _) in others.filter(|(_, said)| *said != AnswerVerdict::Agrees) {
            let evidence = format!(
                "it called the answer {} wrong; two found it right",
                audit.name
            );
            self.convict(desk, judge, Offence::FalseVerdict, &evidence);
        }
    }

    /// Two judges say the same.
    fn carry_out(&mut self, desk: &mut Desk, number: u64, verdict: &AnswerVerdict) {
        let Some(audit) = self.audits.open.remove(&number) else {
            return;
        };
        self.audits.differed += 1;
        note_answered(desk, &audit, verdict);
        let evidence = format!("answer {}: {}", audit.name, words(verdict));
        match verdict {
            AnswerVerdict::WrongStage { worker, .. } | AnswerVerdict::WrongDraw { worker, .. } => {
                self.convict(desk, *worker, Offence::WrongResult, &evidence);
            }
            // Which of the two lies only what they signed at the time could show.
            AnswerVerdict::Gap { .. } => {
                for worker in accused(verdict) {
                    self.distrust(desk, worker, evidence.clone());
                }
            }
            _ => {}
        }
        for (judge, said) in audit.said {
            if said == AnswerVerdict::Agrees {
                self.convict(desk, judge, Offence::FalseVerdict, &evidence);
            }
        }
    }

    /// Nobody is left to ask.
    pub(super) fn give_up(&mut self, desk: &mut Desk, number: u64) {
        let Some(audit) = self.audits.open.remove(&number) else {
            return;
        };
        let mut accusing = audit
            .said
            .iter()
            .filter(|(_, said)| !accused(said).is_empty());
        let Some((judge, verdict)) = accusing.next() else {
            tracing::warn!(receipt = audit.name, "nobody is there to judge an answer");
            return;
        };
        self.audits.differed += 1;
        if audit
            .said
            .iter()
            .any(|(_, said)| said == &AnswerVerdict::Agrees)
        {
            tracing::error!(
                receipt = audit.name,
                "two judges differ, and no third is there"
            );
            return;
        }
        let words = words(verdict);
        let reason = format!("answer {}: {words}, says {}", audit.name, judge.short());
        for worker in accused(verdict) {
            self.distrust(desk, worker, reason.clone());
        }
    }

    /// What a convicted judge has said counts no more.
    pub(super) fn distrust_judge(&mut self, desk: &Desk, judge: WorkerId) {
        for audit in self.audits.open.values_mut() {
            audit.said.retain(|(id, _)| *id != judge);
            if audit.ordered.is_some_and(|(_, id, _)| id == judge) {
                audit.pass_on(desk.now, judge);
            }
        }
    }
}

/// Counts an audit for those whose verdict was right.
fn note_answered(desk: &mut Desk, audit: &Audit, right: &AnswerVerdict) {
    for (judge, _) in audit.said.iter().filter(|(_, said)| said == right) {
        desk.pool.note_answered(judge);
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
            "worker {} claims {} of layers {}..{}, and it is {}",
            worker.short(),
            claimed.short(),
            layers.start,
            layers.end,
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
        AnswerVerdict::Altered { what } | AnswerVerdict::Inconclusive { why: what } => what.clone(),
    }
}
