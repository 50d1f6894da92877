//! What a job waits for, in words: told when the wait begins, and when its reason changes.

use concord_proto::client::{JobEvent, JobState};
use concord_proto::{JobId, WorkerId};

use super::{EventContext, Time, TrainingJob};

/// Reasons that change more often are not all told.
const TELL_EVERY_US: u64 = 1_000_000;

/// A hold-up of a job that runs is looked for this often, and told when it is seen twice in a row.
const LOOK_EVERY_US: u64 = 1_000_000;

/// A hold-up that goes on is told again after this, where its words have changed.
const TELL_AGAIN_US: u64 = 30_000_000;

/// Loading that takes longer is a hold-up. So is a phase of a step that takes longer than this and
/// than `SLOW_STEPS` times the predicted time of the step.
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
    Dispute(u32),
    Save(u32),
    Audits,
}

/// A hold-up, and what the job waits for, in words.
struct Seen {
    holdup: Holdup,
    what: String,
}

impl Waits {
    /// Whether the watchers are to be told what is waited for.
    fn is_news(&mut self, now: Time, what: &str) -> bool {
        let is_due = self.at.is_none_or(|at| now.since(at) >= TELL_EVERY_US);
        let is_news = !what.is_empty() && what != self.words && is_due;
        if is_news {
            self.words = what.to_string();
            self.at = Some(now);
        }
        is_news
    }

    /// Whether it is time to look for a hold-up again. The job does not wait.
    fn is_to_look(&mut self, now: Time) -> bool {
        self.words.clear();
        let is_due = now.since(self.looked) >= LOOK_EVERY_US;
        if is_due {
            self.looked = now;
        }
        is_due
    }

    /// Takes in what was seen. Gives it back where the watchers are to be told.
    fn note(&mut self, now: Time, found: Option<Seen>) -> Option<Seen> {
        let kind = found.as_ref().map(|seen| seen.holdup);
        let again = self.seen == kind;
        self.seen = kind;
        let seen = found.filter(|_| again)?;
        let is_told =
            |(told, at): (Holdup, Time)| told == seen.holdup && now.since(at) < TELL_AGAIN_US;
        if self.told.is_some_and(is_told) {
            return None;
        }
        self.told = Some((seen.holdup, now));
        Some(seen)
    }

    /// Takes in the place in the queue. Says whether it is another one than before.
    fn note_place(&mut self, behind: Option<(JobId, usize)>) -> bool {
        let is_news = self.behind != behind;
        self.behind = behind;
        is_news
    }
}

impl TrainingJob {
    /// Says what the job waits for.
    pub(super) fn wait_for(&mut self, context: &mut EventContext, what: String) {
        self.state = JobState::Waiting(what);
        self.tell_waiting(context);
    }

    /// Tells the watchers why the job waits or does not get on, where they do not know it yet.
    pub(super) fn tell_waiting(&mut self, context: &mut EventContext) {
        let now = context.now;
        let told = match &self.state {
            JobState::Waiting(what) => self.waits.is_news(now, what).then(|| what.clone()),
            JobState::Running
            | JobState::Auditing
            | JobState::Completed { .. }
            | JobState::Failed(_)
            | JobState::Cancelled => {
                if !self.waits.is_to_look(now) {
                    return;
                }
                let found = self.holdup(context);
                self.waits.note(now, found).map(|seen| seen.what)
            }
        };
        if let Some(what) = told {
            self.journal.publish(context, JobEvent::Waiting(what));
        }
    }

    /// Tells the watchers which job runs first and how many are before this one, if any.
    pub(super) fn tell_place(
        &mut self,
        context: &mut EventContext,
        first: JobId,
        name: Option<&String>,
        before: usize,
    ) {
        if before == 0 {
            self.waits.note_place(None);
            return;
        }
        if !self.waits.note_place(Some((first, before))) {
            return self.tell_waiting(context);
        }
        let more = match before {
            1 => String::new(),
            _ => format!(", and {} more before this one", before - 1),
        };
        let first = match name {
            Some(name) => format!("job {} ({name})", first.0.short()),
            None => "another job".to_string(),
        };
        self.wait_for(context, format!("{first} runs first{more}"));
        self.save_progress(context);
    }

    fn holdup(&self, context: &EventContext) -> Option<Seen> {
        let slow = |since: Time, limit: u64| context.now.since(since) >= limit;
        let Some(active) = self.planning.active() else {
            return self.audits_open(context);
        };
        if !active.all_ready() {
            let what = format!("{} to load what was assigned", named(active.unready()));
            return slow(active.since(), SLOW_US).then_some(Seen {
                holdup: Holdup::Loading,
                what,
            });
        }
        let Some(attempt) = &self.attempt else {
            let flush = self.flush.as_ref().filter(|_| self.is_held_by_save());
            let saving = flush.map(|flush| Seen {
                holdup: Holdup::Save(flush.step()),
                what: format!("the checkpoint of step {} to be stored", flush.step()),
            });
            return saving.or_else(|| self.audits_open(context));
        };
        let limit = SLOW_US.max(self.step_micros(active).saturating_mul(SLOW_STEPS));
        if !slow(attempt.since(), limit) {
            return None;
        }
        let step = self.spec().updates_before(attempt.step()) + 1;
        let workers = active.workers().into_iter();
        let late = named(workers.filter(|id| attempt.awaits(id)));
        let (holdup, what) = if attempt.is_disputed() {
            let what = format!("others to re-run what is disputed in step {step}");
            (Holdup::Dispute(step), what)
        } else if attempt.is_first_phase() {
            let what = format!("{late} to finish the gradients of step {step}");
            (Holdup::Gradients(step), what)
        } else {
            let what = format!("{late} to update after step {step}");
            (Holdup::Update(step), what)
        };
        Some(Seen { holdup, what })
    }

    /// Audits that hold the job up: those of the oldest steps, or the last ones of all.
    fn audits_open(&self, context: &EventContext) -> Option<Seen> {
        let window = self.audit_window(context.config);
        let oldest = self.oldest_open_step()?;
        let is_held = self.committed.steps() >= oldest.saturating_add(window);
        if !is_held && self.state != JobState::Auditing {
            return None;
        }
        if self.audits.oldest_step().is_none() {
            let what = "auditors to open their secrets of the last steps".to_string();
            let holdup = Holdup::Audits;
            return Some(Seen { holdup, what });
        }
        let steps = match self.audits.open_steps().len() {
            1 => "1 step is".to_string(),
            count => format!("{count} steps are"),
        };
        let what = format!("checkers to answer: {steps} not audited yet");
        let holdup = Holdup::Audits;
        Some(Seen { holdup, what })
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

#[cfg(test)]
mod tests {
    use concord_proto::PublicKey;

    use super::*;

    #[test]
    fn workers_are_named_in_a_sentence() {
        for (count, expected) in [
            (0, "all workers"),
            (1, "worker 01010101"),
            (2, "workers 01010101, 02020202"),
        ] {
            let workers = (1..=count).map(|number| PublicKey([number; 32]));
            assert_eq!(named(workers), expected);
        }
    }
}
