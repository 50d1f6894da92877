//! Handles pipelines and generations that come and go.

use concord_proto::serving::{Control, Finish, Generation, PAGE_TOKENS, Update};

use crate::event::{Refusal, SchedulerEffect};
use crate::pace::Pace;
use crate::pages::PagePool;
use crate::scheduler::Scheduler;
use crate::sequence::{Sequence, SequencePhase, pages_for};

impl Scheduler {
    /// Handles a pipeline that is up: all generations wait, and all pages are empty.
    pub(crate) fn up(&mut self, stages: u32, pages: u32, effects: &mut Vec<SchedulerEffect>) {
        self.down(effects);
        self.stages = Some(stages.max(1));
        self.pages = PagePool::new(pages);
        self.pace = Pace::default();
        self.next_pass = 0;
        self.recent.clear();
        let positions = self.settings.positions;
        let too_large = |s: &Sequence| pages_for(&s.generation, positions) > pages;
        let ids: Vec<u64> = self
            .sequences
            .iter()
            .filter(|(_, sequence)| too_large(sequence))
            .map(|(id, _)| *id)
            .collect();
        for id in ids {
            let reason = format!("the pool has room for {pages} pages now, which are too few");
            self.fail(id, reason, true, effects);
        }
    }

    /// Handles a pipeline that is down: generations that had begun wait again, first in line.
    pub(crate) fn down(&mut self, effects: &mut Vec<SchedulerEffect>) {
        self.stages = None;
        self.flights.clear();
        self.pages = PagePool::default();
        for (age, id) in std::mem::take(&mut self.active) {
            let Some(sequence) = self.sequences.get_mut(&id) else {
                continue;
            };
            sequence.reset();
            sequence.phase = SequencePhase::Waiting;
            sequence.paused = true;
            self.queue.push_begun(age, id);
            effects.push(SchedulerEffect::Update {
                sequence: id,
                update: Update::Paused,
            });
        }
        for id in std::mem::take(&mut self.closing) {
            if let Some(mut sequence) = self.sequences.remove(&id) {
                sequence.reset();
                self.queue.leave(sequence.generation.owner);
                effects.push(SchedulerEffect::Forget { sequence: id });
            }
        }
    }

    /// Takes in a generation, or fails it.
    pub(crate) fn submit(
        &mut self,
        id: u64,
        generation: Generation,
        answer: &[u32],
        effects: &mut Vec<SchedulerEffect>,
    ) {
        if self.sequences.contains_key(&id) {
            return;
        }
        let refusal = self.refusal(&generation);
        // A generation that began in another pipeline is not refused for a full queue.
        let refusal = match refusal {
            Some(Refusal::Full { .. }) if !answer.is_empty() => None,
            other => other,
        };
        let owner = generation.owner;
        let sequence = Sequence::new(generation, answer);
        if let Some(refusal) = refusal {
            let update = Update::Failed {
                reason: refusal.to_string(),
                retry: !matches!(refusal, Refusal::NotServed(_) | Refusal::TooLong { .. }),
                usage: sequence.usage(),
            };
            effects.push(SchedulerEffect::Update {
                sequence: id,
                update,
            });
            return;
        }
        let end = sequence.end(self.settings.positions);
        let is_scored = sequence.scored.is_some();
        self.sequences.insert(id, sequence);
        if answer.is_empty() {
            self.queue.push(owner, id);
        } else {
            let age = self.age(id);
            self.queue.enter(owner);
            self.queue.push_begun(age, id);
        }
        if let Some(finish) = end {
            // A prompt of one token has nothing to score.
            if is_scored {
                effects.push(SchedulerEffect::Update {
                    sequence: id,
                    update: Update::Prompt(Vec::new()),
                });
            }
            self.finish(id, finish, effects);
        }
    }

    /// The age of a sequence, which it gets at its first admission.
    pub(crate) fn age(&mut self, id: u64) -> u64 {
        let next = &mut self.next_age;
        let Some(sequence) = self.sequences.get_mut(&id) else {
            return *next;
        };
        *sequence.age.get_or_insert_with(|| {
            *next += 1;
            *next
        })
    }

    /// Handles a control of the client.
    pub(crate) fn control(
        &mut self,
        id: u64,
        control: Control,
        effects: &mut Vec<SchedulerEffect>,
    ) {
        let width = self.settings.vocab.div_ceil(8) as usize;
        let Some(sequence) = self.sequences.get_mut(&id) else {
            return;
        };
        if !matches!(
            sequence.phase,
            SequencePhase::Waiting | SequencePhase::Active
        ) {
            return;
        }
        match control {
            Control::Allow { answer, tokens } => {
                if answer as usize != sequence.answer().len() {
                    return;
                }
                if tokens.len() != width || tokens.iter().all(|byte| *byte == 0) {
                    let reason = "the grammar allows no token of the vocabulary".to_string();
                    return self.fail(id, reason, false, effects);
                }
                sequence.allowed = Some(tokens);
            }
            Control::Stop { answer, finish } => {
                let kept = sequence.prompt() as usize + answer as usize;
                sequence.tokens.truncate(kept);
                self.finish(id, finish, effects);
            }
            Control::Close { .. } => {}
        }
    }

