//! Workers with less memory than they announce.

use std::collections::BTreeMap;

use concord_proto::WorkerId;
use concord_proto::session::{ToCoordinator, ToWorker};

/// What a worker says to an assignment of more layers than it has room for.
pub fn refusal(
    rooms: &BTreeMap<WorkerId, u32>,
    worker: &WorkerId,
    message: &ToWorker,
) -> Option<ToCoordinator> {
    let ToWorker::Assign(assignment) = message else {
        return None;
    };
    let plan = &assignment.plan;
    let (room, slot) = (*rooms.get(worker)?, plan.slot(worker)?);
    let layers = plan.stages[slot.stage];
    let held = layers.touched().len() as u32;
    (held > room).then(|| ToCoordinator::OutOfMemory {
        job: plan.job,
        epoch: plan.epoch,
        reason: format!("there is room for {room} layers"),
        needed_bytes: u64::from(held),
        limit_bytes: u64::from(room),
    })
}
