//! The jobs, and which of them the pool works for.

use std::collections::BTreeMap;

use concord_proto::JobId;
use concord_proto::client::JobSummary;

use super::{Asker, EventContext, NewJob, PersistedJob, Time, TrainingJob};

#[derive(Default)]
pub(in crate::core) struct JobQueue {
    jobs: BTreeMap<JobId, TrainingJob>,
    /// The job that the pool works for: until it is over, none goes before it.
    current: Option<JobId>,
}

impl JobQueue {
    /// The jobs as they were persisted. Until `back_by` the workers of their last plans are waited
    /// for.
    pub(in crate::core) fn restore(jobs: Vec<PersistedJob>, back_by: Time) -> Self {
        let jobs = jobs.into_iter().map(|persisted| {
            let job = TrainingJob::from_persisted(persisted, back_by);
            (job.id(), job)
        });
        Self {
            jobs: jobs.collect(),
            current: None,
        }
    }

    pub(in crate::core) fn get(&self, id: &JobId) -> Option<&TrainingJob> {
        self.jobs.get(id)
    }

    pub(in crate::core) fn get_mut(&mut self, id: &JobId) -> Option<&mut TrainingJob> {
        self.jobs.get_mut(id)
    }

    /// The job that the pool works for: the last one, if it is not over, else the first in the
    /// queue that is not. So a job that is submitted again does not displace another one.
    pub(in crate::core) fn running(&self) -> Option<JobId> {
        let current = self.current.and_then(|id| self.jobs.get(&id));
        if let Some(current) = current.filter(|job| !job.is_over()) {
            return Some(current.id());
        }
        let live = self.jobs.values().filter(|job| !job.is_over());
        live.min_by_key(|job| job.order.number).map(TrainingJob::id)
    }

    pub(in crate::core) fn running_mut(&mut self) -> Option<&mut TrainingJob> {
        let running = self.running()?;
        self.jobs.get_mut(&running)
    }

    /// From now on the pool works for the job that is running.
    pub(in crate::core) fn settle(&mut self) -> Option<JobId> {
        self.current = self.running();
        self.current
    }

    /// Takes a job on, behind all others. One that was given up goes on; one that is under way or
    /// completed is joined.
    pub(in crate::core) fn take_on(
        &mut self,
        context: &mut EventContext,
        id: JobId,
        by: Asker,
        new: NewJob,
    ) {
        let number = self.jobs.values().map(|job| job.order.number + 1).max();
        let number = number.unwrap_or(0);
        if let Some(job) = self.jobs.get_mut(&id) {
            job.revive(context, number, by, new);
            job.save_progress(context);
        } else {
            let mut job = TrainingJob::new(context, number, new);
            job.save_progress(context);
            self.jobs.insert(id, job);
        }
    }

    /// The jobs that a client sees, in the order of the queue.
    pub(in crate::core) fn summaries(&self, by: &Asker) -> Vec<JobSummary> {
        let seen = self.jobs.values().filter(|job| by.sees(job.submitters()));
        let mut jobs: Vec<&TrainingJob> = seen.collect();
        jobs.sort_by_key(|job| job.order.number);
        jobs.into_iter().map(TrainingJob::summary).collect()
    }

    /// Has the jobs that wait in the queue say which one runs first.
    pub(in crate::core) fn tell_waiting(&mut self, context: &mut EventContext) {
        let Some(first) = self.running().and_then(|id| self.jobs.get(&id)) else {
            return;
        };
        let (id, name) = (first.id(), first.options().name.clone());
        let submitters = first.submitters().to_vec();
        let live = self.jobs.values_mut();
        let mut live: Vec<&mut TrainingJob> = live.filter(|job| !job.is_over()).collect();
        live.sort_by_key(|job| (job.id() != id, job.order.number));
        for (before, job) in live.into_iter().enumerate() {
            // Which job it is, is for those to know who see it.
            let is_shared = job.submitters().iter().any(|key| submitters.contains(key));
            job.tell_place(context, id, is_shared.then_some(&name), before);
        }
    }

    pub(in crate::core) fn assert_invariants(&self) {
        self.jobs.values().for_each(TrainingJob::assert_invariants);
        let working = self
            .jobs
            .values()
            .filter(|job| job.planning.active().is_some());
        assert!(working.count() <= 1, "two jobs have a plan");
    }
}
