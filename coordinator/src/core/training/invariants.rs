//! What always holds of a job between two events.

use super::TrainingJob;
use super::active_plan::ActivePlan;

impl TrainingJob {
    /// Panics where the state contradicts itself.
    pub(super) fn assert_invariants(&self) {
        self.committed.assert_invariants(self.spec(), self.order.id);
        if let Some(attempt) = &self.attempt {
            let is_ready = self.planning.active().is_some_and(ActivePlan::all_ready);
            assert!(is_ready, "a step without a plan");
            let due = self.committed.steps();
            assert_eq!(attempt.step(), due, "a step out of turn");
        }
        let is_disputed = self.attempt.as_ref().is_some_and(|a| a.is_disputed());
        self.audits
            .assert_invariants(self.committed.steps(), is_disputed);
        if self.is_over() {
            let is_idle = self.planning.active().is_none();
            assert!(is_idle, "a plan of a job that is over");
            assert!(self.audits.are_closed(), "audits of a job that is over");
        }
    }
}
