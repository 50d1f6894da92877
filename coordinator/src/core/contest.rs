//! A step that cannot be final before arithmetic has decided between two statements.

use std::collections::BTreeSet;

use concord_proto::{LeafPhase, WorkerId};
use concord_verify::training::Disagreement;

use super::audit::Purpose;
use super::desk::Desk;
use super::job::Job;

/// Audits that a step waits for.
pub(super) struct Contest {
    /// Numbers of the audits that are not through.
    pub(super) open: BTreeSet<u64>,
    /// Two workers of which one must be wrong; none where the step came out differently before.
    pub(super) between: Option<[WorkerId; 2]>,
    /// In what the statements differ.
    pub(super) what: String,
}

impl Job {
    /// Two workers claim different states from the same inputs: both updates are re-run.
    pub(super) fn contest_claims(&mut self, desk: &mut Desk, disagreement: Disagreement) {
        let between = [disagreement.first, disagreement.second];
        if !disagreement.in_state {
            return self.set_one_aside(desk, between, &disagreement.what);
        }
        let is_update =
            |worker: &WorkerId, phase| between.contains(worker) && phase == LeafPhase::Update;
        self.open_contest(desk, Some(between), disagreement.what, is_update);
    }

    /// The step was final before with another record: all of it is re-run.
    pub(super) fn contest_record(&mut self, desk: &mut Desk) {
        let what = "the record that the step had when it was done before".to_string();
        self.open_contest(desk, None, what, |_, _| true);
    }

    fn open_contest(
        &mut self,
        desk: &mut Desk,
        between: Option<[WorkerId; 2]>,
        what: String,
        wanted: impl Fn(&WorkerId, LeafPhase) -> bool,
    ) {
        let Some(attempt) = self.attempt.as_mut() else {
            return;
        };
        if attempt.contest.is_some() {
            return;
        }
        let (step, epoch) = (attempt.step, self.epoch);
        let mut leaves = Vec::new();
        for (worker, given) in &attempt.claims {
            let chosen = given
                .leaves
                .iter()
                .filter(|leaf| wanted(worker, leaf.phase));
            leaves.extend(chosen.map(|leaf| (*worker, leaf.clone())));
        }
        let open = leaves
            .into_iter()
            .map(|(worker, leaf)| {
                self.audits
                    .open(desk.now, (step, epoch), worker, leaf, Purpose::Contest)
            })
            .collect();
        attempt.contest = Some(Contest {
            open,
            between,
            what,
        });
    }

    /// A leaf of the contest was re-run and is right.
    pub(super) fn contest_agrees(&mut self, desk: &mut Desk, number: u64) {
        let Some(contest) = self.attempt.as_mut().and_then(|a| a.contest.as_mut()) else {
            return;
        };
        contest.open.remove(&number);
        if !contest.open.is_empty() {
            return;
        }
        match contest.between {
            // Both are said to be right, which cannot be: whoever re-ran them is of no help.
            Some(between) => {
                let what = contest.what.clone();
                self.set_one_aside(desk, between, &what);
            }
            None => self.commit_contested(desk),
        }
    }

    /// A leaf of the contest cannot be judged.
    pub(super) fn contest_unjudged(&mut self, desk: &mut Desk) {
        let Some(contest) = self.attempt.as_mut().and_then(|a| a.contest.take()) else {
            return;
        };
        match contest.between {
            Some(between) => self.set_one_aside(desk, between, &contest.what),
            None => self.fail(
                desk,
                format!(
                    "step {} differs in {}, and nobody is there to re-run it: add a checker",
                    self.committed, contest.what
                ),
            ),
        }
    }

    /// Gives up the audits of a contest together with the step that it is about.
    pub(super) fn drop_contest(&mut self, desk: &mut Desk) {
        let contest = self.attempt.as_mut().and_then(|a| a.contest.take());
        for number in contest.into_iter().flat_map(|contest| contest.open) {
            self.close_audit(desk, number);
        }
    }

    /// One of two workers is wrong and nothing decides which: the job goes on without the later in
    /// the plan's order. Nobody is convicted. If it was the wrong one to go, the next disagreement
    /// is with another.
    pub(super) fn set_one_aside(&mut self, desk: &mut Desk, between: [WorkerId; 2], what: &str) {
        let [first, second] = between;
        let reason = format!(
            "workers {} and {} differ in {what}, and nothing decides who is right",
            first.short(),
            second.short()
        );
        self.set_aside(desk, second, &reason);
    }

    /// Goes on without a worker, without accusing it.
    pub(super) fn set_aside(&mut self, desk: &mut Desk, worker: WorkerId, reason: &str) {
        self.set_aside.insert(worker);
        self.lose(desk, worker, reason);
        let others = desk.pool.connected().any(|member| {
            member.role == concord_proto::session::Role::Worker
                && !self.set_aside.contains(&member.id)
        });
        if !others {
            self.fail(desk, format!("{reason}, and no other worker is there"));
        }
    }
}
