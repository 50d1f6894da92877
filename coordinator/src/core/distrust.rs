//! What a convicted checker has said is worth nothing.

use concord_proto::WorkerId;
use concord_proto::ledger::LedgerEvent;

use super::audit::{Audit, Purpose};
use super::desk::Desk;
use super::job::Job;
use super::kept::KeptJudgement;

impl Job {
    /// What a convicted checker found right counts no more: leaves of late are judged again, older
    /// ones are inconclusive.
    fn judge_again(&mut self, desk: &mut Desk, checker: WorkerId) {
        let is_doubtful = |(judged, _): &(KeptJudgement, _)| judged.checker == checker;
        let all = std::mem::take(&mut self.audits.judged);
        let (doubtful, sound) = all.into_iter().partition(is_doubtful);
        self.audits.judged = sound;
        for (judged, audit) in doubtful {
            self.audits.agreed -= 1;
            let Some(mut audit) = audit else {
                self.audits.inconclusive += 1;
                let (leaf, reason) = (judged.leaf, "its checker was convicted".to_string());
                self.write(desk, LedgerEvent::Inconclusive { leaf, reason });
                continue;
            };
            audit.pass_on(desk.now, checker);
            audit.accusations.clear();
            let number = self.audits.next_number();
            self.keep_audit(desk, number, &audit);
            self.audits.open.insert(number, audit);
        }
    }

    /// A checker is convicted: what it said or was to say is asked of others.
    pub(super) fn distrust_judge(&mut self, desk: &mut Desk, judge: WorkerId) {
        self.judge_again(desk, judge);
        let canary = |(number, audit): (&u64, &Audit)| match &audit.purpose {
            Purpose::Canary { checker, .. } if *checker == judge => Some(*number),
            _ => None,
        };
        let canaries: Vec<u64> = self.audits.open.iter().filter_map(canary).collect();
        canaries
            .into_iter()
            .for_each(|number| self.close_audit(desk, number));
        for audit in self.audits.open.values_mut() {
            audit
                .accusations
                .retain(|accusation| accusation.judge != judge);
        }
        self.ask_others(desk, judge);
    }

    /// What `judge` re-runs, or said while it was tested, others are asked.
    pub(super) fn ask_others(&mut self, desk: &Desk, judge: WorkerId) {
        for audit in self.audits.open.values_mut() {
            if audit.judge() == Some(judge) {
                audit.pass_on(desk.now, judge);
            }
        }
    }
}
