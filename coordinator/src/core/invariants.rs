//! What always holds between two events.

use super::Core;

impl Core {
    /// Panics where the state contradicts itself: a bug, never the world's fault.
    ///
    /// # Panics
    /// Naming the invariant.
    pub fn assert_invariants(&self) {
        self.jobs.assert_invariants();
        for convicted in self.members.convicted() {
            assert!(
                self.members.session(&convicted).is_none(),
                "a convicted key has a session"
            );
        }
    }
}
