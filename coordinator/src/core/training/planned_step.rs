//! A step under a plan.

/// A step, as it was done under a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PlannedStep {
    pub(super) step: u32,
    pub(super) epoch: u32,
}
