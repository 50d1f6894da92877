//! AdamW in place.

use super::AdamStep;
use crate::{Device, cpu, reference};

impl Device {
    /// Updates value and moments from the summed gradient. All of one length.
    pub fn adamw(
        &self,
        step: &AdamStep,
        gradient: &[f32],
        value: &mut [f32],
        first_moment: &mut [f32],
        second_moment: &mut [f32],
    ) {
        let len = gradient.len();
        let lengths = [value.len(), first_moment.len(), second_moment.len()];
        assert_eq!(lengths, [len; 3], "adamw: lengths");
        match self {
            Self::Reference => {
                reference::adamw::step(step, gradient, value, first_moment, second_moment);
            }
            Self::Cpu(cpu) => {
                cpu::adamw::step(cpu, step, gradient, value, first_moment, second_moment);
            }
        }
    }
}
