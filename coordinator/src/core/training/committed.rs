//! What is final of a job: its steps, their records, the states that are known or stored.

use std::collections::{BTreeMap, BTreeSet};

use concord_proto::manifest::{StateEntry, StateManifest};
use concord_proto::{Course, Digest, F32Bits, JobId, JobSpec, StepRecord, WorkerId};
use concord_verify::training as rules;
use concord_verify::training::bundle::StepClaims;

/// Invariant: the state after the last final step is known, and that before the first is stored.
pub(super) struct Committed {
    /// Steps that are final.
    steps: u32,
    /// Records by step. Those from `steps` on were final once and must come out equal again.
    records: BTreeMap<u32, StepRecord>,
    /// The states after the last and the last but one final step.
    states: BTreeMap<u32, Vec<StateEntry>>,
    /// The states in the store, by steps done.
    checkpoints: BTreeMap<u32, StateManifest>,
    /// The first final step that each worker had a part in.
    first_part: BTreeMap<WorkerId, u32>,
    /// The losses of all final steps, and what they decide.
    losses: Vec<F32Bits>,
    course: Course,
}

impl Committed {
    /// As it was persisted. `records` are all of them; `claims` are those of the last two final
    /// steps: they give the states that are not in the store.
    pub(super) fn restore(
        spec: &JobSpec,
        steps: u32,
        records: Vec<StepRecord>,
        claims: &[StepClaims],
        checkpoints: Vec<StateManifest>,
        first_part: BTreeMap<WorkerId, u32>,
    ) -> Self {
        let by_step = |state: StateManifest| (state.step, state);
        let checkpoints: BTreeMap<u32, _> = checkpoints.into_iter().map(by_step).collect();
        let mut states: BTreeMap<u32, Vec<StateEntry>> = BTreeMap::new();
        for step in claims {
            let opened = step.claims.iter();
            let opened: Vec<_> = opened.filter_map(|claim| claim.claim.open().ok()).collect();
            let opened: Vec<_> = opened.iter().collect();
            let merged = rules::merged_state(spec, &opened);
            states.extend(merged.map(|entries| (step.step + 1, entries)));
        }
        let stored = checkpoints.get(&steps);
        states.extend(stored.map(|state| (steps, state.entries.clone())));
        states.retain(|&step, _| step == steps || step + 1 == steps);
        let is_final = |record: &&StepRecord| record.step < steps;
        let losses = records.iter().filter(is_final).map(|record| record.loss);
        let losses: Vec<F32Bits> = losses.collect();
        Self {
            course: Course::of(spec, losses.iter().copied()),
            losses,
            steps,
            records: records.into_iter().map(|r| (r.step, r)).collect(),
            states,
            checkpoints,
            first_part,
        }
    }

    /// How many steps are final.
    pub(super) fn steps(&self) -> u32 {
        self.steps
    }

    /// How many they are where no step follows.
    pub(super) fn end(&self, spec: &JobSpec) -> Option<u32> {
        self.course.is_over(spec).then_some(self.steps)
    }

    /// Digest of the last final record, or the job id before the first.
    pub(super) fn head(&self, job: JobId) -> Digest {
        self.last_record().map_or(job.0, StepRecord::digest)
    }

    pub(super) fn last_loss(&self) -> Option<F32Bits> {
        self.last_record().map(|record| record.loss)
    }

    /// What the losses of all final steps decide.
    pub(super) fn course(&self) -> &Course {
        &self.course
    }

    /// Steps up to the best evaluation, with it.
    pub(super) fn best_steps(&self) -> Option<u32> {
        self.course.best().map(|(step, _)| step + 1)
    }

    fn last_record(&self) -> Option<&StepRecord> {
        self.records.get(&self.steps.checked_sub(1)?)
    }

    /// Whether a step was final before with another record.
    pub(super) fn contradicts(&self, record: &StepRecord) -> bool {
        let before = self.records.get(&record.step);
        before.is_some_and(|before| before != record)
    }

    /// The state after `steps` steps, where it is one of the last two.
    pub(super) fn state_at(&self, steps: u32) -> Option<&Vec<StateEntry>> {
        self.states.get(&steps)
    }

    /// The present state, if it is in the store.
    pub(super) fn stored_state(&self) -> Option<&StateManifest> {
        self.checkpoints.get(&self.steps)
    }

    /// The state that is the result of a job that is over, if it is in the store.
    pub(super) fn result(&self, spec: &JobSpec) -> Option<&StateManifest> {
        self.checkpoints.get(&self.course.result_steps(spec))
    }

    pub(super) fn is_stored(&self) -> bool {
        self.checkpoints.contains_key(&self.steps)
    }

    /// The first final step that a worker had a part in.
    pub(super) fn first_part(&self, worker: &WorkerId) -> Option<u32> {
        self.first_part.get(worker).copied()
    }

    /// Makes a step final that these workers have done.
    pub(super) fn commit(
        &mut self,
        spec: &JobSpec,
        record: &StepRecord,
        after: Vec<StateEntry>,
        workers: &[WorkerId],
    ) {
        self.steps = record.step + 1;
        self.losses.push(record.loss);
        self.course.note(spec, record.loss);
        self.states.retain(|&step, _| step == record.step);
        self.states.insert(self.steps, after);
        self.records.insert(record.step, record.clone());
        for worker in workers {
            self.first_part.entry(*worker).or_insert(record.step);
        }
    }

