//! Which blobs jobs need. What none of them needs any more may be deleted.

use std::collections::{BTreeMap, BTreeSet};

use concord_proto::client::JobState;
use concord_proto::manifest::StateManifest;
use concord_proto::{Digest, Domain, JobId};

use crate::core::Change;

/// What a job names.
#[derive(Debug, Default)]
pub struct JobBlobs {
    /// Its spec, and the manifests of model, data and initial state. They are needed for as long as
    /// the job is known here, because its proof is made of them.
    pub manifests: Vec<Digest>,
    /// What these name: tensors of the model, data, initial state. They are needed while the job is
    /// not over. `None` where a manifest cannot be read.
    pub inputs: Option<Vec<Digest>>,
}

#[derive(Debug)]
struct Checkpoint {
    /// The address of its manifest.
    manifest: Digest,
    blobs: Vec<Digest>,
}

#[derive(Debug)]
struct HeldJob {
    inputs: Option<Vec<Digest>>,
    is_over: bool,
    checkpoints: BTreeMap<u32, Checkpoint>,
}

/// The blobs that all jobs need, counted.
///
/// ```
/// use concord_coordinator::server::{JobBlobs, References};
/// use concord_proto::client::JobState;
/// use concord_proto::{Digest, Domain, JobId};
///
/// let blob = |name: &str| Digest::of(Domain::Blob, name.as_bytes());
/// let job = JobId(blob("spec"));
/// let mut references = References::default();
/// references.add_job(job, JobBlobs {
///     manifests: vec![blob("model manifest")],
///     inputs: Some(vec![blob("tensor")]),
/// });
/// references.set_state(job, &JobState::Cancelled);
/// assert!(references.holds(&blob("model manifest")) && !references.holds(&blob("tensor")));
/// ```
#[derive(Debug, Default)]
pub struct References {
    jobs: BTreeMap<JobId, HeldJob>,
    counts: BTreeMap<Digest, u32>,
    /// Blobs of states that were dropped, until they may be deleted.
    dropped: BTreeSet<Digest>,
}

impl References {
    /// Whether there are no jobs.
    pub fn is_empty(&self) -> bool {
        self.jobs.is_empty()
    }

    /// The jobs whose needs are unknown: they are not over, and a manifest of theirs cannot be
    /// read. Any blob may be theirs.
    pub fn unknown(&self) -> Vec<JobId> {
        let jobs = self.jobs.iter();
        let unknown = jobs.filter(|(_, job)| !job.is_over && job.inputs.is_none());
        unknown.map(|(id, _)| *id).collect()
    }

    /// Whether a job has been added with inputs that are known.
    pub fn knows(&self, job: &JobId) -> bool {
        self.jobs.get(job).is_some_and(|job| job.inputs.is_some())
    }

    /// Whether a blob is needed.
    pub fn holds(&self, blob: &Digest) -> bool {
        self.counts.contains_key(blob)
    }

    /// Follows changes that have been persisted, of jobs that have been added. Gives blobs of old
    /// states that may be deleted now.
    ///
    /// That is when another checkpoint has just been persisted, or a job is done: no worker is then
    /// in the middle of storing a state that they may be a part of.
    pub fn follow(&mut self, changes: &[Change]) -> Vec<Digest> {
        let mut is_quiet = false;
        for change in changes {
            let old = match change {
                Change::Checkpoint { job, state } => {
                    is_quiet = true;
                    self.add_checkpoint(*job, state)
                }
                Change::DropCheckpoints { job, steps } => self.drop_checkpoints(*job, steps),
                Change::Progress { job, progress } => {
                    is_quiet |= matches!(progress.state, JobState::Completed { .. });
                    self.set_state(*job, &progress.state)
                }
                Change::Job { .. }
                | Change::Step { .. }
                | Change::Void { .. }
                | Change::Truncate { .. }
                | Change::Ledger { .. }
                | Change::Plan { .. }
                | Change::AuditOpened { .. }
                | Change::AuditContradicted { .. }
                | Change::AuditClosed { .. }
                | Change::Event { .. }
                | Change::Member(_)
                | Change::Convicted { .. } => Vec::new(),
            };
            self.dropped.extend(old);
        }
        if !is_quiet {
            return Vec::new();
        }
        let dropped = std::mem::take(&mut self.dropped).into_iter();
        dropped.filter(|blob| !self.holds(blob)).collect()
    }

    /// Adds a job that is not over, or the inputs of one that is there, where they were unknown.
    pub fn add_job(&mut self, job: JobId, blobs: JobBlobs) {
        if let Some(known) = self.jobs.get_mut(&job) {
            if known.inputs.is_some() {
                return;
            }
            known.inputs.clone_from(&blobs.inputs);
            if !known.is_over {
                self.hold(&blobs.inputs.unwrap_or_default());
            }
            return;
        }
        self.hold(&blobs.manifests);
        self.hold(blobs.inputs.as_deref().unwrap_or_default());
        let new = HeldJob {
            inputs: blobs.inputs,
            is_over: false,
            checkpoints: BTreeMap::new(),
        };
        self.jobs.insert(job, new);
    }

