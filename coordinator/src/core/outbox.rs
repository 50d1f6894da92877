//! The effects of one event, in the order that the driver needs: first what is persisted, then what
//! is told.

use super::event::CoreEffect;
use super::persisted::Change;

#[derive(Default)]
pub(super) struct Outbox {
    blobs: Vec<Vec<u8>>,
    changes: Vec<Change>,
    told: Vec<CoreEffect>,
}

impl Outbox {
    /// Stores a blob before anything else happens.
    pub(super) fn store(&mut self, blob: Vec<u8>) {
        self.blobs.push(blob);
    }

    /// Persists a change, in one transaction with all others of this event.
    pub(super) fn persist(&mut self, change: Change) {
        self.changes.push(change);
    }

    /// Does this once all is persisted.
    pub(super) fn tell(&mut self, effect: CoreEffect) {
        self.told.push(effect);
    }

    pub(super) fn into_effects(self) -> Vec<CoreEffect> {
        let blobs = self.blobs.into_iter().map(CoreEffect::StoreBlob);
        let changes = (!self.changes.is_empty()).then_some(CoreEffect::Persist(self.changes));
        blobs.chain(changes).chain(self.told).collect()
    }
}
