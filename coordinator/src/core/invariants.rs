//! What always holds between two events.

use super::Core;

impl Core {
    /// Panics if the state contradicts itself: only a bug can cause that, never input.
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
