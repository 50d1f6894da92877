//! Deletes blobs that no job needs any more, as a coordinator does. `effects.rs` checks that no
//! worker is sent to one of them.

use std::collections::BTreeSet;

use concord_coordinator::core::{Change, NewJob};
use concord_coordinator::server::{JobBlobs, References};
use concord_proto::Digest;
use concord_proto::manifest::StateManifest;

#[derive(Default)]
pub struct Swept {
    references: References,
    /// Blobs deleted so far.
    pub deleted: u64,
}

/// The blobs of a state.
pub fn blobs_of(state: &StateManifest) -> Vec<Digest> {
    let entries = state.entries.iter();
    let blobs = entries.flat_map(|e| [e.value, e.first_moment, e.second_moment]);
    blobs.collect()
}

impl Swept {
    pub fn follow(&mut self, new: &NewJob, changes: &[Change], store: &mut BTreeSet<Digest>) {
        for change in changes {
            if let Change::Job { job, .. } = change {
                let blobs = JobBlobs {
                    manifests: Vec::new(),
                    inputs: Some(blobs_of(&new.initial)),
                };
                self.references.add_job(*job, blobs);
            }
        }
        for blob in self.references.follow(changes) {
            self.deleted += u64::from(store.remove(&blob));
        }
    }
}
