//! The effects of one event, in the order that keeps promises: first what is kept, then what is
//! told.

use super::event::Effect;
use super::kept::Change;

#[derive(Default)]
pub(super) struct Outbox {
    blobs: Vec<Vec<u8>>,
    changes: Vec<Change>,
    told: Vec<Effect>,
}

impl Outbox {
    /// Stores a blob before anything else happens.
    pub(super) fn store(&mut self, blob: Vec<u8>) {
        self.blobs.push(blob);
    }

    /// Keeps a change, in one transaction with all others of this event.
    pub(super) fn keep(&mut self, change: Change) {
        self.changes.push(change);
    }

    /// Does this once all is kept.
    pub(super) fn tell(&mut self, effect: Effect) {
        self.told.push(effect);
    }

    pub(super) fn into_effects(self) -> Vec<Effect> {
        let blobs = self.blobs.into_iter().map(Effect::StoreBlob);
        let changes = (!self.changes.is_empty()).then_some(Effect::Persist(self.changes));
        blobs.chain(changes).chain(self.told).collect()
    }
}
