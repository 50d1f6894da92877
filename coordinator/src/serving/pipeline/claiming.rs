//! Claims of complete answers: ordered from all stages, handed to the notary.

use std::time::Instant;

use concord_proto::serving::{ClaimOrder, PassHeader, ToStage};
use concord_proto::{Digest, Layers, Signed, WorkerId};
use concord_scheduler::SchedulerEvent as Event;

use super::Pipeline;
use crate::serving::notary::{self, Answered};

/// So many answers a worker may leave without its claim: there is no honest reason for any.
const UNCLAIMED_MAX: u32 = 8;

/// Claims of one answer, as they come.
pub(super) struct Claiming {
    order: u64,
    epoch: u32,
    seats: Vec<(WorkerId, Layers)>,
    pages: Vec<u32>,
    /// By seat; the inner option is what a stage that has answered gave.
    claims: Vec<Option<Option<Signed>>>,
}

impl Pipeline {
    pub(super) fn order_claims(
        &mut self,
        sequence: u64,
        (spec, prompt, positions): (Digest, u32, u32),
        pages: Vec<u32>,
    ) {
        let order = self.hub.number();
        let mut seats: Vec<(WorkerId, Layers)> = Vec::new();
        let current = self.epoch.as_ref().filter(|epoch| epoch.is_up);
        let number = current.map_or(0, |epoch| epoch.number);
        if let Some(epoch) = current {
            seats.extend(epoch.seats.iter().map(|seat| (seat.worker, seat.layers)));
        }
        let Some(done) = self.done.get_mut(&sequence) else {
            // Nobody wants the answer any more.
            self.events.push_back(Event::Claimed { sequence });
            return;
        };
        let claims = vec![None; seats.len()];
        let count = seats.len();
        done.claiming = Some(Claiming {
            order,
            epoch: number,
            seats,
            pages: pages.clone(),
            claims,
        });
        if count == 0 || pages.is_empty() {
            return self.end_claiming(sequence);
        }
        for seat in 0..count {
            let order = ClaimOrder {
                order,
                sequence,
                spec,
                prompt,
                positions,
                pages: pages.clone(),
            };
            self.send(seat, ToStage::Claim(order));
        }
    }

    pub(super) fn on_claimed(&mut self, seat: usize, order: u64, claim: Result<Signed, String>) {
        let mut all = self.done.iter_mut();
        let found = all.find_map(|(sequence, done)| {
            let claiming = done.claiming.as_mut()?;
            (claiming.order == order).then_some((*sequence, claiming))
        });
        let Some((sequence, claiming)) = found else {
            return;
        };
        let why = claim.as_ref().err().cloned();
        if let Some(slot) = claiming.claims.get_mut(seat)
            && slot.is_none()
        {
            *slot = Some(claim.ok());
        }
        if claiming.claims.iter().all(Option::is_some) {
            self.hand_over(sequence, true);
        }
        if let Some(why) = why {
            self.on_unclaimed(seat, &why);
        }
    }

    /// Hands an answer with its claims to the notary. `is_held` keeps the pages until these are
    /// checked.
    fn hand_over(&mut self, sequence: u64, is_held: bool) {
        let Some(done) = self.done.get_mut(&sequence) else {
            return;
        };
        let Some(claiming) = done.claiming.take() else {
            return;
        };
        let answered = Answered {
            sequence,
            pipeline: self.index,
            epoch: claiming.epoch,
            generation: done.generation.clone(),
            answer: std::mem::take(&mut done.answer),
            finish: done.finish,
            usage: done.usage,
            before: done.before,
            seats: claiming.seats,
            claims: claiming.claims.into_iter().map(Option::flatten).collect(),
            pages: claiming.pages,
            is_held,
        };
        let input = notary::Input::Answered(Box::new(answered));
        let is_lost = self.hub.notary.try_send(input).is_err();
        if is_lost {
            tracing::error!("the notary does not follow: a receipt is lost");
        }
        if is_lost && is_held {
            self.events.push_back(Event::Claimed { sequence });
        }
        if is_lost || !is_held {
            self.done.remove(&sequence);
        }
    }

    /// The notary needs the pages of a sequence no more.
    pub(super) fn on_checked(&mut self, sequence: u64) {
        if self.done.remove(&sequence).is_some() {
            self.events.push_back(Event::Claimed { sequence });
        }
    }

    pub(super) fn ask_evidence(&mut self, sequence: u64, seat: usize) {
        let is_up = self.is_up();
        match self.done.get_mut(&sequence).filter(|_| is_up) {
            Some(done) => {
                done.asked = Some(seat);
                // The order of evidence is the sequence.
                let order = sequence;
                self.send(seat, ToStage::Evidence { order, sequence });
            }
            None => self.tell_evidence(sequence, None),
        }
    }

    pub(super) fn on_evidence(&mut self, seat: usize, sequence: u64, headers: Vec<PassHeader>) {
        let Some(done) = self.done.get_mut(&sequence) else {
            return;
        };
        if done.asked == Some(seat) {
            done.asked = None;
            self.tell_evidence(sequence, Some(headers));
        }
    }

    fn tell_evidence(&self, sequence: u64, headers: Option<Vec<PassHeader>>) {
        let evidence = notary::Input::Evidence { sequence, headers };
        if self.hub.notary.try_send(evidence).is_err() {
            tracing::error!("the notary does not follow: evidence is lost");
        }
    }

    /// The plan is over: what was not claimed until now is not claimed.
    pub(super) fn settle_claims(&mut self) {
        let sequences: Vec<u64> = self.done.keys().copied().collect();
        for sequence in sequences {
            self.end_claiming(sequence);
        }
    }

    /// Hands over what there is; the pages go.
    fn end_claiming(&mut self, sequence: u64) {
        self.hand_over(sequence, false);
        self.done.remove(&sequence);
        self.events.push_back(Event::Claimed { sequence });
    }

    /// A stage that does not answer an order to claim does not answer at all.
    pub(super) fn drop_late_claims(&mut self) {
        let (now, stall) = (Instant::now(), self.hub.stall);
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
        if let Some(seat) = silent {
            self.lose(seat, "it does not claim what it computed");
        }
    }

    /// A stage says that it cannot claim what it computed. Whoever does so again and again wants
    /// nobody to look at it.
    fn on_unclaimed(&mut self, seat: usize, why: &str) {
        tracing::warn!(pipeline = self.index, seat, why, "an answer is not claimed");
        let Some((worker, _)) = self.holder(seat) else {
            return;
        };
        let count = self.unclaimed.entry(worker).or_default();
        *count += 1;
        if *count >= UNCLAIMED_MAX {
            self.distrust(seat, "it does not claim what it computed");
        }
    }
}
