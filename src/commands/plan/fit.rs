//! Workers with given memory, in the form of planners, and a line for each that gets layers.

use concord_coordinator::planner::PlannerDevice;
use concord_models::config::DecoderConfig;
use concord_proto::{Layers, PublicKey};
use serde_json::{Value, json};

use crate::support::bytes::size;
use crate::support::layers::ends;

/// The assumed speed of every worker. It is unknown, so all count as equal.
const MACS_PER_SECOND: u64 = 100_000_000_000;

/// Memory for any stage.
const ANY: u64 = 1 << 56;

/// The precision, in bytes, of the search for the smallest workers.
const STEP: u64 = 64 << 10;

/// Most stages in which a model is shown.
const STAGES_MAX: u32 = 4;

/// Workers with the given bytes of memory.
pub fn devices(memory: &[u64]) -> Vec<PlannerDevice> {
    let device = |(index, &memory_bytes): (usize, &u64)| {
        let mut id = [0; 32];
        id[..8].copy_from_slice(&(index as u64).to_le_bytes());
        PlannerDevice {
            id: PublicKey(id),
            name: format!("worker {index}"),
            macs_per_second: MACS_PER_SECOND,
            memory_bytes,
        }
    };
    memory.iter().enumerate().map(device).collect()
}

/// The plan for `count` equal workers with the least memory for which there is a plan.
///
/// # Errors
/// That of `plan` where there is none even for the largest memory.
pub fn tightest<T, E>(count: u32, plan: impl Fn(&[PlannerDevice]) -> Result<T, E>) -> Result<T, E> {
    let with = |bytes: u64| plan(&devices(&vec![bytes; count as usize]));
    let mut found = with(ANY)?;
    let (mut too_few, mut enough) = (0, ANY);
    while enough - too_few > STEP {
        let middle = too_few + (enough - too_few) / 2;
        match with(middle) {
            Ok(plan) => (found, enough) = (plan, middle),
            Err(_) => too_few = middle,
        }
    }
    Ok(found)
}

/// `count` workers, each with memory for any stage.
#[cfg(test)]
pub fn ample(count: u32) -> Vec<PlannerDevice> {
    devices(&vec![ANY; count as usize])
}

/// The numbers of stages that a model is shown in: 1, 2, 4 and so on.
pub fn stage_counts(config: &DecoderConfig) -> impl Iterator<Item = u32> + use<> {
    let parts = config.layers * config.experts_to_cut().unwrap_or(1);
    let most = STAGES_MAX.min(u32::try_from(parts).unwrap_or(STAGES_MAX));
    let doubled = std::iter::successors(Some(1_u32), |count| count.checked_mul(2));
    doubled.take_while(move |&count| count <= most)
}

/// A worker and the stage that it gets.
pub struct Placed {
    /// Which worker, from 0.
    pub worker: usize,
    /// Its layers.
    pub layers: Layers,
    /// Bytes that its layers need.
    pub needs: u64,
    /// Bytes that the worker has.
    pub has: u64,
}

impl Placed {
    /// A line of a table.
    pub fn cells(&self) -> [String; 4] {
        [
            self.worker.to_string(),
            self.layers.to_string(),
            size(self.needs),
            size(self.has),
        ]
    }

    /// The same as JSON.
    pub fn object(&self) -> Value {
        json!({
            "worker": self.worker, "layers": ends(self.layers),
            "needs_bytes": self.needs, "has_bytes": self.has,
        })
    }
}

/// Headings of [`Placed::cells`].
pub const PLACED: [&str; 4] = ["worker", "layers", "needs", "has"];
