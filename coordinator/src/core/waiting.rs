//! What a job waits for, in words: told when the wait begins, and when its reason changes.

use std::collections::BTreeSet;

use concord_proto::client::{JobEvent, JobState};
use concord_proto::{JobId, WorkerId};

use super::Core;
use super::desk::Desk;
use super::event::Time;
use super::job::Job;
use super::outbox::Outbox;

/// Reasons that change more often are not all told.
const TELL_EVERY_US: u64 = 1_000_000;

/// A hold-up of a job that runs is looked for this often, and told when it is seen twice in a row.
const LOOK_EVERY_US: u64 = 1_000_000;

/// A hold-up that goes on is told again after this, where its words have changed.
const TELL_AGAIN_US: u64 = 30_000_000;

/// Loading or a phase of a step that takes longer is a hold-up; of a step so many times the
/// predicted time, where that is longer.
const SLOW_US: u64 = 10_000_000;
const SLOW_STEPS: u64 = 8;

/// What the watchers of a job were told last.
#[derive(Debug, Default)]
pub(super) struct Waits {
    words: String,
    at: Option<Time>,
    looked: Time,
    /// The hold-up seen last, and whether it has been told.
    seen: Option<Holdup>,
    told: Option<(Holdup, Time)>,
    /// Which job runs first, and how many are before this one.
    behind: Option<(JobId, usize)>,
}

/// Why a job that runs does not get on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Holdup {
    Loading,
    Gradients(u32),
    Update(u32),
    Contest(u32),
    /// Whether a checker is there.
    Audits(bool),
}

impl Job {
    /// Says what the job waits for.
    pub(super) fn wait_for(&mut self, desk: &mut Desk, what: String) {
        self.state = JobState::Waiting(what);
        self.tell_waiting(desk);
    }

    /// Tells the watchers why the job waits, where they do not know it yet.
    pub(super) fn tell_waiting(&mut self, desk: &mut Desk) {
        let JobState::Waiting(what) = &self.state else {
            self.waits.words.clear();
            return self.tell_holdup(desk);
        };
        let is_new = !what.is_empty() && *what != self.waits.words;
        let is_due = self
            .waits
            .at
            .is_none_or(|at| desk.now.since(at) >= TELL_EVERY_US);
        if is_new && is_due {
            let what = what.clone();
            self.waits.words.clone_from(&what);
            self.waits.at = Some(desk.now);
            self.publish(desk, JobEvent::Waiting(what));
        }
    }

    fn tell_holdup(&mut self, desk: &mut Desk) {
        if desk.now.since(self.waits.looked) < LOOK_EVERY_US {
            return;
        }
        self.waits.looked = desk.now;
        let found = self.holdup(desk);
        let kind = found.as_ref().map(|(kind, _)| *kind);
        let again = self.waits.seen == kind;
        self.waits.seen = kind;
        let Some((kind, what)) = found.filter(|_| again) else {
            return;
        };
        let is_told = self
            .waits
            .told
            .is_some_and(|(told, at)| told == kind && desk.now.since(at) < TELL_AGAIN_US);
        if !is_told {
            self.waits.told = Some((kind, desk.now));
            self.publish(desk, JobEvent::Waiting(what));
        }
    }

    fn holdup(&self, desk: &Desk) -> Option<(Holdup, String)> {
        let slow = |since: Time, limit: u64| desk.now.since(since) >= limit;
        let Some(active) = &self.active else {
            return self.audits_open(desk);
        };
        if !active.all_ready() {
            let lacks = |id: &WorkerId| !active.ready.contains(id);
            let late = active.workers().into_iter().filter(lacks);
            let what = format!("{} to load what was assigned", named(late));
            return slow(active.since, SLOW_US).then_some((Holdup::Loading, what));
        }
        let Some(attempt) = &self.attempt else {
            return self.audits_open(desk);
        };
        let limit = SLOW_US.max(active.step_micros.saturating_mul(SLOW_STEPS));
        if !slow(attempt.since, limit) {
            return None;
        }
        let step = attempt.step + 1;
        Some(if attempt.contest.is_some() {
            let what = format!("others to re-run what is disputed in step {step}");
            (Holdup::Contest(step), what)
        } else {
            let late = active.workers().into_iter();
            let late = named(late.filter(|id| attempt.awaits(id)));
            match attempt.scalars {
                None => {
                    let what = format!("{late} to finish the gradients of step {step}");
                    (Holdup::Gradients(step), what)
                }
                Some(_) => {
                    let what = format!("{late} to update after step {step}");
                    (Holdup::Update(step), what)
                }
            }
        })
    }

    /// Audits that hold the job up: those of the oldest steps, or the last ones of all.
    fn audits_open(&self, desk: &Desk) -> Option<(Holdup, String)> {
        let window = desk.config.audit_window;
        let oldest = self.audits.oldest_step()?;
        let is_held = self.committed >= oldest.saturating_add(window);
        if !is_held && self.state != JobState::Auditing {
            return None;
        }
        let steps: BTreeSet<u32> = self.audits.open.values().map(|audit| audit.step).collect();
        let steps = match steps.len() {
            1 => "1 step is".to_string(),
            count => format!("{count} steps are"),
        };
        let seconds = desk.config.checker_grace_us / 1_000_000;
        let has_checker = desk.pool.checkers().next().is_some();
        let what = if has_checker {
            format!("checkers to answer: {steps} not audited yet")
        } else {
            format!(
                "a checker, and none is left: {steps} not audited yet. Start `concord checker`; \
                 after {seconds} s without one they are counted as not judged"
            )
        };
        Some((Holdup::Audits(has_checker), what))
    }
}

impl Core {
    /// Jobs that are not the first say which one is.
    pub(super) fn tell_queue(&mut self, now: Time, out: &mut Outbox) {
        let Some(first) = self.running().and_then(|id| self.jobs.get(&id)) else {
            return;
        };
        let (id, name) = (first.id, first.submission.options.name.clone());
        let live = self.jobs.values_mut();
        let mut live: Vec<&mut Job> = live.filter(|job| !job.is_over()).collect();
        live.sort_by_key(|job| (job.id != id, job.number));
        let mut desk = Desk {
            now,
            config: &self.config,
            key: &self.key,
            secret: &self.secret,
            pool: &mut self.pool,
            out,
        };
        for (before, job) in live.into_iter().enumerate() {
            if before == 0 {
                job.waits.behind = None;
                continue;
            }
            if job.waits.behind != Some((id, before)) {
                job.waits.behind = Some((id, before));
                let more = match before {
                    1 => String::new(),
                    _ => format!(", and {} more before this one", before - 1),
                };
                let first = id.0.short();
                job.wait_for(&mut desk, format!("job {first} ({name}) runs first{more}"));
                job.save_progress(&mut desk);
            } else {
                job.tell_waiting(&mut desk);
            }
        }
    }
}

/// Workers by their short names.
fn named(workers: impl Iterator<Item = WorkerId>) -> String {
    let names: Vec<String> = workers.map(|id| id.short()).collect();
    match names.len() {
        0 => "all workers".to_string(),
        1 => format!("worker {}", names[0]),
        _ => format!("workers {}", names.join(", ")),
    }
}
