//! Answers are handed out to be computed again, and what judges say is carried out.

use concord_proto::WorkerId;
use concord_proto::serving::AnswerVerdict;

use super::audits::{AnswerDecision, Judgement, NextJudge};
use super::{Deployed, EventContext};

impl Deployed {
    /// Hands out what waits, takes back what was not answered, gives up what cannot be judged.
    pub(super) fn run_audits(&mut self, context: &mut EventContext) {
        for number in self.audits.take_back(context) {
            let (workers, pipelines) = (&self.workers, &self.pipelines);
            match self.audits.next_judge(context, workers, pipelines, number) {
                Some(NextJudge::Ask(judge)) => self.audits.order(context, number, judge),
                Some(NextJudge::Wait) | None => {}
                Some(NextJudge::GiveUp) => {
                    let decisions = self.audits.give_up(number);
                    self.carry_out(context, decisions);
                }
            }
        }
    }

    pub(super) fn on_verdict(
        &mut self,
        context: &mut EventContext,
        judge: WorkerId,
        order: u64,
        verdict: AnswerVerdict,
    ) {
        let said = Judgement { judge, verdict };
        let decisions = self.audits.answer(context, order, said);
        self.carry_out(context, decisions);
    }

    fn carry_out(&mut self, context: &mut EventContext, decisions: Vec<AnswerDecision>) {
        for decision in decisions {
            match decision {
                AnswerDecision::Convict {
                    worker,
                    offence,
                    evidence,
                } => self.convict(context, worker, offence, &evidence),
                AnswerDecision::Distrust { worker, reason } => {
                    self.distrust(context, worker, &reason);
                }
            }
        }
    }
}