    /// The newest state in the store that has at most `steps` steps.
    pub(super) fn newest_checkpoint(&self, steps: u32) -> Option<&StateManifest> {
        let newest = self.checkpoints.range(..=steps).next_back();
        newest.map(|(_, state)| state)
    }

    /// Notes that a state is in the store.
    pub(super) fn add_checkpoint(&mut self, state: StateManifest) {
        self.checkpoints.insert(state.step, state);
    }

    /// The steps of the states in the store.
    pub(super) fn stored(&self) -> impl Iterator<Item = u32> {
        self.checkpoints.keys().copied()
    }

    /// Drops stored states that are no longer needed, except for those that `stay`. Gives their
    /// steps. A conviction goes back to the checkpoint before the culprit's first part, or before
    /// `floor`, the oldest open audit: other old ones, except for the start and the best, are
    /// never needed again.
    pub(super) fn drop_old(
        &mut self,
        spec: &JobSpec,
        floor: u32,
        stay: impl Fn(u32) -> bool,
    ) -> Vec<u32> {
        let targets = self.first_part.values().copied().chain([floor]);
        let newest = targets.filter_map(|steps| self.newest_checkpoint(steps));
        let mut needed: BTreeSet<u32> = newest.map(|state| state.step).collect();
        // Also where the job goes back to one of these.
        let ends: Vec<u32> = needed.iter().copied().chain([self.steps]).collect();
        needed.extend(
            ends.into_iter()
                .filter_map(|end| self.best_state(spec, end)),
        );
        let old = |step: &u32| *step > 0 && *step < floor && !needed.contains(step) && !stay(*step);
        let dropped: Vec<u32> = self.checkpoints.keys().copied().filter(old).collect();
        if !dropped.is_empty() {
            self.checkpoints.retain(|step, _| !old(step));
            let oldest = self.checkpoints.keys().copied().find(|&step| step > 0);
            let from = oldest.unwrap_or(0);
            self.records.retain(|step, _| *step + 1 >= from);
        }
        dropped
    }

    /// The state that comes out if the job ends after `end` steps, where that is the best and not
    /// the last one.
    fn best_state(&self, spec: &JobSpec, end: u32) -> Option<u32> {
        spec.evaluation.filter(|evaluation| evaluation.keep_best)?;
        let losses = self.losses.iter().take(end as usize).copied();
        Course::of(spec, losses).best().map(|(step, _)| step + 1)
    }

    /// Drops the stored states of a job that is done, but for the first, the last, the best if that
    /// comes out, and those that `stay`. Gives their steps.
    pub(super) fn drop_all_old(&mut self, spec: &JobSpec, stay: impl Fn(u32) -> bool) -> Vec<u32> {
        let last = self.steps;
        let best = self.best_state(spec, last);
        let stays = |step: u32| best == Some(step) || stay(step);
        let old = |step: &u32| *step > 0 && *step < last && !stays(*step);
        let dropped: Vec<u32> = self.stored().filter(old).collect();
        self.checkpoints.retain(|step, _| !old(step));
        dropped
    }

    /// Drops the records of steps that were to come out equal when they are done again. Gives the
    /// first of these steps.
    pub(super) fn forget_records(&mut self) -> u32 {
        let from = self.steps;
        self.records.retain(|step, _| *step < from);
        from
    }

    /// Goes back to `to` steps; `entries` is the state then. Gives the steps of states in the
    /// store that are void.
    pub(super) fn rewind(&mut self, spec: &JobSpec, to: u32, entries: Vec<StateEntry>) -> Vec<u32> {
        self.steps = to;
        self.losses.truncate(to as usize);
        self.course = Course::of(spec, self.losses.iter().copied());
        self.first_part.retain(|_, first| *first < to);
        self.states.clear();
        self.states.insert(to, entries);
        let void: Vec<u32> = self.checkpoints.range(to + 1..).map(|(&s, _)| s).collect();
        self.checkpoints.retain(|&step, _| step <= to);
        void
    }

    /// Panics where the state contradicts itself.
    pub(super) fn assert_invariants(&self, spec: &JobSpec, job: JobId) {
        let state = self.states.get(&self.steps);
        let tensors = state.map(Vec::len);
        assert_eq!(tensors, Some(spec.trainable.len()), "no committed state");
        assert!(
            self.steps <= spec.chain_steps(),
            "more steps than the job has"
        );
        assert_eq!(
            self.losses.len(),
            self.steps as usize,
            "a loss for each step"
        );
        assert!(self.checkpoints.contains_key(&0), "the start is gone");
        let newest = self.checkpoints.keys().next_back();
        assert!(
            newest.is_none_or(|&step| step <= self.steps),
            "a checkpoint of a step that is not final"
        );
        for (step, record) in &self.records {
            let previous = step.checked_sub(1).and_then(|p| self.records.get(&p));
            let is_first = *step == 0 && record.previous == job.0;
            let is_linked = previous.is_none_or(|p| record.previous == p.digest());
            assert!(is_first || (*step > 0 && is_linked), "a broken chain");
        }
    }
}
