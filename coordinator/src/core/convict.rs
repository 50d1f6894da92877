//! Convictions: the culprit is out for good, and what it did is done again.

use concord_proto::WorkerId;
use concord_proto::client::JobEvent;
use concord_proto::ledger::{LedgerEvent, Offence};
use concord_proto::session::{Role, ToWorker};
use concord_verify::training::Breach;

use super::desk::Desk;
use super::event::Effect;
use super::job::Job;
use super::kept::Change;

impl Desk<'_> {
    /// Bans a key and ends its session. Says whether it was not banned before.
    pub(super) fn expel(&mut self, culprit: WorkerId, offence: Offence, evidence: &str) -> bool {
        if self.pool.is_convicted(&culprit).is_some() {
            return false;
        }
        self.pool.convict(culprit, offence);
        self.out.keep(Change::Convicted { culprit, offence });
        if let Some(session) = self.pool.session(&culprit) {
            let reason = format!("convicted of {}: {evidence}", offence.as_str());
            self.send(&culprit, ToWorker::Refused { reason });
            self.out.tell(Effect::Close { session });
            self.pool.leave(self.now, session);
        }
        true
    }
}

impl Job {
    /// Convicts a party. `wrong` is the step of a leaf that was found wrong: then all is void from
    /// the first step on that the culprit had a part in, because what was not drawn of its work is
    /// worth no more than what was. After other offences only steps are void of which drawn leaves
    /// of the culprit are not judged.
    pub(super) fn convict(
        &mut self,
        desk: &mut Desk,
        culprit: WorkerId,
        offence: Offence,
        evidence: String,
        wrong: Option<u32>,
    ) {
        if !desk.expel(culprit, offence, &evidence) {
            return;
        }
        let role = desk.pool.get(&culprit).map(|member| member.role);
        self.enrol(desk, &culprit, role == Some(Role::Checker));
        let convicted = LedgerEvent::Convicted {
            culprit,
            offence,
            evidence: evidence.clone(),
        };
        self.write(desk, convicted);
        let convicted = JobEvent::Convicted {
            culprit,
            offence,
            evidence,
        };
        self.publish(desk, convicted);
        let unjudged = self.first_unjudged(&culprit);
        let first_part = self
            .first_part
            .get(&culprit)
            .copied()
            .filter(|_| wrong.is_some());
        let doubtful = [wrong, unjudged, first_part].into_iter().flatten().min();
        let had_part = self
            .active
            .as_ref()
            .is_some_and(|active| active.has(&culprit));
        self.holding.remove(&culprit);
        if self
            .flush
            .as_ref()
            .is_some_and(|flush| flush.needs(&culprit))
        {
            self.flush = None;
        }
        if had_part || doubtful.is_some() {
            self.reason = format!("worker {} was convicted", culprit.short());
            self.retire(desk);
        }
        if let Some(step) = doubtful {
            self.void_from(desk, step);
        }
        self.distrust_judge(desk, culprit);
    }

    /// Convicts with the evidence of a rule that does not hold.
    pub(super) fn convict_breach(&mut self, desk: &mut Desk, breach: Breach) {
        self.convict(desk, breach.culprit, breach.offence, breach.evidence, None);
    }
}