    /// Adds a state of a job. If it replaces one of the same step, gives the blobs that only that
    /// one had.
    pub fn add_checkpoint(&mut self, job: JobId, state: &StateManifest) -> Vec<Digest> {
        let manifest = Digest::of_value(Domain::Blob, state);
        let parts =
            |e: &concord_proto::manifest::StateEntry| [e.value, e.first_moment, e.second_moment];
        let mut blobs: Vec<Digest> = state.entries.iter().flat_map(parts).collect();
        blobs.push(manifest);
        // Held before others are released: what both have stays.
        self.hold(&blobs);
        let Some(held) = self.jobs.get_mut(&job) else {
            return Vec::new();
        };
        let before = held
            .checkpoints
            .insert(state.step, Checkpoint { manifest, blobs });
        before.map_or(Vec::new(), |before| self.release(&before.blobs))
    }

    /// Drops the states of these steps. Gives what nothing else needs.
    pub fn drop_checkpoints(&mut self, job: JobId, steps: &[u32]) -> Vec<Digest> {
        let Some(held) = self.jobs.get_mut(&job) else {
            return Vec::new();
        };
        let dropped = steps
            .iter()
            .filter_map(|step| held.checkpoints.remove(step));
        let blobs: Vec<Digest> = dropped.flat_map(|dropped| dropped.blobs).collect();
        self.release(&blobs)
    }

    /// The state of a job has changed. One that is over needs no inputs, and one that is done not
    /// its first state, either. Gives the states that nothing else needs. Inputs are released, but
    /// not given: another job may be about to name them.
    pub fn set_state(&mut self, job: JobId, state: &JobState) -> Vec<Digest> {
        let Some(held) = self.jobs.get_mut(&job) else {
            return Vec::new();
        };
        let is_over = matches!(
            state,
            JobState::Completed { .. } | JobState::Failed(_) | JobState::Cancelled
        );
        let mut old = Vec::new();
        if let JobState::Completed { state: last, .. } = state {
            held.checkpoints.retain(|step, checkpoint| {
                let stays = *step > 0 || checkpoint.manifest == *last;
                if !stays {
                    old.append(&mut checkpoint.blobs);
                }
                stays
            });
        }
        if is_over != held.is_over {
            held.is_over = is_over;
            let inputs = held.inputs.clone().unwrap_or_default();
            match is_over {
                true => drop(self.release(&inputs)),
                false => self.hold(&inputs),
            }
        }
        self.release(&old)
    }

    fn hold(&mut self, blobs: &[Digest]) {
        for blob in blobs {
            *self.counts.entry(*blob).or_default() += 1;
        }
    }

    /// Gives those that nothing needs any more.
    fn release(&mut self, blobs: &[Digest]) -> Vec<Digest> {
        let mut free = Vec::new();
        for blob in blobs {
            if let Some(count) = self.counts.get_mut(blob) {
                *count -= 1;
                if *count == 0 {
                    self.counts.remove(blob);
                    free.push(*blob);
                }
            }
        }
        free
    }
}

#[cfg(test)]
mod tests {
    use concord_proto::manifest::StateEntry;

    use super::*;

    fn blob(number: u8) -> Digest {
        Digest([number; 32])
    }

    fn id(number: u8) -> JobId {
        JobId(blob(number))
    }

    fn state(step: u32, blobs: [u8; 3]) -> StateManifest {
        let [value, first_moment, second_moment] = blobs.map(blob);
        let entry = StateEntry {
            value,
            first_moment,
            second_moment,
        };
        StateManifest {
            step,
            entries: vec![entry],
        }
    }

    fn two_jobs() -> References {
        let mut references = References::default();
        for (job, manifest) in [(1, 101), (2, 102)] {
            let blobs = JobBlobs {
                manifests: vec![blob(manifest)],
                inputs: Some(vec![blob(110), blob(0), blob(0)]),
            };
            references.add_job(id(job), blobs);
            references.add_checkpoint(id(job), &state(0, [0, 0, 0]));
        }
        references
    }

