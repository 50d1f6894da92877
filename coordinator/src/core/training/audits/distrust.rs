//! Parties that are not believed any more: what they said, or were to say, is asked of others.

use concord_proto::WorkerId;

use super::{Change, EventContext, LeafAudits, Purpose};

impl LeafAudits {
    /// A job that was given up is taken up again: everybody may re-run its leaves.
    pub(in super::super) fn forgive(&mut self) {
        self.left_out.clear();
        self.unanswered.clear();
    }

    /// The job asks a party nothing more. What it said or was to say is asked of others.
    pub(in super::super) fn leave_out(&mut self, context: &mut EventContext, party: WorkerId) {
        self.left_out.insert(party);
        self.distrust(context, party);
    }

    /// An auditor is not believed any more: what it said against others is as unsaid, and what it
    /// was to say is asked of others where that helps.
    pub(in super::super) fn distrust(&mut self, context: &mut EventContext, auditor: WorkerId) {
        let job = self.job;
        let mut over = Vec::new();
        for (number, audit) in &mut self.open {
            let said = audit.contradictions.len();
            audit.contradictions.retain(|one| one.auditor() != auditor);
            let has_retracted = audit.contradictions.len() < said;
            // Only its word was against it.
            let is_moot = audit.purpose == Purpose::Doubt && audit.contradictions.is_empty();
            let is_own = matches!(audit.purpose, Purpose::Own { auditor: by } if by == auditor);
            if is_moot || is_own {
                over.push(*number);
            } else if has_retracted && audit.is_persisted() {
                let audit = audit.persisted(*number);
                context
                    .out
                    .persist(Change::AuditContradicted { job, audit });
            }
        }
        over.into_iter()
            .for_each(|number| self.close(context, number));
        for audit in self.open.values_mut() {
            if audit.auditor() == Some(auditor) {
                audit.pass_on(context.now, auditor);
            }
        }
    }
}
