//! Complete answers, and the claims of their stages as they come.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use concord_proto::serving::{ClaimOrder, Finish, Generation, GivenLogprobs, Usage};
use concord_proto::{Digest, Signed, WorkerId};
use concord_verify::serving::EarlierHolder;

use crate::serving::receipts::{ClaimedAnswer, HeldStage};
use crate::serving::router::AnswerUnderWay;

/// A worker that has left so many answers without its claim is distrusted: there is no honest
/// reason for any.
const UNCLAIMED_MAX: u32 = 8;

/// Complete answers whose claims are awaited.
#[derive(Default)]
pub(super) struct AwaitedClaims {
    /// By sequence.
    done: BTreeMap<u64, Done>,
    /// How often workers have not claimed what they computed.
    unclaimed: BTreeMap<WorkerId, u32>,
}

/// A complete answer, until its stages have claimed it.
struct Done {
    generation: Generation,
    finished: FinishedAnswer,
    logprobs: GivenLogprobs,
    before: EarlierHolder,
    since: Instant,
    /// Present once claims are ordered, until the receipt signer has them.
    claiming: Option<Claiming>,
    /// The stage that was asked for the headers that it received.
    asked: Option<usize>,
}

/// Claims of one answer, as they come.
struct Claiming {
    order: u64,
    epoch: u32,
    stages: Vec<HeldStage>,
    pages: Vec<u32>,
    /// By stage. The inner option is what a stage that has answered gave.
    claims: Vec<Option<Option<Signed>>>,
}

/// A complete answer, as the scheduler gives it.
pub(super) struct FinishedAnswer {
    pub(super) answer: Vec<u32>,
    pub(super) finish: Finish,
    pub(super) usage: Usage,
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

impl Claimable {
    /// The order to claim it.
    pub(super) fn order(&self, order: u64) -> ClaimOrder {
        ClaimOrder {
            order,
            sequence: self.sequence,
            spec: self.spec,
            prompt: self.prompt,
            positions: self.positions,
            pages: self.pages.clone(),
        }
    }
}

/// Who has to claim an answer, under which plan.
pub(super) struct Claimants {
    pub(super) epoch: u32,
    pub(super) stages: Vec<HeldStage>,
}

impl Claimants {
    /// No stage is there that could claim.
    pub(super) fn nobody() -> Self {
        Self {
            epoch: 0,
            stages: Vec::new(),
        }
    }
}

/// What came of orders that were not answered in time.
pub(super) struct LateClaims {
    /// The answers.
    pub(super) sequences: Vec<u64>,
    /// A stage that did not claim one of them.
    pub(super) silent: Option<usize>,
}

impl AwaitedClaims {
    /// An answer is complete.
    pub(super) fn add(&mut self, sequence: u64, answer: &AnswerUnderWay, finished: FinishedAnswer) {
        // A stop text cuts off tokens that were given to a client who did not wait for them.
        let mut logprobs = answer.given.clone();
        logprobs.answer.truncate(finished.answer.len());
        let done = Done {
            generation: answer.generation.clone(),
            finished,
            logprobs,
            before: answer.before,
            since: Instant::now(),
            claiming: None,
            asked: None,
        };
        self.done.insert(sequence, done);
    }

    /// Nothing is awaited of an answer any more. Gives whether anything was.
    pub(super) fn remove(&mut self, sequence: u64) -> bool {
        self.done.remove(&sequence).is_some()
    }

    pub(super) fn sequences(&self) -> Vec<u64> {
        self.done.keys().copied().collect()
    }

    /// Begins to collect the claims of an answer. Gives false where nobody wants it any more.
    pub(super) fn begin(&mut self, claimable: &Claimable, order: u64, who: Claimants) -> bool {
        let Some(done) = self.done.get_mut(&claimable.sequence) else {
            return false;
        };
        done.claiming = Some(Claiming {
            order,
            epoch: who.epoch,
            claims: vec![None; who.stages.len()],
            stages: who.stages,
            pages: claimable.pages.clone(),
        });
        true
    }

    /// A stage has answered an order, with a claim or without. Gives the sequence of the order, and
    /// whether all stages have answered; nothing where nobody gave the order.
    pub(super) fn on_claimed(
        &mut self,
        stage: usize,
        order: u64,
        claim: Option<Signed>,
    ) -> Option<(u64, bool)> {
        let mut all = self.done.iter_mut();
        let (sequence, claiming) = all.find_map(|(sequence, done)| {
            let claiming = done.claiming.as_mut()?;
            (claiming.order == order).then_some((*sequence, claiming))
        })?;
        if let Some(slot) = claiming.claims.get_mut(stage)
            && slot.is_none()
        {
            *slot = Some(claim);
        }
        Some((sequence, claiming.claims.iter().all(Option::is_some)))
    }

    /// A worker has not claimed what it computed. Gives whether it did so too often: it avoids
    /// being audited then.
    pub(super) fn on_unclaimed(&mut self, worker: WorkerId) -> bool {
        let count = self.unclaimed.entry(worker).or_default();
        *count += 1;
        *count >= UNCLAIMED_MAX
    }

    /// An answer with the claims that there are. Its pages are held where `is_held` is set.
    pub(super) fn take(
        &mut self,
        sequence: u64,
        pipeline: u32,
        is_held: bool,
    ) -> Option<ClaimedAnswer> {
        let done = self.done.get_mut(&sequence)?;
        let claiming = done.claiming.take()?;
        Some(ClaimedAnswer {
            sequence,
            pipeline,
            epoch: claiming.epoch,
            generation: done.generation.clone(),
            answer: std::mem::take(&mut done.finished.answer),
            logprobs: std::mem::take(&mut done.logprobs),
            finish: done.finished.finish,
            usage: done.finished.usage,
            before: done.before,
            stages: claiming.stages,
            claims: claiming.claims.into_iter().map(Option::flatten).collect(),
            pages: claiming.pages,
            is_held,
        })
    }

    /// The headers that a stage received for a sequence are asked for. Gives false where there is
    /// no such answer.
    pub(super) fn ask(&mut self, sequence: u64, stage: usize) -> bool {
        let done = self.done.get_mut(&sequence);
        done.is_some_and(|done| {
            done.asked = Some(stage);
            true
        })
    }

    /// A stage sends headers. Gives whether it was asked, once.
    pub(super) fn on_evidence(&mut self, sequence: u64, stage: usize) -> bool {
        let done = self.done.get_mut(&sequence);
        let asked = done.map(|done| &mut done.asked);
        asked
            .and_then(|asked| asked.take_if(|asked| *asked == stage))
            .is_some()
    }

    /// The answers whose claims have been awaited for longer than `stall`.
    pub(super) fn late(&self, stall: Duration) -> LateClaims {
        let now = Instant::now();
        let is_late = |done: &Done| now.duration_since(done.since) > stall;
        let late = self.done.iter().filter(|(_, done)| is_late(done));
        let missing = |(_, done): (&u64, &Done)| {
            let claims = &done.claiming.as_ref()?.claims;
            claims.iter().position(Option::is_none)
        };
        LateClaims {
            sequences: late.clone().map(|(sequence, _)| *sequence).collect(),
            silent: late.clone().find_map(missing),
        }
    }
}
