//! Which microbatch a stage computes next. The order changes speed and memory, never bits.

use std::collections::BTreeSet;

/// One unit of work for the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MicrobatchTask {
    /// A microbatch through the stage.
    Forward(u32),
    /// Its gradients back.
    Backward(u32),
}

/// The microbatches `[start, end)` of a stage in one step.
///
/// Backward work goes first, so that memory is freed; forward work is taken up while fewer than
/// `depth` microbatches are in flight. What comes in a second time is left out.
///
/// ```
/// use concord_runtime::training::core::{MicrobatchSchedule, MicrobatchTask};
///
/// // The first of two stages, with two microbatches and room for both.
/// let mut schedule = MicrobatchSchedule::new(0, 2, 2, true, false);
/// assert_eq!(schedule.take(), Some(MicrobatchTask::Forward(0)));
/// assert_eq!(schedule.take(), Some(MicrobatchTask::Forward(1)));
/// assert_eq!(schedule.take(), None);
/// schedule.gradient_arrived(1);
/// assert_eq!(schedule.take(), Some(MicrobatchTask::Backward(1)));
/// ```
#[derive(Clone, Debug)]
pub struct MicrobatchSchedule {
    start: u32,
    end: u32,
    depth: usize,
    is_last: bool,
    /// Whether microbatches come back.
    goes_back: bool,
    /// Hidden states that have come in and are not used yet.
    activations: BTreeSet<u32>,
    /// Gradients that have come in and are not used yet.
    gradients: BTreeSet<u32>,
    /// Microbatches whose hidden states have come in, and whose gradients have.
    activations_seen: BTreeSet<u32>,
    gradients_seen: BTreeSet<u32>,
    /// Microbatches that are to come back or, where none does, that are on their way out.
    in_flight: BTreeSet<u32>,
    done: u32,
}

impl MicrobatchSchedule {
    /// A new step. The first stage has all its inputs at once.
    pub fn new(start: u32, end: u32, depth: u32, is_first: bool, is_last: bool) -> Self {
        let all = if is_first {
            (start..end).collect()
        } else {
            BTreeSet::new()
        };
        Self {
            start,
            end,
            depth: depth.max(1) as usize,
            is_last,
            goes_back: true,
            activations_seen: all.clone(),
            activations: all,
            gradients: BTreeSet::new(),
            gradients_seen: BTreeSet::new(),
            in_flight: BTreeSet::new(),
            done: 0,
        }
    }

    /// A step whose microbatches go forward, and do not come back: `depth` of them may be on their
    /// way to the next stage.
    pub fn forward_alone(start: u32, end: u32, depth: u32, is_first: bool, is_last: bool) -> Self {
        Self {
            goes_back: false,
            ..Self::new(start, end, depth, is_first, is_last)
        }
    }

    /// Hidden states of a microbatch have come in. False where they are not due, or no more: then
    /// they are not to be used.
    pub fn activation_arrived(&mut self, microbatch: u32) -> bool {
        let is_due = (self.start..self.end).contains(&microbatch)
            && self.activations_seen.insert(microbatch);
        is_due && self.activations.insert(microbatch)
    }

    /// The gradient of a microbatch's output has come in. False where it is not due, or no more:
    /// then it is not to be used.
    pub fn gradient_arrived(&mut self, microbatch: u32) -> bool {
        let is_due = self.goes_back
            && !self.is_last
            && (self.start..self.end).contains(&microbatch)
            && self.gradients_seen.insert(microbatch);
        is_due && self.gradients.insert(microbatch)
    }

    /// Hidden states of a microbatch are on the link to the next stage. Where it does not come
    /// back, another one may follow it.
    pub fn sent(&mut self, microbatch: u32) {
        if !self.goes_back {
            self.in_flight.remove(&microbatch);
        }
    }

    /// Takes up the next unit of work, if there is one.
    pub fn take(&mut self) -> Option<MicrobatchTask> {
        let ready = self
            .gradients
            .iter()
            .find(|m| self.in_flight.contains(m))
            .copied();
        if let Some(microbatch) = ready {
            self.gradients.remove(&microbatch);
            self.in_flight.remove(&microbatch);
            self.done += 1;
            return Some(MicrobatchTask::Backward(microbatch));
        }
        if self.in_flight.len() >= self.depth {
            return None;
        }
        let microbatch = self.activations.pop_first()?;
        if !self.goes_back {
            self.done += 1;
            if !self.is_last {
                self.in_flight.insert(microbatch);
            }
            return Some(MicrobatchTask::Forward(microbatch));
        }
        self.in_flight.insert(microbatch);
        if self.is_last {
            // The gradient comes from the loss: the backward pass starts at once.
            self.gradients.insert(microbatch);
        }
        Some(MicrobatchTask::Forward(microbatch))
    }