    #[test]
    fn what_two_states_share_stays_until_both_are_gone() {
        let mut references = two_jobs();
        references.add_checkpoint(id(1), &state(1, [1, 2, 3]));
        references.add_checkpoint(id(1), &state(2, [4, 2, 5]));
        references.add_checkpoint(id(2), &state(1, [1, 7, 8]));
        let manifest = |state| Digest::of_value(Domain::Blob, &state);
        let mut free = references.drop_checkpoints(id(1), &[1, 9]);
        free.sort();
        let mut expected = vec![blob(3), manifest(state(1, [1, 2, 3]))];
        expected.sort();
        assert_eq!(free, expected);
        assert!(references.holds(&blob(1)) && references.holds(&blob(2)));
        assert_eq!(references.drop_checkpoints(id(1), &[1]), []);
        let free = references.drop_checkpoints(id(1), &[2]);
        assert!(free.contains(&blob(2)) && !free.contains(&blob(0)));
        assert!(references.holds(&blob(0)));
    }

    #[test]
    fn a_job_that_is_done_keeps_its_last_state_and_its_proof() {
        let mut references = two_jobs();
        let last = state(2, [4, 2, 5]);
        references.add_checkpoint(id(1), &state(1, [1, 2, 3]));
        references.add_checkpoint(id(1), &last);
        let done = JobState::Completed {
            record: blob(99),
            state: Digest::of_value(Domain::Blob, &last),
        };
        let free = references.drop_checkpoints(id(1), &[1]);
        assert!(free.contains(&blob(1)) && free.contains(&blob(3)));
        references.set_state(id(1), &done);
        assert!([4, 2, 5, 101].iter().all(|&b| references.holds(&blob(b))));
        assert!(references.holds(&blob(110)), "the other job needs it");
        assert_eq!(references.set_state(id(2), &JobState::Cancelled), []);
        assert!(!references.holds(&blob(110)));
        assert!(references.holds(&blob(102)));
    }

    #[test]
    fn states_go_when_the_next_one_is_persisted_and_not_before() {
        let mut references = two_jobs();
        let add = |step, blobs| Change::Checkpoint {
            job: id(1),
            state: state(step, blobs),
        };
        let drop = |steps: &[u32]| Change::DropCheckpoints {
            job: id(1),
            steps: steps.to_vec(),
        };
        assert_eq!(references.follow(&[add(1, [1, 2, 3])]), []);
        // Going back: a worker may be storing the same state again.
        assert_eq!(references.follow(&[drop(&[1])]), []);
        assert!(!references.holds(&blob(1)));
        let free = references.follow(&[add(1, [1, 2, 4])]);
        assert!(free.contains(&blob(3)), "{free:?}");
        assert!(!free.contains(&blob(1)), "it is a part of the new one");
        let free = references.follow(&[add(2, [5, 2, 4]), drop(&[1])]);
        assert!(free.contains(&blob(1)) && !free.contains(&blob(2)));
    }

    #[test]
    fn a_job_that_was_given_up_goes_on_from_its_state() {
        let mut references = two_jobs();
        references.add_checkpoint(id(1), &state(1, [1, 2, 3]));
        let failed = JobState::Failed("room".to_string());
        for over in [failed, JobState::Cancelled] {
            assert_eq!(references.set_state(id(1), &over), []);
            assert!([1, 2, 3].iter().all(|&b| references.holds(&blob(b))));
            assert_eq!(references.set_state(id(1), &JobState::Running), []);
            references.set_state(id(2), &JobState::Cancelled);
            assert!(references.holds(&blob(110)), "its inputs are needed again");
        }
    }

    #[test]
    fn inputs_that_are_learnt_late_are_held_while_the_job_is_not_over() {
        let mut references = two_jobs();
        let unread = JobBlobs {
            manifests: vec![blob(103)],
            inputs: None,
        };
        references.add_job(id(3), unread);
        assert_eq!(references.unknown(), [id(3)]);
        assert!(references.holds(&blob(103)) && !references.knows(&id(3)));
        references.set_state(id(3), &JobState::Cancelled);
        assert_eq!(references.unknown(), [], "it is over and needs none");
        references.set_state(id(3), &JobState::Running);
        assert_eq!(references.unknown(), [id(3)]);
        let read = || JobBlobs {
            manifests: vec![blob(103)],
            inputs: Some(vec![blob(111)]),
        };
        references.add_job(id(3), read());
        references.add_job(id(3), read());
        assert!(references.unknown().is_empty() && references.holds(&blob(111)));
        references.set_state(id(3), &JobState::Cancelled);
        assert!(!references.holds(&blob(111)) && references.holds(&blob(103)));
    }

    #[test]
    fn the_same_step_twice_keeps_the_second_state() {
        let mut references = two_jobs();
        references.add_checkpoint(id(1), &state(1, [1, 2, 3]));
        let free = references.add_checkpoint(id(1), &state(1, [1, 2, 4]));
        assert!(free.contains(&blob(3)) && !free.contains(&blob(1)));
        assert_eq!(references.add_checkpoint(id(1), &state(1, [1, 2, 4])), []);
        assert!([1, 2, 4].iter().all(|&b| references.holds(&blob(b))));
    }
}
