//! The state of a pipeline's scheduler, and what each event does to it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use concord_proto::Digest;
use concord_proto::serving::{Generation, PipelineView};

use crate::event::{Evicted, Refusal, SchedulerEffect, SchedulerEvent, Settings};
use crate::flight::Flight;
use crate::pace::Pace;
use crate::pages::PagePool;
use crate::queue::Queue;
use crate::rate::Rate;
use crate::sequence::{Sequence, SequencePhase, pages_for};

/// Passes that are remembered after they are back, because a run may be reported broken later.
pub(crate) const RECENT_PASSES: usize = 64;

/// The scheduler of one pipeline.
#[derive(Clone, Debug)]
pub struct Scheduler {
    pub(crate) settings: Settings,
    /// Stages of the pipeline; none while it is down.
    pub(crate) stages: Option<u32>,
    pub(crate) pages: PagePool,
    pub(crate) queue: Queue,
    pub(crate) sequences: BTreeMap<u64, Sequence>,
    /// Sequences in [`SequencePhase::Active`], by age.
    pub(crate) active: BTreeMap<u64, u64>,
    /// Sequences in [`SequencePhase::Claiming`] and [`SequencePhase::Leaving`].
    pub(crate) closing: BTreeSet<u64>,
    pub(crate) flights: BTreeMap<u64, Flight>,
    /// Passes that are back, with their sequences.
    pub(crate) recent: VecDeque<(u64, Vec<u64>)>,
    pub(crate) next_pass: u64,
    pub(crate) next_age: u64,
    /// Counts runs, so that the sequence whose last run is longest ago decodes first.
    pub(crate) next_turn: u64,
    pub(crate) now_us: u64,
    pub(crate) rate: Rate,
    /// Measured since the pipeline came up.
    pub(crate) pace: Pace,
    /// Whether the next rows of prompts are taken from the prompt with the fewest rows left, not
    /// from the oldest.
    pub(crate) shortest_first: bool,
    pub(crate) drawn: u64,
    pub(crate) preemptions: u64,
    pub(crate) prefix_queries: u64,
    pub(crate) prefix_hits: u64,
}

impl Scheduler {
    /// A scheduler of a pipeline that is down.
    pub fn new(settings: Settings) -> Self {
        Self {
            settings: Settings {
                rows_max: settings.rows_max.max(1),
                prefill_chunk: settings.prefill_chunk.max(1),
                active_max: settings.active_max.max(1),
                ..settings
            },
            stages: None,
            pages: PagePool::default(),
            queue: Queue::default(),
            sequences: BTreeMap::new(),
            active: BTreeMap::new(),
            closing: BTreeSet::new(),
            flights: BTreeMap::new(),
            recent: VecDeque::new(),
            next_pass: 0,
            next_age: 0,
            next_turn: 0,
            now_us: 0,
            rate: Rate::default(),
            pace: Pace::default(),
            shortest_first: false,
            drawn: 0,
            preemptions: 0,
            prefix_queries: 0,
            prefix_hits: 0,
        }
    }

    /// Handles an event at the time `now_us`, in microseconds. Returns what is to be done, in
    /// order.
    pub fn apply(&mut self, now_us: u64, event: SchedulerEvent) -> Vec<SchedulerEffect> {
        self.now_us = self.now_us.max(now_us);
        let mut effects = Vec::new();
        let is_tick = matches!(event, SchedulerEvent::Tick);
        let mut submitted = None;
        match event {
            SchedulerEvent::Up { stages, pages } => self.up(stages, pages, &mut effects),
            SchedulerEvent::Down { .. } => self.down(&mut effects),
            SchedulerEvent::Submit {
                sequence,
                generation,
                answer,
            } => {
                submitted = Some(sequence);
                self.submit(sequence, generation, &answer, &mut effects);
            }
            SchedulerEvent::Control { sequence, control } => {
                self.control(sequence, control, &mut effects)
            }
            SchedulerEvent::Cancel { sequence } => self.cancel(sequence, &mut effects),
            SchedulerEvent::Broken { pass, runs } => self.broken(pass, &runs, &mut effects),
            SchedulerEvent::Result(result) => self.result(result, &mut effects),
            SchedulerEvent::Claimed { sequence } => self.claimed(sequence, &mut effects),
            SchedulerEvent::Tick => {}
        }
        self.fill(&mut effects);
        if is_tick || submitted.is_some() {
            self.tell_queued(submitted, &mut effects);
        }
        effects
    }

