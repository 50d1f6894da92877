//! Bounds on the cost of a rendering, in counts and not in time, so that the outcome is always the
//! same.

use super::fault::{Fault, Made};

/// Steps: each part of an expression or tag is one, and each 32 characters that are looked at.
const STEPS_MAX: u64 = 20_000_000;

/// Bytes of all texts and lists that are made, including those that are dropped again.
const BYTES_MAX: u64 = 128 << 20;

/// How deep expressions, tags, macros and loops may be nested as they run.
const DEPTH_MAX: u32 = 400;

/// What is left of the budget.
#[derive(Debug)]
pub struct Budget {
    steps: u64,
    bytes: u64,
    depth: u32,
}

impl Default for Budget {
    fn default() -> Self {
        Self {
            steps: STEPS_MAX,
            bytes: BYTES_MAX,
            depth: 0,
        }
    }
}

impl Budget {
    /// Takes steps.
    pub fn steps(&mut self, steps: usize) -> Made<()> {
        let left = self.steps.checked_sub(steps as u64);
        self.steps = left.ok_or_else(|| Fault::new("it takes too many steps"))?;
        Ok(())
    }

    /// Takes the steps for looking at so many characters.
    pub fn look(&mut self, characters: usize) -> Made<()> {
        self.steps(1 + characters / 32)
    }

    /// Takes the bytes of so many things before they are made.
    pub fn make<T>(&mut self, count: usize) -> Made<()> {
        let bytes = (count as u64).checked_mul(size_of::<T>() as u64);
        let left = bytes.and_then(|bytes| self.bytes.checked_sub(bytes));
        self.bytes = left.ok_or_else(|| {
            Fault::new(format!(
                "it makes more than {BYTES_MAX} bytes of text on its way"
            ))
        })?;
        self.look(count)
    }

    /// Goes one level deeper: [`Self::leave`] comes back.
    pub fn enter(&mut self) -> Made<()> {
        self.steps(1)?;
        if self.depth >= DEPTH_MAX {
            return Err(Fault::new(
                "its macros, loops or expressions stand too deep in each other",
            ));
        }
        self.depth += 1;
        Ok(())
    }

    /// Comes back from a level.
    pub fn leave(&mut self) {
        self.depth -= 1;
    }
}
