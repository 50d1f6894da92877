//! Claims of complete answers: ordered from all stages, handed to the receipt signer.

use concord_proto::Signed;
use concord_proto::serving::{PassHeader, ToStage};
use concord_scheduler::SchedulerEvent as Event;

use super::Pipeline;
use crate::serving::pipeline::claims::{Claimable, Claimants};
use crate::serving::pipeline::fault::StageFault;
use crate::serving::receipts::SignerRequest;

impl Pipeline {
    pub(super) fn order_claims(&mut self, claimable: &Claimable) {
        let sequence = claimable.sequence;
        let order = self.context.router.number();
        let plan = self.plan.as_ref().filter(|plan| plan.is_up());
        let who = plan.map_or(Claimants::nobody(), |plan| plan.claimants());
        let count = who.stages.len();
        if !self.claims.begin(claimable, order, who) {
            // Nobody wants the answer any more.
            self.events.push_back(Event::Claimed { sequence });
            return;
        }
        if count == 0 || claimable.pages.is_empty() {
            return self.end_claiming(sequence);
        }
        for stage in 0..count {
            self.send(stage, ToStage::Claim(claimable.order(order)));
        }
    }

    pub(super) fn on_claimed(&mut self, stage: usize, order: u64, claim: Result<Signed, String>) {
        let (claim, why) = match claim {
            Ok(claim) => (Some(claim), None),
            Err(why) => (None, Some(why)),
        };
        let Some((sequence, is_complete)) = self.claims.on_claimed(stage, order, claim) else {
            return;
        };
        if is_complete {
            self.hand_over(sequence, true);
        }
        if let Some(why) = why {
            tracing::warn!(
                pipeline = self.index,
                stage,
                why,
                "an answer is not claimed"
            );
            let worker = self.plan.as_ref().and_then(|plan| plan.holder(stage));
            if worker.is_some_and(|worker| self.claims.on_unclaimed(worker)) {
                let reason = "it does not claim what it computed";
                self.end_for(stage, StageFault::distrusted(reason));
            }
        }
    }

    /// Hands an answer with its claims to the receipt signer. `is_held` keeps the pages until the
    /// claims are checked.
    fn hand_over(&mut self, sequence: u64, is_held: bool) {
        let Some(answered) = self.claims.take(sequence, self.index, is_held) else {
            return;
        };
        let request = SignerRequest::Answered(Box::new(answered));
        let is_lost = self.context.signer.try_send(request).is_err();
        if is_lost {
            tracing::error!("the receipt signer is overloaded: a receipt is lost");
        }
        if is_lost && is_held {
            self.events.push_back(Event::Claimed { sequence });
        }
        if is_lost || !is_held {
            self.claims.remove(sequence);
        }
    }

    /// The receipt signer needs the pages of a sequence no more.
    pub(super) fn on_checked(&mut self, sequence: u64) {
        if self.claims.remove(sequence) {
            self.events.push_back(Event::Claimed { sequence });
        }
    }

    pub(super) fn ask_evidence(&mut self, sequence: u64, stage: usize) {
        if self.is_up() && self.claims.ask(sequence, stage) {
            // The order of evidence is the sequence.
            let order = sequence;
            self.send(stage, ToStage::Evidence { order, sequence });
        } else {
            self.tell_evidence(sequence, None);
        }
    }

    pub(super) fn on_evidence(&mut self, stage: usize, sequence: u64, headers: Vec<PassHeader>) {
        if self.claims.on_evidence(sequence, stage) {
            self.tell_evidence(sequence, Some(headers));
        }
    }

    fn tell_evidence(&self, sequence: u64, headers: Option<Vec<PassHeader>>) {
        let evidence = SignerRequest::Evidence { sequence, headers };
        if self.context.signer.try_send(evidence).is_err() {
            tracing::error!("the receipt signer is overloaded: evidence is lost");
        }
    }

    /// The plan is over: what was not claimed until now is not claimed.
    pub(super) fn settle_claims(&mut self) {
        for sequence in self.claims.sequences() {
            self.end_claiming(sequence);
        }
    }

    /// Hands over the claims that there are, and lets the pages go.
    fn end_claiming(&mut self, sequence: u64) {
        self.hand_over(sequence, false);
        self.claims.remove(sequence);
        self.events.push_back(Event::Claimed { sequence });
    }

    /// A stage that does not answer an order to claim in time is lost.
    pub(super) fn drop_late_claims(&mut self) {
        let late = self.claims.late(self.context.timeouts.stall);
        for sequence in late.sequences {
            self.end_claiming(sequence);
        }
        if let Some(stage) = late.silent {
            let reason = "it does not claim what it computed";
            self.end_for(stage, StageFault::lost(reason));
        }
    }
}