    /// The reason to refuse a generation, if there is one. To be called before
    /// [`SchedulerEvent::Submit`].
    pub fn refusal(&self, generation: &Generation) -> Option<Refusal> {
        let (spec, settings) = (&generation.spec, &self.settings);
        let prompt = spec.prompt.len() as u32;
        if prompt == 0 {
            return Some(Refusal::NotServed("the prompt is empty".to_string()));
        }
        if let Some(token) = spec.prompt.iter().find(|&&token| token >= settings.vocab) {
            let vocab = settings.vocab;
            let why = format!("the prompt has token {token}, and the vocabulary {vocab} tokens");
            return Some(Refusal::NotServed(why));
        }
        if let Err(why) = spec.check_bounds() {
            return Some(Refusal::NotServed(format!("the spec of the answer: {why}")));
        }
        let positions = settings.positions;
        if prompt.saturating_add(spec.max_tokens.min(1)) > positions {
            return Some(Refusal::TooLong { prompt, positions });
        }
        let pages = self.pages.count() as u32;
        let needed = pages_for(generation, positions);
        if self.stages.is_some() && needed > pages {
            return Some(Refusal::TooManyPages { needed, pages });
        }
        self.is_full(&generation.owner).then(|| Refusal::Full {
            waiting: self.queue.len() as u32,
        })
    }

    /// Whether the queue is full for an owner. An owner with less than its share in the queue may
    /// always add to it, so that no owner can fill the queue for the others.
    fn is_full(&self, owner: &Digest) -> bool {
        let (waiting, most) = (self.queue.len(), self.settings.waiting_max);
        let share = most / (self.queue.owners_waiting() + 1);
        let has_its_share = self.queue.waiting_of(owner) > share;
        waiting >= most.saturating_mul(2) || waiting >= most && has_its_share
    }

    /// Fills in what the scheduler knows: all but the epoch and the stages.
    pub fn view(&self, into: &mut PipelineView) {
        let cached = self.pages.cached();
        into.running = self.stages.is_some();
        into.active = (self.active.len() + self.closing.len()) as u32;
        into.waiting = self.queue.len() as u32;
        into.pages_used = (self.pages.count() - self.pages.available()) as u32;
        into.pages_cached = cached as u32;
        into.pages = self.pages.count() as u32;
        into.prefix_queries = self.prefix_queries;
        into.prefix_hits = self.prefix_hits;
        into.preemptions = self.preemptions;
        into.tokens = self.drawn;
        into.tokens_per_second = self.rate.per_second(self.now_us);
    }

    /// Removes all unfinished generations, oldest first, so that another pipeline can continue
    /// them.
    pub fn evict(&mut self) -> Vec<Evicted> {
        let unfinished =
            |s: &Sequence| matches!(s.phase, SequencePhase::Waiting | SequencePhase::Active);
        let of = |(id, s): (&u64, &Sequence)| (s.age.unwrap_or(u64::MAX), *id);
        let mut ids: Vec<(u64, u64)> = self
            .sequences
            .iter()
            .filter(|(_, sequence)| unfinished(sequence))
            .map(of)
            .collect();
        ids.sort_unstable();
        let mut evicted = Vec::with_capacity(ids.len());
        for (_, id) in ids {
            let sequence = &self.sequences[&id];
            evicted.push(Evicted {
                sequence: id,
                generation: sequence.generation.clone(),
                answer: sequence.answer().to_vec(),
                allowed: sequence.allowed.clone(),
            });
            self.leave(id, &mut Vec::new());
        }
        evicted
    }
}
