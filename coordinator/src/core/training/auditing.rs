//! What the secrets of auditors draw is handed to them, and workers learn what they have to keep.

use concord_proto::session::{AuditedStep, ToWorker};
use concord_proto::{Signed, WorkerId, auditor};

use super::auditors::Missing;
use super::audits::{AuditedLeaves, Subject};
use super::planned_step::PlannedStep;
use super::secret_draw::PendingAttempt;
use super::{EventContext, TrainingJob};

/// The first step does not wait longer for checkers where the job does not say how many it wants.
const COMMIT_US: u64 = 5_000_000;

impl TrainingJob {
    /// Asks auditors for what they have yet to commit to, and goes on without those that do not
    /// open their secrets in time.
    pub(super) fn run_auditors(&mut self, context: &mut EventContext) {
        let (job, steps) = (self.order.id, self.spec().chain_steps());
        let next = self.journal.next_attempt();
        let (auditors, audits) = (&self.auditors, &self.audits);
        let serves = |id: &WorkerId| auditors.serves(id).filter(|_| audits.asks(id));
        let options = &self.order.submission.options;
        self.roster.choose(context, &job, options, serves);
        let named = self.roster.all(options);
        self.auditors
            .ask_to_enrol(context, job, &named, (next, steps));
        for settled in self.auditors.take_settled(context) {
            self.tell_settled(context, settled);
        }
    }

    /// Whether the next step has to wait for auditors or checkers. Says so, and gives the job up
    /// where an auditor that it names has not come for too long.
    pub(super) fn awaits_auditors(&mut self, context: &mut EventContext) -> bool {
        if self.journal.next_attempt() > 0 {
            return self.awaits_checkers(context);
        }
        let named = &self.order.submission.options.auditors;
        match self.auditors.missing(context.now, named) {
            None => return self.awaits_checkers(context),
            Some(Missing::Waits(auditor)) => {
                let what = format!(
                    "auditor {} to connect and commit to its secrets (`concord checker --auditor`)",
                    auditor.short()
                );
                self.wait_for(context, what);
            }
            Some(Missing::Late(auditor)) => {
                let why = format!(
                    "auditor {}, which the job names, has not connected and committed to its \
                     secrets within two minutes: start it (`concord checker --auditor`), or look \
                     at what it says",
                    auditor.short()
                );
                self.fail(context, why);
            }
        }
        true
    }

    /// Whether the next step has to wait for checkers of the pool to commit to their secrets: the
    /// first one for as many as the job asks for, or for those that are there, and not for long,
    /// where it leaves that open; a later one for a while in place of those that are gone.
    fn awaits_checkers(&mut self, context: &mut EventContext) -> bool {
        let options = self.options();
        let (wanted, is_first) = (options.checkers as usize, self.journal.next_attempt() == 0);
        if options.audit_rate == 0 || (wanted == 0 && !is_first) {
            return false;
        }
        let is_here = |id: &&WorkerId| self.audits.asks(id) && self.auditors.is_here(context, id);
        let here = self.roster.chosen().filter(is_here).count();
        let wanted_now = match wanted {
            0 => self.roster.chosen().count(),
            wanted => wanted,
        };
        let grace = match (wanted, is_first) {
            (0, _) => COMMIT_US,
            (_, true) => u64::MAX,
            (_, false) => context.config.checker_grace_us,
        };
        let is_short = here < wanted_now;
        if !self.auditors.waits_on(context.now, is_short, grace) {
            return false;
        }
        let what = match is_first {
            true => {
                format!("checkers to commit to their secrets: {here} of {wanted_now} have")
            }
            false => format!(
                "a checker: {here} of {wanted_now} are left. Start `concord checker`; after {} s \
                 the job goes on without",
                grace / 1_000_000
            ),
        };
        self.wait_for(context, what);
        true
    }

    pub(super) fn on_enrolled(
        &mut self,
        context: &mut EventContext,
        auditor: WorkerId,
        enrolment: Signed,
    ) {
        let named = self.roster.all(&self.order.submission.options);
        let of = (auditor, self.order.id);
        self.auditors
            .on_enrolled(context, &mut self.journal, &named, of, enrolment);
    }

    /// An auditor opens a secret: what it draws is re-run by the auditor itself.
    pub(super) fn on_revealed(
        &mut self,
        context: &mut EventContext,
        auditor: WorkerId,
        reveal: Signed,
    ) {
        let of = (auditor, self.order.id);
        let draws = self
            .auditors
            .on_revealed(context, &mut self.journal, of, reveal);
        for draw in draws {
            let Some(pending) = self.auditors.pending_mut(draw.attempt) else {
                continue;
            };
            let decides = self.order.spec().decides(pending.at.step);
            let (at, claims) = (pending.at, pending.claims.clone());
            let signed = pending.signed.clone();
            for claim in &claims.claims {
                let (worker, leaves) = (claim.claim.signer, &claim.leaves);
                // Nobody judges its own work: what it draws of that stays unsettled.
                if worker == draw.auditor {
                    continue;
                }
                let count = leaves.len() as u32;
                let (secret, entry) = (&draw.secret, &draw.entry);
                for index in auditor::drawn(secret, entry, &worker, draw.rate, count, decides) {
                    let leaf = &leaves[index as usize];
                    let keys = pending.audited.entry(worker).or_default();
                    keys.insert(leaf.key());
                    let own = (draw.auditor, signed.clone());
                    let of = Subject {
                        at,
                        attempt: draw.attempt,
                        worker,
                        index,
                        leaf: leaf.clone(),
                    };
                    self.audits.add_own(context, own, of);
                }
            }
        }
        for settled in self.auditors.take_settled(context) {
            self.tell_settled(context, settled);
        }
    }

    fn tell_settled(&mut self, context: &mut EventContext, settled: PendingAttempt) {
        let claims = settled.claims.claims.iter();
        let workers: Vec<WorkerId> = claims.map(|claim| claim.claim.signer).collect();
        self.tell_audited(context, settled.at, &workers, settled.audited);
    }

    /// Tells the workers of a final step which of their leaves may be asked for.
    pub(super) fn tell_audited(
        &mut self,
        context: &mut EventContext,
        at: PlannedStep,
        workers: &[WorkerId],
        mut audited: AuditedLeaves,
    ) {
        let job = self.order.id;
        for worker in workers {
            let message = ToWorker::Audited(AuditedStep {
                job,
                epoch: at.epoch,
                step: at.step,
                leaves: audited.remove(worker).into_iter().flatten().collect(),
            });
            context.send(worker, message);
        }
    }

    /// The first step with a leaf that is being audited, or may yet be drawn.
    pub(super) fn oldest_open_step(&self) -> Option<u32> {
        let oldest = [self.audits.oldest_step(), self.auditors.oldest_step()];
        oldest.into_iter().flatten().min()
    }
}
