//! Parties that are not believed any more: what they said, or were to say, is asked of others.

use concord_proto::WorkerId;
use concord_proto::ledger::LedgerEvent;

use super::{AuditedLeaf, Change, EventContext, Journal, LeafAudits, Purpose, Standing, Time};

impl LeafAudits {
    /// A job that was given up is taken up again: everybody may re-run its leaves.
    pub(in super::super) fn forgive(&mut self) {
        self.left_out.clear();
        self.unanswered.clear();
    }

    /// The job asks a party nothing more. What it said or was to say is asked of others.
    pub(in super::super) fn leave_out(
        &mut self,
        context: &mut EventContext,
        journal: &mut Journal,
        party: WorkerId,
    ) {
        self.left_out.insert(party);
        self.distrust(context, journal, party);
    }

    /// A checker is not believed any more: what it said or was to say is asked of others.
    pub(in super::super) fn distrust(
        &mut self,
        context: &mut EventContext,
        journal: &mut Journal,
        auditor: WorkerId,
    ) {
        self.audit_again(context, journal, auditor);
        let job = self.job;
        let mut over = Vec::new();
        for (number, audit) in &mut self.open {
            let said = audit.contradictions.len();
            audit.contradictions.retain(|one| one.auditor() != auditor);
            let has_retracted = audit.contradictions.len() < said;
            // Only a checker's word was against it.
            let is_moot = audit.purpose == Purpose::Doubt && audit.contradictions.is_empty();
            let is_test = audit.is_canary_of(&auditor);
            if is_moot || is_test {
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
        self.ask_others(context.now, auditor);
    }

    /// Leaves that a convicted checker found right no longer count: recent ones are audited again,
    /// older ones become inconclusive.
    fn audit_again(
        &mut self,
        context: &mut EventContext,
        journal: &mut Journal,
        checker: WorkerId,
    ) {
        let is_doubtful = |audited: &AuditedLeaf| audited.agreement.checker == checker;
        let all = std::mem::take(&mut self.agreements);
        let (doubtful, sound): (Vec<_>, Vec<_>) = all.into_iter().partition(is_doubtful);
        self.agreements = sound;
        for audited in doubtful {
            self.counts.agreed -= 1;
            let Some(mut audit) = audited.audit else {
                self.counts.inconclusive += 1;
                let leaf = audited.agreement.leaf;
                let reason = "its checker is not believed any more".to_string();
                journal.write(context, LedgerEvent::Inconclusive { leaf, reason });
                continue;
            };
            audit.pass_on(context.now, checker);
            audit.contradictions.clear();
            let number = self.next_number();
            let (job, persisted) = (self.job, audit.persisted(number));
            let audit_opened = Change::AuditOpened {
                job,
                audit: persisted,
            };
            context.out.persist(audit_opened);
            self.open.insert(number, audit);
        }
    }

    /// Hands the leaves that `auditor` re-runs, or whose verdict is held back, to others.
    pub(super) fn ask_others(&mut self, now: Time, auditor: WorkerId) {
        for audit in self.open.values_mut() {
            if audit.auditor() == Some(auditor) {
                audit.pass_on(now, auditor);
            }
        }
    }

    /// Has the verdicts of `auditor` that are held back given again, by anyone.
    pub(super) fn ask_again(&mut self, now: Time, auditor: WorkerId) {
        for audit in self.open.values_mut() {
            if matches!(audit.standing, Standing::Held { auditor: by, .. } if by == auditor) {
                audit.standing = Standing::Queued(now);
            }
        }
    }
}
