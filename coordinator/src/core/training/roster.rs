//! Who audits a job: the auditors that it names, and checkers of the pool.

use std::collections::BTreeMap;

use concord_proto::client::{NamedAuditor, RunOptions};
use concord_proto::{JobId, WorkerId};

use super::{EventContext, Time};

/// A checker that has been away for this long is replaced.
const AWAY_US: u64 = 5_000_000;

/// So is one that has committed to no secrets this long after it was asked to.
const COMMIT_US: u64 = 15_000_000;

/// The most checkers that commit to secrets of one job, one after another.
const CHOSEN_MAX: usize = 64;

/// Who audits a job.
#[derive(Default)]
pub(super) struct Roster {
    /// Checkers of the pool, each with the time when it was chosen.
    chosen: BTreeMap<WorkerId, Time>,
}

impl Roster {
    /// After a restart: whoever the ledger has as an auditor goes on.
    pub(super) fn restore(options: &RunOptions, enrolled: impl Iterator<Item = WorkerId>) -> Self {
        let is_named = |id: &WorkerId| options.auditors.iter().any(|named| named.key == *id);
        let chosen = enrolled.filter(|id| !is_named(id));
        Self {
            chosen: chosen.map(|id| (id, Time::default())).collect(),
        }
    }

    /// All of them, each once.
    pub(super) fn all(&self, options: &RunOptions) -> Vec<NamedAuditor> {
        let named = &options.auditors;
        let is_named = |id: &&WorkerId| named.iter().any(|named| named.key == **id);
        let chosen = self.chosen.keys().filter(|id| !is_named(id));
        let chosen = chosen.map(|id| NamedAuditor {
            key: *id,
            rate: options.audit_rate,
        });
        named.iter().copied().chain(chosen).collect()
    }

    /// The checkers of the pool among them.
    pub(super) fn chosen(&self) -> impl Iterator<Item = &WorkerId> {
        self.chosen.keys()
    }

    /// Chooses as many checkers of the pool as the job asks for, one where it leaves that open,
    /// and others in the place of those that are gone. Nobody can foresee whom: keys cost nothing.
    /// `serves` tells whether one has committed to secrets, if it has not failed.
    pub(super) fn choose(
        &mut self,
        context: &EventContext,
        job: &JobId,
        options: &RunOptions,
        serves: impl Fn(&WorkerId) -> Option<bool>,
    ) {
        if options.audit_rate == 0 {
            return;
        }
        let counts = |(id, since): (&WorkerId, &Time)| {
            let is_new = context.now.since(*since) < COMMIT_US;
            let is_here = context.members.get(id).is_some_and(|member| {
                member.session.is_some() || context.now.since(member.left) < AWAY_US
            });
            is_here && serves(id).is_some_and(|is_committed| is_committed || is_new)
        };
        let wanted = options.checkers.max(1) as usize;
        let mut present = self.chosen.iter().filter(|one| counts(*one)).count();
        // Keys that never commit to anything keep no others out.
        let committed = self.chosen.keys().filter(|id| serves(id) == Some(true));
        let committed = committed.count();
        while present < wanted && committed < CHOSEN_MAX {
            let others = context.members.checkers().map(|member| member.id);
            let is_paused = |id: &WorkerId| {
                let member = context.members.get(id);
                member.is_some_and(|member| member.unfit_until > context.now)
            };
            let others = others.filter(|id| {
                let is_named = options.auditors.iter().any(|named| named.key == *id);
                !is_named && !self.chosen.contains_key(id) && !is_paused(id) && serves(id).is_some()
            });
            let lot = |id: &WorkerId| {
                let [a, b] = [&id.0[..8], &id.0[8..16]].map(|half| {
                    let half: [u8; 8] = half.try_into().unwrap_or_default();
                    u64::from_le_bytes(half)
                });
                context.secret(job, "checker", [a, b])
            };
            let Some(next) = others.min_by_key(lot) else {
                return;
            };
            self.chosen.insert(next, context.now);
            present += 1;
        }
    }
}
