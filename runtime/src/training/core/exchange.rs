//! Who needs whose partial sums, and when all are there.

use std::collections::BTreeMap;

use concord_proto::tree::{Node, cover};
use concord_proto::{GradientPart, JobSpec, Plan, Slot, WorkerId};
use concord_verify::training::parts;

/// A partial sum of one part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PartKey {
    /// Of which tensors.
    pub part: GradientPart,
    /// Over which microbatches.
    pub node: Node,
}

/// The stage that computes a part.
fn producer_stage(plan: &Plan, slot: Slot, part: GradientPart) -> usize {
    match part {
        GradientPart::Own => slot.stage,
        GradientPart::TiedEmbed => 0,
        GradientPart::TiedHead => plan.stages.len() - 1,
    }
}

/// The other workers that need a part which the worker at `slot` computes: those of its stage in
/// other replicas, and for a tied embedding those at both ends.
pub fn consumers(plan: &Plan, slot: Slot, part: GradientPart) -> Vec<WorkerId> {
    let last = plan.stages.len() - 1;
    let needs = |other: Slot| match part {
        GradientPart::Own => other.stage == slot.stage,
        GradientPart::TiedEmbed | GradientPart::TiedHead => other.stage == 0 || other.stage == last,
    };
    plan.workers()
        .filter(|(other, _)| *other != slot && needs(*other))
        .map(|(_, id)| id)
        .collect()
}

/// The partial sums that a worker needs for its update: its own and those of others.
#[derive(Clone, Debug)]
pub struct Exchange<T> {
    /// From whom each must come.
    needed: BTreeMap<PartKey, WorkerId>,
    have: BTreeMap<PartKey, T>,
    /// The microbatches of a step, over which the totals are.
    microbatches: u32,
}

impl<T> Exchange<T> {
    /// What the worker at `slot` needs.
    pub fn new(spec: &JobSpec, plan: &Plan, slot: Slot) -> Self {
        let held = parts(spec, plan.stages[slot.stage]);
        let mut wanted: Vec<GradientPart> = Vec::new();
        if held.contains(&GradientPart::Own) {
            wanted.push(GradientPart::Own);
        }
        if held.iter().any(|&part| part != GradientPart::Own) {
            wanted.extend([GradientPart::TiedEmbed, GradientPart::TiedHead]);
        }
        let mut needed = BTreeMap::new();
        for part in wanted {
            for replica in &plan.replicas {
                let worker = replica.workers[producer_stage(plan, slot, part)];
                for node in cover(spec.microbatches, replica.start, replica.end) {
                    needed.insert(PartKey { part, node }, worker);
                }
            }
        }
        Self {
            needed,
            have: BTreeMap::new(),
            microbatches: spec.microbatches,
        }
    }

    /// What is needed where nothing is updated.
    pub fn of_nothing() -> Self {
        Self {
            needed: BTreeMap::new(),
            have: BTreeMap::new(),
            microbatches: 0,
        }
    }

    /// Takes a partial sum in. False where it is not wanted from this worker, or no more: norms may
    /// have been computed of the first one.
    pub fn insert(&mut self, key: PartKey, from: WorkerId, value: T) -> bool {
        let wanted = self.needed.get(&key) == Some(&from) && !self.have.contains_key(&key);
        if wanted {
            self.have.insert(key, value);
        }
        wanted
    }

    /// Whether all are there.
    pub fn is_complete(&self) -> bool {
        self.have.len() == self.needed.len()
    }

    /// All partial sums, by part and node.
    pub fn values(&self) -> &BTreeMap<PartKey, T> {
        &self.have
    }

    /// The sum of a part over all microbatches, along the tree; nothing for a part that is not
    /// needed. `clone` makes the first summand its own, `add` is `a += b`.
    pub fn total<S>(
        &self,
        part: GradientPart,
        clone: &impl Fn(&T) -> S,
        add: &impl Fn(&mut S, S),
    ) -> Option<S> {
        let root = Node {
            start: 0,
            end: self.microbatches,
        };
        self.sum(part, root, clone, add)
    }

    fn sum<S>(
        &self,
        part: GradientPart,
        node: Node,
        clone: &impl Fn(&T) -> S,
        add: &impl Fn(&mut S, S),
    ) -> Option<S> {
        if let Some(value) = self.have.get(&PartKey { part, node }) {
            return Some(clone(value));
        }
        let (left, right) = node.children()?;
        let mut sum = self.sum(part, left, clone, add)?;
        add(&mut sum, self.sum(part, right, clone, add)?);
        Some(sum)
    }
}
