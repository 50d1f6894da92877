//! A cut of the layers into the stages of one pipeline.

/// A pipeline as the search has it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct StageCut {
    /// The device of each stage.
    pub(super) devices: Vec<usize>,
    /// Layers of each stage, or parts of them.
    pub(super) lengths: Vec<u32>,
    /// Seconds of the slowest stage, and of all.
    pub(super) pace: (f64, f64),
}

impl StageCut {
    pub(super) fn beats(&self, other: &Option<Self>) -> bool {
        let is_less = |other: &Self| {
            let slowest = self.pace.0.total_cmp(&other.pace.0);
            slowest.then(self.pace.1.total_cmp(&other.pace.1)).is_lt()
        };
        other.as_ref().is_none_or(is_less)
    }
}
