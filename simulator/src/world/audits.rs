//! Leaves are re-run, by checkers and by the coordinator's referee.

use concord_proto::AttemptId;
use concord_proto::Plan;
use concord_proto::ledger::{LedgerEntry, LedgerEvent, entry_digest};
use concord_verify::training::{ConvictionRules, check_conviction};

use super::*;
use crate::reading::read;

impl World {
    /// What a worker opens of the step of a leaf.
    fn opened(&self, order: &AuditOrder) -> Option<Openings> {
        let at = (order.step, order.epoch);
        match self.processes.get(&order.worker).map(|p| &p.body) {
            Some(Body::Worker(worker)) => worker.opened(at, order.leaf.key()),
            _ => None,
        }
    }

    /// Demands that a conviction shows its offence to others, and that its culprit has lied.
    pub(super) fn check_entry(&self, entry: &Signed) {
        let entry: LedgerEntry = read(entry);
        let LedgerEvent::Convicted {
            culprit,
            offence,
            conviction,
            ..
        } = entry.event
        else {
            return;
        };
        let spec = &self.new.submission.spec;
        let plans: Vec<Plan> = self.memory.plans.values().cloned().collect();
        let rules = ConvictionRules {
            spec,
            job: spec.id(),
            data: &self.new.data,
            plans: &plans,
            attempts: &self.attempts(),
        };
        if let Err(why) = check_conviction(&rules, culprit, offence, &conviction) {
            panic!("entry {} shows nothing to others: {why}", entry.number);
        }
        let is_mutant = self.mutants.contains_key(&culprit);
        let is_honest = !is_mutant
            && match self.processes.get(&culprit).map(|p| &p.body) {
                Some(Body::Worker(worker)) => worker.lie.is_none(),
                Some(Body::Checker(how, _)) => *how == Checker::Honest,
                Some(Body::Auditor(_)) => true,
                // It is gone, and nobody knows what it was.
                None => false,
            };
        assert!(!is_honest, "an honest key is convicted: {conviction:?}");
    }

    /// The attempts that the ledger has.
    fn attempts(&self) -> Vec<AttemptId> {
        let started = |signed: &Signed| {
            let entry: LedgerEntry = read(signed);
            match entry.event {
                LedgerEvent::Started { attempt, .. } => Some(AttemptId {
                    number: attempt,
                    entry: entry_digest(signed),
                }),
                _ => None,
            }
        };
        self.memory.ledger.iter().filter_map(started).collect()
    }

    /// The referee begins a re-run.
    pub(super) fn begin_rerun(&mut self, order: Box<AuditOrder>, traced: WorkerId) {
        assert!(
            self.config.referee,
            "a coordinator without a referee asks it"
        );
        self.refereed.push((*order).clone());
        let done = self.now + MS + self.referee_takes;
        self.at(done, Item::Refereed(order, traced));
        if std::mem::take(&mut self.dies_at_first_rerun) {
            self.at(self.now + MS / 2, Item::Crash);
        }
    }

    /// The coordinator's own re-run.
    pub(super) fn referee(&mut self, order: &AuditOrder, traced: &WorkerId) {
        let openings = self.opened(order).filter(|_| !self.withholds_from_referee);
        let (finding, inputs, trace) = match openings {
            Some(openings) => {
                let computed = rerun(&order.leaf, &openings);
                let inputs = claims::inputs(&order.leaf, &openings);
                let trace = trace(traced, &computed);
                (Finding::Differs { computed }, inputs, trace)
            }
            None => {
                let reason = "the inputs are gone".to_string();
                let finding = Finding::Inconclusive { reason };
                (finding, Vec::new(), Digest::default())
            }
        };
        self.apply(CoreEvent::Refereed {
            job: order.job,
            order: order.order,
            finding,
            inputs,
            trace,
            is_able: !self.is_referee_small,
        });
    }

    pub(super) fn audit(&mut self, auditor: WorkerId, order: AuditOrder) {
        let openings = self.opened(&order);
        let truth = openings.map(|openings| rerun(&order.leaf, &openings));
        let (how, signer) = match &self.processes[&auditor].body {
            Body::Worker(worker) => (Checker::Honest, worker.key.clone()),
            Body::Checker(_, auditor) | Body::Auditor(auditor)
                if auditor.manner == Manner::Mute =>
            {
                return;
            }
            Body::Checker(how, auditor) => (*how, auditor.key.clone()),
            Body::Auditor(auditor) => (Checker::Honest, auditor.key.clone()),
        };
        let garbage = |port: &Port| Port {
            digest: fake::mix("accused", &[port.digest]),
            ..*port
        };
        let trace = match (how, &truth) {
            (Checker::Honest, Some(truth)) => trace(&signer.public(), truth),
            _ => Digest::default(),
        };
        let finding = match (how, truth) {
            (Checker::Lazy, _) => Finding::Agrees,
            (Checker::Accuser, _) => Finding::Differs {
                computed: order.leaf.outputs.iter().map(garbage).collect(),
            },
            (Checker::Honest, None) => Finding::Inconclusive {
                reason: "gone".to_string(),
            },
            (Checker::Honest, Some(truth)) => {
                let same = order.leaf.outputs.iter().all(|port| truth.contains(port));
                if same {
                    Finding::Agrees
                } else {
                    Finding::Differs { computed: truth }
                }
            }
        };
        let verdict = Verdict {
            job: order.job,
            attempt: order.attempt,
            step: order.step,
            epoch: order.epoch,
            worker: order.worker,
            index: order.index,
            leaf: order.leaf.digest(),
            finding,
            trace,
        };
        let verdict = ToCoordinator::Verdict {
            order: order.order,
            verdict: Signed::new(&signer, &verdict),
        };
        self.soon(Item::Act(auditor, Act::Say(verdict)));
    }
}
