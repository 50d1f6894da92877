//! Contradictions where the coordinator has no referee: another party gives its opinion. Nobody is
//! convicted on words; the job does without whoever was outvoted.

use concord_proto::{Signed, WorkerId};
use concord_verify::training::leaf_words;

use super::{
    AuditDecision, Contradiction, EventContext, JobOrder, Journal, LeafAudit, LeafAudits, Purpose,
};

impl LeafAudits {
    /// Another party has found a contested leaf right: those that contradict the claim are left
    /// out. In a step that is final, what they found is written down, and the step is void.
    pub(super) fn outvote(
        &mut self,
        context: &mut EventContext,
        journal: &mut Journal,
        job: &JobOrder,
        (number, auditor): (u64, WorkerId),
        verdict: Signed,
    ) -> Vec<AuditDecision> {
        let Some(audit) = self.open.get_mut(&number) else {
            return Vec::new();
        };
        let contested = audit.clone();
        audit.contradictions.clear();
        let is_final = audit.purpose != Purpose::Dispute;
        let outvoted = contested.contradictions.iter();
        let void = is_final.then_some(contested.of.at.step);
        if void.is_some() {
            contested.write_verdicts(context, journal);
        }
        let step = job.spec().words(contested.of.at.step);
        let leave_out = |one: &Contradiction| AuditDecision::LeaveOut {
            party: one.auditor(),
            void,
            reason: format!(
                "{} and {} do not agree about the {} in {step}, and no referee decides",
                one.auditor().short(),
                auditor.short(),
                leaf_words(&contested.of.leaf)
            ),
        };
        let accept = void.is_none().then_some(AuditDecision::Accept {
            number,
            auditor,
            verdict,
        });
        accept.into_iter().chain(outvoted.map(leave_out)).collect()
    }

    /// The worker is left out where two parties found the same other outputs.
    pub(super) fn confirmed(
        &mut self,
        context: &mut EventContext,
        journal: &mut Journal,
        (number, audit): (u64, &LeafAudit),
    ) -> Vec<AuditDecision> {
        let Some((last, earlier)) = audit.contradictions.split_last() else {
            return Vec::new();
        };
        if !earlier.iter().any(|one| one.said == last.said) {
            return Vec::new();
        }
        let reason = format!(
            "two checkers found a leaf of worker {} wrong, the {}, and no referee decides",
            audit.of.worker.short(),
            leaf_words(&audit.of.leaf)
        );
        vec![self.leave_worker_out(context, journal, (number, audit), reason)]
    }
}
