//! The honest auditor. It sees what it is shown and no more: a claim that was committed, and of a
//! drawn leaf the inputs, if its worker gives them.

use concord_proto::auditor::{Reveal, reveal_digest};
use concord_proto::ledger::{Finding, Verdict, entry_digest};
use concord_proto::session::{EnrolOrder, ToCoordinator, ToWorker};
use concord_proto::{Digest, JobId, Leaf, Port, Signed, WorkerId};

use super::super::auditor::{Auditor, Manner};
use super::super::claims::{rerun, trace};
use super::super::reading::read;
use super::super::stage::Openings;
use super::super::world::key;

/// The number of its key.
pub(super) const NUMBER: u8 = 201;

/// The auditor, with what it has opened: a coordinator has no way to make it forget that.
pub(super) struct Watchman {
    auditor: Auditor,
    /// The last attempt whose secret it has opened, and the entry that it was opened for.
    opened: Option<(u32, Digest)>,
    pub(super) last: Option<Digest>,
    /// The first attempt that its present secrets are for.
    pub(super) from: u32,
}

/// What it is asked to look at.
pub(super) struct ShownLeaf<'a> {
    pub(super) job: JobId,
    pub(super) attempt: u32,
    /// Step and epoch.
    pub(super) at: (u32, u32),
    pub(super) worker: WorkerId,
    pub(super) index: u32,
    pub(super) leaf: &'a Leaf,
    /// None where its worker gives nothing.
    pub(super) openings: Option<&'a Openings>,
}

impl Watchman {
    /// One whose secrets are those of a seed.
    pub(super) fn new(seed: u64) -> Self {
        let coordinator = key(255).public();
        let mut auditor = Auditor::new(key(NUMBER), coordinator, Manner::Honest);
        auditor.begin_chains_at(Self::chains_from(seed));
        Self {
            auditor,
            opened: None,
            last: None,
            from: 0,
        }
    }

    /// How many chains others of this key have made before.
    pub(super) fn chains_from(seed: u64) -> u64 {
        seed << 8
    }

    pub(super) fn id() -> WorkerId {
        key(NUMBER).public()
    }

    /// It commits to new secrets; none for an attempt whose secret is open.
    pub(super) fn enrol(&mut self, order: EnrolOrder) -> Option<Signed> {
        if self
            .opened
            .is_some_and(|(attempt, _)| attempt >= order.from)
        {
            return None;
        }
        self.from = order.from;
        let said = self.auditor.told(&ToWorker::Enrol(order));
        said.into_iter().find_map(|said| match said {
            ToCoordinator::Enrolled { enrolment } => Some(enrolment),
            _ => None,
        })
    }

    /// It opens the secret of an attempt, and none of an earlier one or of another history.
    pub(super) fn reveal(
        &mut self,
        job: JobId,
        attempt: u32,
        committed: &Signed,
    ) -> Option<Signed> {
        let entry = entry_digest(committed);
        let fits = |(last, of): (u32, Digest)| attempt > last || (attempt, entry) == (last, of);
        if !self.opened.is_none_or(fits) || !self.auditor.has_secret(attempt) {
            return None;
        }
        self.opened = Some((attempt, entry));
        let committed = committed.clone();
        let said = self.auditor.told(&ToWorker::Reveal { job, committed });
        let said = said.into_iter().find_map(|said| match said {
            ToCoordinator::Revealed { reveal } => Some(reveal),
            _ => None,
        })?;
        self.last = Some(reveal_digest(&said));
        Some(said)
    }

    /// The secret in a reveal.
    pub(super) fn secret(reveal: &Signed) -> Digest {
        read::<Reveal>(reveal).secret
    }

    /// It re-runs a leaf, and says what it finds.
    pub(super) fn judge(&self, shown: &ShownLeaf) -> Signed {
        let computed = shown.openings.map(|openings| rerun(shown.leaf, openings));
        let trace = computed.as_ref().map(|all| trace(&Self::id(), all));
        let is_right = |computed: &Vec<Port>| {
            let mut claimed = shown.leaf.outputs.iter();
            claimed.all(|port| computed.contains(port))
        };
        let finding = match computed {
            None => Finding::Inconclusive {
                reason: "its inputs are gone".to_string(),
            },
            Some(computed) if is_right(&computed) => Finding::Agrees,
            Some(computed) => Finding::Differs { computed },
        };
        let verdict = Verdict {
            job: shown.job,
            attempt: shown.attempt,
            step: shown.at.0,
            epoch: shown.at.1,
            worker: shown.worker,
            index: shown.index,
            leaf: shown.leaf.digest(),
            finding,
            trace: trace.unwrap_or_default(),
        };
        Signed::new(&self.auditor.key, &verdict)
    }
}