    /// Handles a generation that its client has given up.
    pub(crate) fn cancel(&mut self, id: u64, effects: &mut Vec<SchedulerEffect>) {
        let phase = self.sequences.get(&id).map(|sequence| sequence.phase);
        if matches!(phase, Some(SequencePhase::Waiting | SequencePhase::Active)) {
            self.leave(id, effects);
        }
    }

    /// Frees the pages of a finished sequence, which all stages have claimed.
    pub(crate) fn claimed(&mut self, id: u64, effects: &mut Vec<SchedulerEffect>) {
        let Some(sequence) = self.sequences.get_mut(&id) else {
            return;
        };
        if sequence.phase == SequencePhase::Claiming {
            sequence.phase = SequencePhase::Leaving;
            if !sequence.in_flight {
                self.drop_closing(id, effects);
            }
        }
    }

    /// Ends a generation whose answer is complete.
    pub(crate) fn finish(&mut self, id: u64, finish: Finish, effects: &mut Vec<SchedulerEffect>) {
        self.unlist(id);
        let Some(sequence) = self.sequences.get_mut(&id) else {
            return;
        };
        let usage = sequence.usage();
        let positions = sequence.tokens.len() as u32 - 1;
        let pages = positions.div_ceil(PAGE_TOKENS) as usize;
        effects.push(SchedulerEffect::Answered {
            sequence: id,
            answer: sequence.answer().to_vec(),
            finish,
            usage,
        });
        effects.push(SchedulerEffect::Claim {
            sequence: id,
            spec: sequence.generation.spec.digest(),
            prompt: usage.prompt,
            positions,
            pages: match sequence.computed >= positions {
                true => sequence.pages[..pages].to_vec(),
                false => Vec::new(),
            },
        });
        effects.push(SchedulerEffect::Update {
            sequence: id,
            update: Update::Finished { finish, usage },
        });
        sequence.phase = SequencePhase::Claiming;
        self.closing.insert(id);
    }

    /// Ends a generation that cannot continue.
    pub(crate) fn fail(
        &mut self,
        id: u64,
        reason: String,
        retry: bool,
        effects: &mut Vec<SchedulerEffect>,
    ) {
        if let Some(sequence) = self.sequences.get(&id) {
            let usage = sequence.usage();
            let update = Update::Failed {
                reason,
                retry,
                usage,
            };
            effects.push(SchedulerEffect::Update {
                sequence: id,
                update,
            });
        }
        self.leave(id, effects);
    }

    /// Removes an unfinished generation, at once or when its pass is back.
    pub(crate) fn leave(&mut self, id: u64, effects: &mut Vec<SchedulerEffect>) {
        self.unlist(id);
        let Some(sequence) = self.sequences.get_mut(&id) else {
            return;
        };
        sequence.phase = SequencePhase::Leaving;
        self.closing.insert(id);
        if !sequence.in_flight {
            self.drop_closing(id, effects);
        }
    }

    /// Removes a sequence from the queue and from the active ones.
    fn unlist(&mut self, id: u64) {
        let Some(sequence) = self.sequences.get(&id) else {
            return;
        };
        match sequence.phase {
            SequencePhase::Waiting => {
                let owner = sequence.generation.owner;
                // A closing sequence still counts as a live one of its owner.
                self.queue.enter(owner);
                self.queue.remove(owner, id, sequence.age);
            }
            SequencePhase::Active => {
                if let Some(age) = sequence.age {
                    self.active.remove(&age);
                }
            }
            SequencePhase::Claiming | SequencePhase::Leaving => {}
        }
    }

    /// Forgets a closing sequence, and frees its pages.
    pub(crate) fn drop_closing(&mut self, id: u64, effects: &mut Vec<SchedulerEffect>) {
        self.closing.remove(&id);
        if let Some(mut sequence) = self.sequences.remove(&id) {
            self.pages.release(&sequence.reset());
            self.queue.leave(sequence.generation.owner);
            effects.push(SchedulerEffect::Forget { sequence: id });
        }
    }

    /// Tells waiting generations how many are before them: the new one, or those whose number has
    /// halved since they were told.
    pub(crate) fn tell_queued(
        &mut self,
        submitted: Option<u64>,
        effects: &mut Vec<SchedulerEffect>,
    ) {
        if self.queue.is_empty() {
            return;
        }
        for (id, ahead) in self.queue.ahead() {
            if submitted.is_some_and(|only| only != id) {
                continue;
            }
            let Some(sequence) = self.sequences.get_mut(&id) else {
                continue;
            };
            let is_news = sequence
                .told_ahead
                .is_none_or(|told| ahead <= told / 2 && ahead < told);
            if is_news && sequence.answer().is_empty() {
                sequence.told_ahead = Some(ahead);
                effects.push(SchedulerEffect::Update {
                    sequence: id,
                    update: Update::Queued { ahead },
                });
            }
        }
    }
}
