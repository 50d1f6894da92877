//! Which generation is next: one that had begun, else one of the owner that was given the fewest
//! tokens.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use concord_proto::Digest;

#[derive(Clone, Debug, Default)]
struct Owner {
    /// Tokens that were computed and drawn for it, counted from the level at which it came.
    given: u64,
    /// Its generations that wait, in order of arrival.
    waiting: VecDeque<u64>,
    /// How many of its generations do not wait; their tokens are still charged.
    live: u32,
}

/// Generations that wait. The owner with the fewest tokens computed and drawn for it is next. A new
/// owner starts level with the owner that was last served, so that it neither starves nor has
/// credit from the past.
#[derive(Clone, Debug, Default)]
pub(crate) struct Queue {
    /// Generations that had begun and lost their pages, by age.
    begun: BTreeMap<u64, u64>,
    owners: BTreeMap<Digest, Owner>,
    /// Owners with generations that wait, by what they were given.
    order: BTreeSet<(u64, Digest)>,
    /// What the last owner to be served had been given.
    level: u64,
    /// Generations in the queues of owners.
    fresh: usize,
}

impl Queue {
    /// Whether nobody waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many wait.
    pub(crate) fn len(&self) -> usize {
        self.begun.len() + self.fresh
    }

    /// How many owners have generations that wait for their first turn.
    pub(crate) fn owners_waiting(&self) -> usize {
        self.order.len()
    }

    /// How many generations of an owner wait for their first turn.
    pub(crate) fn waiting_of(&self, owner: &Digest) -> usize {
        self.owners
            .get(owner)
            .map_or(0, |owner| owner.waiting.len())
    }

    /// Adds a generation that waits for its first turn.
    pub(crate) fn push(&mut self, owner: Digest, sequence: u64) {
        let level = self.level;
        let entry = self.owners.entry(owner).or_insert_with(|| Owner {
            given: level,
            ..Owner::default()
        });
        if entry.waiting.is_empty() {
            self.order.insert((entry.given, owner));
        }
        entry.waiting.push_back(sequence);
        self.fresh += 1;
    }

    /// Adds a generation that had begun and waits again, first in line, by its age.
    pub(crate) fn push_begun(&mut self, age: u64, sequence: u64) {
        self.begun.insert(age, sequence);
    }

    /// Counts a generation of an owner that begins without having waited here.
    pub(crate) fn enter(&mut self, owner: Digest) {
        let level = self.level;
        let entry = self.owners.entry(owner).or_insert_with(|| Owner {
            given: level,
            ..Owner::default()
        });
        entry.live += 1;
    }

    /// The generation that is next.
    pub(crate) fn head(&self) -> Option<u64> {
        if let Some((_, sequence)) = self.begun.first_key_value() {
            return Some(*sequence);
        }
        let (_, owner) = self.order.first()?;
        self.owners.get(owner)?.waiting.front().copied()
    }

    /// Removes the generation that is next, because it begins.
    pub(crate) fn pop(&mut self) {
        if self.begun.pop_first().is_some() {
            return;
        }
        let Some((given, owner)) = self.order.pop_first() else {
            return;
        };
        self.level = self.level.max(given);
        let Some(entry) = self.owners.get_mut(&owner) else {
            return;
        };
        if entry.waiting.pop_front().is_some() {
            self.fresh -= 1;
            entry.live += 1;
        }
        if !entry.waiting.is_empty() {
            self.order.insert((given, owner));
        }
    }

    /// Removes a waiting generation: by its age if it had begun, else by its owner.
    pub(crate) fn remove(&mut self, owner: Digest, sequence: u64, age: Option<u64>) {
        if let Some(age) = age {
            self.begun.remove(&age);
            return self.leave(owner);
        }
        let Some(entry) = self.owners.get_mut(&owner) else {
            return;
        };
        let before = entry.waiting.len();
        entry.waiting.retain(|waiting| *waiting != sequence);
        self.fresh -= before - entry.waiting.len();
        if entry.waiting.is_empty() {
            self.order.remove(&(entry.given, owner));
            if entry.live == 0 {
                self.owners.remove(&owner);
            }
        }
    }

    /// Counts that a generation of the owner that had begun is done.
    pub(crate) fn leave(&mut self, owner: Digest) {
        if let Some(entry) = self.owners.get_mut(&owner) {
            entry.live = entry.live.saturating_sub(1);
            if entry.live == 0 && entry.waiting.is_empty() {
                self.owners.remove(&owner);
            }
        }
    }

    /// Charges `tokens` to the owner.
    pub(crate) fn charge(&mut self, owner: Digest, tokens: u64) {
        let Some(entry) = self.owners.get_mut(&owner) else {
            return;
        };
        let before = (entry.given, owner);
        entry.given += tokens;
        if !entry.waiting.is_empty() {
            self.order.remove(&before);
            self.order.insert((entry.given, owner));
        }
    }

    /// About how many generations are before each one that waits, assuming that owners take turns.
    pub(crate) fn ahead(&self) -> Vec<(u64, u32)> {
        let begun = self.begun.values().copied().zip(0..);
        let mut all: Vec<(u64, u32)> = begun.collect();
        let queues = || self.owners.values().map(|owner| &owner.waiting);
        let longest = queues().map(VecDeque::len).max().unwrap_or(0);
        // How many owners have a generation at each position of their queue.
        let mut turns = vec![0_u32; longest];
        for queue in queues() {
            turns[..queue.len()].iter_mut().for_each(|turn| *turn += 1);
        }
        let mut before = self.begun.len() as u32;
        for turn in &mut turns {
            before += std::mem::replace(turn, before);
        }
        for queue in queues() {
            all.extend(queue.iter().copied().zip(turns.iter().copied()));
        }
        all
    }
}
