//! What workers and checkers say about a job.

use concord_proto::session::ToCoordinator;
use concord_proto::{JobId, Signed, WorkerId};
use concord_verify::training::StepValues;

use super::attempt::Computed;
use super::audits::Refereed;
use super::learned_memory::Shortage;
use super::planned_step::PlannedStep;
use super::{EventContext, TrainingJob, reported};

impl TrainingJob {
    pub(in crate::core) fn on_message(
        &mut self,
        context: &mut EventContext,
        worker: WorkerId,
        message: ToCoordinator,
    ) {
        // A message about another job is late: that job is over.
        if named_job(&message).is_some_and(|job| job != self.order.id) {
            return;
        }
        match message {
            ToCoordinator::Ready { epoch, .. } => self.on_ready(worker, epoch),
            ToCoordinator::Failed {
                epoch,
                reason,
                permanent,
                ..
            } => self.on_failed(context, worker, epoch, reported(reason), permanent),
            ToCoordinator::Unreached {
                epoch,
                worker: other,
                reason,
                ..
            } => self.on_unreached(context, worker, epoch, other, &reported(reason)),
            ToCoordinator::OutOfMemory {
                epoch,
                reason,
                needed_bytes,
                limit_bytes,
                ..
            } => {
                let shortage = Shortage {
                    needed_bytes,
                    limit_bytes,
                };
                self.on_out_of_memory(context, worker, epoch, shortage, &reported(reason));
            }
            ToCoordinator::Computed {
                epoch,
                step,
                first_half,
                leaves,
                losses,
                norms,
                ..
            } => {
                let (at, values) = (PlannedStep { step, epoch }, StepValues { losses, norms });
                let computed = Computed::new(first_half, leaves, values);
                self.on_computed(context, worker, at, computed);
            }
            ToCoordinator::Updated { claim, leaves } => {
                self.on_updated(context, worker, claim, leaves);
            }
            ToCoordinator::Flushed { step, state, .. } => {
                self.on_flushed(context, worker, step, &state);
            }
            ToCoordinator::Verdict { order, verdict } => {
                self.on_verdict(context, worker, order, verdict);
            }
            ToCoordinator::Enrolled { enrolment } => self.on_enrolled(context, worker, enrolment),
            ToCoordinator::Revealed { reveal } => self.on_revealed(context, worker, reveal),
            // Handled by the session.
            ToCoordinator::Hello(_) | ToCoordinator::Heartbeat | ToCoordinator::Drain => {}
            // About a deployment of another coordinator, which the worker had before: none is
            // served here.
            ToCoordinator::StandsBy { .. }
            | ToCoordinator::StageFailed { .. }
            | ToCoordinator::AnswerVerdict { .. } => {}
        }
    }

    fn on_verdict(
        &mut self,
        context: &mut EventContext,
        worker: WorkerId,
        order: u64,
        verdict: Signed,
    ) {
        let (audits, journal) = (&mut self.audits, &mut self.journal);
        let job = &self.order;
        let decisions = audits.answer(context, journal, job, worker, order, verdict);
        self.carry_out(context, decisions);
    }

    /// The referee has re-run a leaf.
    pub(in crate::core) fn on_refereed(
        &mut self,
        context: &mut EventContext,
        order: u64,
        found: Refereed,
    ) {
        let (journal, job) = (&mut self.journal, &self.order);
        let decisions = self.audits.refereed(context, journal, job, order, found);
        self.carry_out(context, decisions);
    }

    /// The referee cannot compute a leaf.
    pub(in crate::core) fn on_beyond_referee(&mut self, context: &mut EventContext, order: u64) {
        let decisions = self
            .audits
            .beyond_referee(context, &mut self.journal, order);
        self.carry_out(context, decisions);
    }
}

/// The job that a message names, if it names one.
fn named_job(message: &ToCoordinator) -> Option<JobId> {
    match message {
        ToCoordinator::Ready { job, .. }
        | ToCoordinator::Failed { job, .. }
        | ToCoordinator::Unreached { job, .. }
        | ToCoordinator::OutOfMemory { job, .. }
        | ToCoordinator::Computed { job, .. }
        | ToCoordinator::Flushed { job, .. } => Some(*job),
        ToCoordinator::Updated { .. }
        | ToCoordinator::Verdict { .. }
        | ToCoordinator::Enrolled { .. }
        | ToCoordinator::Revealed { .. }
        | ToCoordinator::Hello(_)
        | ToCoordinator::Heartbeat
        | ToCoordinator::Drain
        | ToCoordinator::StandsBy { .. }
        | ToCoordinator::StageFailed { .. }
        | ToCoordinator::AnswerVerdict { .. } => None,
    }
}
