//! Passes in flight through the stages of a plan.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use concord_proto::Digest;
use concord_proto::serving::{Pass, PassResult, Passed, runs_digest};

use super::fault::StageFault;

/// The passes of a plan that are on their way through its stages.
pub(super) struct PassesInFlight {
    /// By number.
    passes: BTreeMap<u64, InFlight>,
    /// When a pass last went on, or the first one was sent.
    heard: Instant,
}

/// A pass on its way through the stages.
struct InFlight {
    runs: u32,
    rows: u32,
    /// Digest of the runs, as every stage must have computed them.
    listed: Digest,
    /// Whose runs these are.
    sequences: Vec<u64>,
    /// Which stages it has left.
    passed: Vec<bool>,
    /// Held until it has left all of them: one of them may have found runs broken.
    result: Option<PassResult>,
}

impl PassesInFlight {
    pub(super) fn new() -> Self {
        Self {
            passes: BTreeMap::new(),
            heard: Instant::now(),
        }
    }

    /// Notes a pass that is sent through so many stages.
    pub(super) fn begin(&mut self, pass: &Pass, stages: usize) {
        if self.passes.is_empty() {
            self.heard = Instant::now();
        }
        let in_flight = InFlight {
            runs: pass.runs.len() as u32,
            rows: pass.tokens.len() as u32,
            listed: runs_digest(&pass.runs),
            sequences: pass.runs.iter().map(|run| run.sequence).collect(),
            passed: vec![false; stages],
            result: None,
        };
        self.passes.insert(pass.number, in_flight);
    }

    /// A pass has left a stage.
    pub(super) fn on_passed(&mut self, stage: usize, passed: &Passed) -> Result<(), StageFault> {
        let Some(pass) = self.passes.get_mut(&passed.pass) else {
            let reason = "it speaks of a pass that is not in flight";
            return Err(StageFault::distrusted(reason));
        };
        let fits = passed.rows == pass.rows && passed.broken.iter().all(|run| *run < pass.runs);
        if !fits || std::mem::replace(&mut pass.passed[stage], true) {
            let reason = "what it reports of a pass does not fit it";
            return Err(StageFault::distrusted(reason));
        }
        if passed.runs != pass.listed {
            // Either it computed other runs than it was given, or the stage before gave it others.
            let reason = "it computed other runs than were ordered".to_string();
            return Err(match stage {
                0 => StageFault::Distrusted(reason),
                _ => StageFault::Refused(reason),
            });
        }
        self.heard = Instant::now();
        Ok(())
    }

    /// A stage gives the result of a pass, as only the last one may.
    pub(super) fn on_result(
        &mut self,
        is_last: bool,
        result: PassResult,
    ) -> Result<(), StageFault> {
        match self.passes.get_mut(&result.pass) {
            Some(pass) if is_last && pass.result.is_none() => {
                pass.result = Some(result);
                Ok(())
            }
            Some(_) | None => {
                let reason = "it gives a result that nobody asked for";
                Err(StageFault::distrusted(reason))
            }
        }
    }

    /// The result of a pass that has left all stages, once.
    pub(super) fn complete(&mut self, number: u64) -> Option<PassResult> {
        let pass = self.passes.get_mut(&number)?;
        if !pass.passed.iter().all(|passed| *passed) {
            return None;
        }
        let result = pass.result.take()?;
        self.passes.remove(&number);
        Some(result)
    }

    /// The sequences that are computed now.
    pub(super) fn sequences(&self) -> BTreeSet<u64> {
        let passes = self.passes.values();
        passes.flat_map(|pass| pass.sequences.clone()).collect()
    }

    /// The number of the oldest pass in flight.
    pub(super) fn oldest(&self) -> Option<u64> {
        self.passes.keys().next().copied()
    }

    /// The number of the newest pass in flight.
    pub(super) fn newest(&self) -> Option<u64> {
        self.passes.keys().next_back().copied()
    }

    /// The stage that has yet to answer the oldest pass, if no pass went on for longer than
    /// `stall`.
    pub(super) fn stalled(&self, stall: Duration) -> Option<usize> {
        let oldest = self.passes.values().next()?;
        let silent = || oldest.passed.iter().position(|passed| !passed);
        let last = oldest.passed.len().saturating_sub(1);
        (self.heard.elapsed() > stall).then(|| silent().unwrap_or(last))
    }
}

#[cfg(test)]
mod tests {
    use concord_proto::serving::SequenceRun;

    use super::*;

    fn pass() -> Pass {
        let run = SequenceRun {
            sequence: 5,
            first: 0,
            count: 3,
            pages: vec![2],
            adapter: None,
        };
        Pass {
            number: 7,
            runs: vec![run],
            tokens: vec![1, 2, 3],
        }
    }

    fn passed() -> Passed {
        Passed {
            pass: 7,
            rows: 3,
            runs: runs_digest(&pass().runs),
            broken: Vec::new(),
            queue_us: 0,
            compute_us: 0,
            wait_us: 0,
            wire_us: 0,
            bytes: 0,
        }
    }

    fn result() -> PassResult {
        PassResult {
            pass: 7,
            drawn: Vec::new(),
        }
    }

    fn in_flight() -> PassesInFlight {
        let mut passes = PassesInFlight::new();
        passes.begin(&pass(), 2);
        passes
    }

    #[test]
    fn a_result_waits_until_its_pass_has_left_all_stages() {
        let mut passes = in_flight();
        assert_eq!(passes.sequences(), BTreeSet::from([5]));
        assert_eq!(passes.on_passed(1, &passed()), Ok(()));
        assert_eq!(passes.on_result(true, result()), Ok(()));
        assert!(passes.complete(7).is_none());
        assert_eq!(passes.stalled(Duration::ZERO), Some(0));
        assert_eq!(passes.on_passed(0, &passed()), Ok(()));
        assert_eq!(passes.complete(7), Some(result()));
        assert_eq!((passes.complete(7), passes.oldest()), (None, None));
    }

    #[test]
    fn what_does_not_fit_a_pass_is_a_fault_of_the_stage() {
        type Change = fn(&mut Passed);
        let distrusted: [Change; 3] = [
            |passed| passed.pass = 8,
            |passed| passed.rows = 4,
            |passed| passed.broken = vec![1],
        ];
        for change in distrusted {
            let mut wrong = passed();
            change(&mut wrong);
            let fault = in_flight().on_passed(1, &wrong);
            assert!(matches!(fault, Err(StageFault::Distrusted(_))), "{wrong:?}");
        }
        let mut passes = in_flight();
        assert_eq!(passes.on_passed(1, &passed()), Ok(()));
        assert!(passes.on_passed(1, &passed()).is_err(), "it leaves it once");

        // Other runs: nobody gave them to the first stage; a later one may have got them from the
        // one before.
        let mut other = passed();
        other.runs = Digest([9; 32]);
        let first = in_flight().on_passed(0, &other);
        assert!(matches!(first, Err(StageFault::Distrusted(_))));
        let second = in_flight().on_passed(1, &other);
        assert!(matches!(second, Err(StageFault::Refused(_))));
    }

    #[test]
    fn only_the_last_stage_gives_a_result_and_only_once() {
        let mut passes = in_flight();
        assert!(passes.on_result(false, result()).is_err());
        assert_eq!(passes.on_result(true, result()), Ok(()));
        assert!(passes.on_result(true, result()).is_err());
    }
}
