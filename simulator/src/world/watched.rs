//! What happens is shown to the watch, if there is one.

use concord_proto::LeafKey;
use concord_verify::training::bundle::StepClaims;

use super::*;
use crate::reading::read;
use crate::watch::SeenClaim;

impl World {
    /// How much longer a message of a session takes now.
    pub(super) fn lag(&self, session: SessionId) -> u64 {
        if self.lags.is_empty() {
            return 0;
        }
        let lag = self.of_session(session).and_then(|id| self.lags.get(&id));
        let lag = lag.filter(|lag| (lag.from..lag.until).contains(&self.now));
        lag.map_or(0, |lag| lag.extra)
    }

    /// Whether a process follows the protocol; none where it is gone, and nobody knows what it was.
    pub fn is_honest(&self, id: &WorkerId) -> Option<bool> {
        if self.mutants.contains_key(id) {
            return Some(false);
        }
        self.processes.get(id).map(|process| match &process.body {
            Body::Worker(worker) => worker.lie.is_none(),
            Body::Checker(how, _) => *how == Checker::Honest,
            Body::Auditor(auditor) => auditor.manner == Manner::Honest,
        })
    }

    pub(super) fn watch_said(&mut self, id: WorkerId, message: &ToCoordinator) {
        let is_honest = self.is_honest(&id) == Some(true);
        if let Some(watch) = self.watch.as_mut().filter(|_| is_honest) {
            watch.said(id, message);
        }
    }

    pub(super) fn watch_told(&mut self, message: &ToWorker) {
        if let Some(watch) = &self.watch {
            watch.told(message);
        }
    }

    pub(super) fn watch_entry(&mut self, entry: &Signed) {
        let Some(mut watch) = self.watch.take() else {
            return;
        };
        watch.entry(entry, |id| self.is_honest(id) == Some(true));
        self.watch = Some(watch);
    }

    /// A step becomes final: which of its leaves are wrong, by what their workers hold.
    pub(super) fn watch_step(&mut self, claims: &StepClaims) {
        let Some(mut watch) = self.watch.take() else {
            return;
        };
        for claim in &claims.claims {
            let worker = claim.claim.signer;
            let opened: Claim = read(&claim.claim);
            let at = (opened.step, opened.epoch);
            let truth = |key: LeafKey| match self.processes.get(&worker).map(|p| &p.body) {
                Some(Body::Worker(worker)) => worker.opened(at, key),
                _ => None,
            };
            let is_right = |leaf: &Leaf| {
                let computed = rerun(leaf, &truth(leaf.key())?);
                Some(leaf.outputs.iter().all(|port| computed.contains(port)))
            };
            let seen = |leaf: &Leaf| (leaf.digest(), is_right(leaf));
            let leaves = claim.leaves.iter().map(seen).collect();
            watch.step(at, SeenClaim { worker, leaves });
        }
        self.watch = Some(watch);
    }
}
