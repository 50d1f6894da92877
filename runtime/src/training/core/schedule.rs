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
/// `depth` microbatches are in flight.
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
            activations: all,
            gradients: BTreeSet::new(),
            in_flight: BTreeSet::new(),
            done: 0,
        }
    }

    /// A step whose microbatches go forward, and do not come back.
    pub fn forward_alone(start: u32, end: u32, is_first: bool) -> Self {
        Self {
            goes_back: false,
            ..Self::new(start, end, 1, is_first, false)
        }
    }

    /// Hidden states of a microbatch have come in.
    pub fn activation_arrived(&mut self, microbatch: u32) {
        if (self.start..self.end).contains(&microbatch) {
            self.activations.insert(microbatch);
        }
    }

    /// The gradient of a microbatch's output has come in.
    pub fn gradient_arrived(&mut self, microbatch: u32) {
        if (self.start..self.end).contains(&microbatch) {
            self.gradients.insert(microbatch);
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
        let mut schedule = MicrobatchSchedule::forward_alone(3, 5, false);
        schedule.activation_arrived(4);
        schedule.gradient_arrived(4);
        assert_eq!(schedule.take(), Some(MicrobatchTask::Forward(4)));
        assert_eq!(schedule.take(), None);
        assert!(!schedule.is_done());
        schedule.activation_arrived(3);
        assert_eq!(schedule.take(), Some(MicrobatchTask::Forward(3)));
        assert!(schedule.is_done());
        assert!(MicrobatchSchedule::forward_alone(3, 3, true).is_done());
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