    /// Whether every microbatch went forward, and back where it comes back.
    pub fn is_done(&self) -> bool {
        self.done == self.end - self.start
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_stage_alternates() {
        let mut schedule = MicrobatchSchedule::new(2, 4, 3, true, true);
        let order: Vec<MicrobatchTask> = std::iter::from_fn(|| schedule.take()).collect();
        let expected = [
            MicrobatchTask::Forward(2),
            MicrobatchTask::Backward(2),
            MicrobatchTask::Forward(3),
            MicrobatchTask::Backward(3),
        ];
        assert_eq!(order, expected);
        assert!(schedule.is_done());
    }

    #[test]
    fn the_first_stage_fills_its_depth_and_waits() {
        let mut schedule = MicrobatchSchedule::new(0, 5, 2, true, false);
        assert_eq!(schedule.take(), Some(MicrobatchTask::Forward(0)));
        assert_eq!(schedule.take(), Some(MicrobatchTask::Forward(1)));
        assert_eq!(schedule.take(), None);
        schedule.gradient_arrived(1);
        schedule.gradient_arrived(77);
        assert_eq!(schedule.take(), Some(MicrobatchTask::Backward(1)));
        assert_eq!(schedule.take(), Some(MicrobatchTask::Forward(2)));
        assert_eq!(schedule.take(), None);
        assert!(!schedule.is_done());
    }

    #[test]
    fn an_evaluation_only_goes_forward() {
        let mut schedule = MicrobatchSchedule::forward_alone(3, 5, 2, false, false);
        assert!(schedule.activation_arrived(4));
        assert!(!schedule.gradient_arrived(4), "none is due");
        assert_eq!(schedule.take(), Some(MicrobatchTask::Forward(4)));
        assert_eq!(schedule.take(), None);
        assert!(!schedule.is_done());
        schedule.activation_arrived(3);
        assert_eq!(schedule.take(), Some(MicrobatchTask::Forward(3)));
        assert!(schedule.is_done());
        assert!(MicrobatchSchedule::forward_alone(3, 3, 2, true, true).is_done());
    }

    #[test]
    fn an_evaluation_waits_for_its_link() {
        let mut schedule = MicrobatchSchedule::forward_alone(0, 4_096, 3, true, false);
        let first: Vec<_> = std::iter::from_fn(|| schedule.take()).collect();
        let expected = [0, 1, 2].map(MicrobatchTask::Forward);
        assert_eq!(first, expected, "no more than the depth are on their way");
        schedule.sent(1);
        assert_eq!(schedule.take(), Some(MicrobatchTask::Forward(3)));
        assert_eq!(schedule.take(), None);
        let mut last = MicrobatchSchedule::forward_alone(0, 4, 1, true, true);
        assert_eq!(
            std::iter::from_fn(|| last.take()).count(),
            4,
            "none is sent on"
        );
    }

    /// A neighbour may send a frame twice: the microbatch is computed once.
    #[test]
    fn what_comes_twice_counts_once() {
        let forward = MicrobatchTask::Forward;
        let mut evaluation = MicrobatchSchedule::forward_alone(0, 2, 4, false, true);
        assert!(evaluation.activation_arrived(0) && !evaluation.activation_arrived(0));
        assert_eq!(evaluation.take(), Some(forward(0)));
        assert!(!evaluation.activation_arrived(0), "it went forward already");
        assert_eq!((evaluation.take(), evaluation.is_done()), (None, false));
        assert!(evaluation.activation_arrived(1));
        assert_eq!(evaluation.take(), Some(forward(1)));
        assert!(evaluation.is_done());

        let mut update = MicrobatchSchedule::new(0, 2, 4, false, false);
        for round in 0..2 {
            assert_eq!(update.activation_arrived(0), round == 0);
            assert_eq!(update.gradient_arrived(0), round == 0);
        }
        assert_eq!(update.take(), Some(forward(0)));
        assert_eq!(update.take(), Some(MicrobatchTask::Backward(0)));
        assert!(!update.activation_arrived(0) && !update.gradient_arrived(0));
        assert_eq!((update.take(), update.is_done()), (None, false));
    }

    #[test]
    fn a_gradient_before_its_forward_pass_waits() {
        let mut schedule = MicrobatchSchedule::new(0, 1, 1, false, false);
        schedule.gradient_arrived(0);
        assert_eq!(schedule.take(), None);
        schedule.activation_arrived(0);
        assert_eq!(schedule.take(), Some(MicrobatchTask::Forward(0)));
        assert_eq!(schedule.take(), Some(MicrobatchTask::Backward(0)));
    }
}
