//! Passes in flight, and what stages say.

use std::collections::BTreeSet;
use std::time::Instant;

use concord_proto::Digest;
use concord_proto::serving::{
    DrawOrder, FromStage, Pass, PassResult, Passed, ToStage, runs_digest,
};
use concord_scheduler::SchedulerEvent as Event;

use super::Pipeline;
use super::input::{End, Said};

/// A pass on its way through the stages.
pub(super) struct InFlight {
    runs: u32,
    rows: u32,
    /// Of the runs, as every stage must have computed them.
    listed: Digest,
    /// Whose runs these are.
    sequences: Vec<u64>,
    /// Which stages it has left.
    passed: Vec<bool>,
    /// Held until it has left all of them: one of them may have found runs broken.
    result: Option<PassResult>,
}

impl InFlight {
    /// The first stage that has not answered.
    pub(super) fn silent(&self) -> usize {
        let silent = self.passed.iter().position(|passed| !passed);
        silent.unwrap_or(self.passed.len().saturating_sub(1))
    }
}

/// Plans in a row that an answer may be computed in while a stage gives up.
const FAILURES_MAX: u32 = 3;

impl Pipeline {
    /// A stage has given up: answers on which stages keep giving up end, lest they bring down one
    /// plan after the other.
    pub(super) fn blame_answers(&mut self) {
        let Some(epoch) = &self.epoch else {
            return;
        };
        let passes = epoch.passes.values();
        let suspects: BTreeSet<u64> = passes.flat_map(|pass| pass.sequences.clone()).collect();
        let mut ends = Vec::new();
        for (sequence, answer) in &mut self.answers {
            let is_suspect = suspects.contains(sequence);
            answer.failures = if is_suspect { answer.failures + 1 } else { 0 };
            if answer.failures >= FAILURES_MAX {
                ends.push(*sequence);
            }
        }
        for sequence in ends {
            let reason =
                format!("stages failed {FAILURES_MAX} times in a row while they computed it");
            self.fail_for_good(sequence, &reason);
            self.events.push_back(Event::Cancel { sequence });
        }
    }

    pub(super) fn send_pass(&mut self, pass: Pass, draws: DrawOrder) {
        let Some(epoch) = self.epoch.as_mut().filter(|epoch| epoch.is_up) else {
            return;
        };
        let last = epoch.seats.len() - 1;
        let in_flight = InFlight {
            runs: pass.runs.len() as u32,
            rows: pass.tokens.len() as u32,
            listed: runs_digest(&pass.runs),
            sequences: pass.runs.iter().map(|run| run.sequence).collect(),
            passed: vec![false; epoch.seats.len()],
            result: None,
        };
        if epoch.passes.is_empty() {
            epoch.heard = Instant::now();
        }
        epoch.passes.insert(pass.number, in_flight);
        // What to draw is there before the pass arrives.
        self.send(last, ToStage::Draws(draws));
        self.send(0, ToStage::Pass(pass));
    }

    pub(super) fn forget(&mut self, sequence: u64) {
        if self.is_up() {
            self.send_all(&ToStage::Forget { sequence });
        }
    }

    pub(super) fn on_said(&mut self, said: Said) {
        let current = self.epoch.as_ref();
        if current.is_none_or(|epoch| epoch.number != said.epoch) {
            // Of a plan that is over.
            return;
        }
        let seat = said.seat;
        match said.message {
            Ok(FromStage::Passed(passed)) => self.on_passed(seat, &passed),
            Ok(FromStage::Result(result)) => self.on_result(seat, result),
            Ok(FromStage::Claimed { order, claim }) => self.on_claimed(seat, order, claim),
            Ok(FromStage::Evidence { order, headers }) => {
                self.on_evidence(seat, order, headers);
            }
            Ok(FromStage::Adapter { adapter, outcome }) => {
                self.on_adapter(seat, adapter, outcome);
            }
            Ok(FromStage::Failed { reason }) => self.on_failed(seat, &reason),
            Ok(FromStage::Refused { reason }) => self.on_refused(seat, &reason),
            Err(End::Closed(reason)) => self.lose(seat, &reason),
            Err(End::Fault(reason)) => self.distrust(seat, &reason),
        }
    }

    fn on_passed(&mut self, seat: usize, passed: &Passed) {
        self.shared.lock().passed(seat, passed);
        let Some(epoch) = &mut self.epoch else {
            return;
        };
        let Some(pass) = epoch.passes.get_mut(&passed.pass) else {
            return self.distrust(seat, "it speaks of a pass that is not in flight");
        };
        let fits = passed.rows == pass.rows && passed.broken.iter().all(|run| *run < pass.runs);
        if !fits || std::mem::replace(&mut pass.passed[seat], true) {
            return self.distrust(seat, "what it says of a pass does not fit it");
        }
        if passed.runs != pass.listed {
            // Either it computed other runs than it was given, or the stage before gave it others.
            let reason = "it computed other runs than were ordered";
            return match seat {
                0 => self.distrust(seat, reason),
                _ => self.on_refused(seat, reason),
            };
        }
        epoch.heard = Instant::now();
        if !passed.broken.is_empty() {
            let runs = passed.broken.clone();
            let pass = passed.pass;
            self.events.push_back(Event::Broken { pass, runs });
        }
        self.release(passed.pass);
    }

    fn on_result(&mut self, seat: usize, result: PassResult) {
        let Some(epoch) = &mut self.epoch else {
            return;
        };
        let is_last = seat + 1 == epoch.seats.len();
        let number = result.pass;
        match epoch.passes.get_mut(&number) {
            Some(pass) if is_last && pass.result.is_none() => pass.result = Some(result),
            _ => return self.distrust(seat, "it gives a result that nobody asked for"),
        }
        self.release(number);
    }

    /// Gives a result to the scheduler once its pass has left all stages.
    fn release(&mut self, number: u64) {
        let Some(epoch) = &mut self.epoch else {
            return;
        };
        let is_through = |pass: &InFlight| pass.passed.iter().all(|passed| *passed);
        if epoch.passes.get(&number).is_some_and(is_through)
            && let Some(result) = epoch.passes.get_mut(&number).and_then(|p| p.result.take())
        {
            epoch.passes.remove(&number);
            self.events.push_back(Event::Result(result));
            if !self.removing.is_empty() {
                self.let_adapters_go();
            }
        }
    }

    /// The scheduler finds that the last stage said what does not fit.
    pub(super) fn fault_of_last(&mut self, reason: &str) {
        let last = self.epoch.as_ref().map(|epoch| epoch.seats.len() - 1);
        if let Some(last) = last {
            self.distrust(last, reason);
        }
    }
}
