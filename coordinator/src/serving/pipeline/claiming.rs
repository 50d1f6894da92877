//! Claims of complete answers: ordered from all stages, handed to the receipt signer.

use std::time::Instant;

use concord_proto::serving::{ClaimOrder, PassHeader, ToStage};
use concord_proto::{Digest, Signed};
use concord_scheduler::Event;

use super::Pipeline;
use crate::core::Seat as StageHolder;
use crate::serving::receipts::{ClaimedAnswer, HeldStage, SignerRequest};

/// So many answers a worker may leave without its claim: there is no honest reason for any.
const UNCLAIMED_MAX: u32 = 8;

/// Claims of one answer, as they come.
pub(super) struct Claiming {
    order: u64,
    epoch: u32,
    stages: Vec<HeldStage>,
    pages: Vec<u32>,
    /// By stage; the inner option is what a stage that has answered gave.
    claims: Vec<Option<Option<Signed>>>,
}

/// A complete answer, as stages are to claim it.
pub(super) struct Claimable {
    pub(super) sequence: u64,
    /// Digest of the generation's spec.
    pub(super) spec: Digest,
    /// Tokens of the prompt.
    pub(super) prompt: u32,
    pub(super) positions: u32,
    pub(super) pages: Vec<u32>,
}

impl Pipeline {
    pub(super) fn order_claims(&mut self, claimable: Claimable) {
        let Claimable {
            sequence,
            spec,
            prompt,
            positions,
            pages,
        } = claimable;
        let order = self.context.router.number();
        let current = self.epoch.as_ref().filter(|epoch| epoch.is_up);
        let number = current.map_or(0, |epoch| epoch.number);
        let holders = current.map_or(&[][..], |epoch| &epoch.holders);
        let held = |holder: &StageHolder| HeldStage {
            worker: holder.worker,
            layers: holder.layers,
        };
        let stages: Vec<HeldStage> = holders.iter().map(held).collect();
        let Some(done) = self.done.get_mut(&sequence) else {
            // Nobody wants the answer any more.
            self.events.push_back(Event::Claimed { sequence });
            return;
        };
        let count = stages.len();
        done.claiming = Some(Claiming {
            order,
            epoch: number,
            stages,
            pages: pages.clone(),
            claims: vec![None; count],
        });
        if count == 0 || pages.is_empty() {
            return self.end_claiming(sequence);
        }
        for stage in 0..count {
            let order = ClaimOrder {
                order,
                sequence,
                spec,
                prompt,
                positions,
                pages: pages.clone(),
            };
            self.send(stage, ToStage::Claim(order));
        }
    }

    pub(super) fn on_claimed(&mut self, stage: usize, order: u64, claim: Result<Signed, String>) {
        let mut all = self.done.iter_mut();
        let found = all.find_map(|(sequence, done)| {
            let claiming = done.claiming.as_mut()?;
            (claiming.order == order).then_some((*sequence, claiming))
        });
        let Some((sequence, claiming)) = found else {
            return;
        };
        let why = claim.as_ref().err().cloned();
        if let Some(slot) = claiming.claims.get_mut(stage)
            && slot.is_none()
        {
            *slot = Some(claim.ok());
        }
        if claiming.claims.iter().all(Option::is_some) {
            self.hand_over(sequence, true);
        }
        if let Some(why) = why {
            self.on_unclaimed(stage, &why);
        }
    }

    /// Hands an answer with its claims to the receipt signer. `is_held` keeps the pages until the
    /// claims are checked.
    fn hand_over(&mut self, sequence: u64, is_held: bool) {
        let Some(done) = self.done.get_mut(&sequence) else {
            return;
        };
        let Some(claiming) = done.claiming.take() else {
            return;
        };
        let answered = ClaimedAnswer {
            sequence,
            pipeline: self.index,
            epoch: claiming.epoch,
            generation: done.generation.clone(),
            answer: std::mem::take(&mut done.answer),
            finish: done.finish,
            usage: done.usage,
            before: done.before,
            stages: claiming.stages,
            claims: claiming.claims.into_iter().map(Option::flatten).collect(),
            pages: claiming.pages,
            is_held,
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
            self.done.remove(&sequence);
        }
    }

    /// The receipt signer needs the pages of a sequence no more.
    pub(super) fn on_checked(&mut self, sequence: u64) {
        if self.done.remove(&sequence).is_some() {
            self.events.push_back(Event::Claimed { sequence });
        }
    }

    pub(super) fn ask_evidence(&mut self, sequence: u64, stage: usize) {
        let is_up = self.is_up();
        match self.done.get_mut(&sequence).filter(|_| is_up) {
            Some(done) => {
                done.asked = Some(stage);
                // The order of evidence is the sequence.
                let order = sequence;
                self.send(stage, ToStage::Evidence { order, sequence });
            }
            None => self.tell_evidence(sequence, None),
        }
    }

    pub(super) fn on_evidence(&mut self, stage: usize, sequence: u64, headers: Vec<PassHeader>) {
        let Some(done) = self.done.get_mut(&sequence) else {
            return;
        };
        if done.asked == Some(stage) {
            done.asked = None;
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
        let sequences: Vec<u64> = self.done.keys().copied().collect();
        for sequence in sequences {
            self.end_claiming(sequence);
        }
    }

    /// Hands over the claims that there are, and lets the pages go.
    fn end_claiming(&mut self, sequence: u64) {
        self.hand_over(sequence, false);
        self.done.remove(&sequence);
        self.events.push_back(Event::Claimed { sequence });
    }

    /// A stage that does not answer an order to claim in time is lost.
    pub(super) fn drop_late_claims(&mut self) {
        let (now, stall) = (Instant::now(), self.context.timeouts.stall);
        let is_late = |since: Instant| now.duration_since(since) > stall;
        let late = self.done.iter().filter(|(_, done)| is_late(done.since));
        let late: Vec<u64> = late.map(|(sequence, _)| *sequence).collect();
        let mut silent = None;
        for sequence in late {
            let claiming = self.done[&sequence].claiming.as_ref();
            let missing = claiming.and_then(|all| all.claims.iter().position(Option::is_none));
            silent = silent.or(missing);
            self.end_claiming(sequence);
        }
        if let Some(stage) = silent {
            self.lose(stage, "it does not claim what it computed");
        }
    }

    /// A stage says that it cannot claim what it computed. A worker that says so again and again
    /// avoids being audited, and is not trusted any more.
    fn on_unclaimed(&mut self, stage: usize, why: &str) {
        tracing::warn!(
            pipeline = self.index,
            stage,
            why,
            "an answer is not claimed"
        );
        let Some((worker, _)) = self.holder(stage) else {
            return;
        };
        let count = self.unclaimed.entry(worker).or_default();
        *count += 1;
        if *count >= UNCLAIMED_MAX {
            self.distrust(stage, "it does not claim what it computed");
        }
    }
}
