//! What goes into the next pass.
//!
//! Sequences that decode come first, in turn; then rows of prompts, the oldest first; then whoever
//! waits is admitted. While anything decodes, few rows of prompts are in flight, so that no token
//! waits for long behind a prompt.

use concord_proto::Digest;
use concord_proto::serving::{DrawOrder, PAGE_TOKENS, Pass};

use crate::event::Effect;
use crate::prefix;
use crate::scheduler::Scheduler;
use crate::sequence::Phase;

/// Rows of prompts that are not worth a split over several passes.
const PREFILL_MIN: u32 = 64;

/// Rows that each pass must have before one more pass than stages is used for decoding. It hides
/// the way from the last stage over the coordinator to the first, and costs one more pass.
const EXTRA_PASS_ROWS: u32 = 8;

/// A run of a pass in flight.
#[derive(Clone, Debug)]
pub(crate) struct FlightRun {
    pub(crate) sequence: u64,
    pub(crate) first: u32,
    pub(crate) count: u32,
    /// Whether a token is drawn from it.
    pub(crate) samples: bool,
    /// Prompt tokens that it scores.
    pub(crate) targets: u32,
    /// Alternatives beside each token.
    pub(crate) logprobs: Option<u8>,
    /// Its numbers mean nothing.
    pub(crate) is_broken: bool,
}

/// A pass in flight.
#[derive(Clone, Debug)]
pub(crate) struct Flight {
    pub(crate) runs: Vec<FlightRun>,
    /// Whether it has sequences that decode.
    pub(crate) decodes: bool,
    /// Rows of prompts.
    pub(crate) prefill_rows: u32,
}

/// What there is to choose from.
struct Ready {
    /// Sequences that decode, and are in no pass, by turn.
    decoders: Vec<(u64, u64)>,
    /// Sequences that decode, in passes or not.
    decoding: u32,
    /// Sequences with rows of prompts to compute, by age, and how many.
    prompts: Vec<(u64, u32)>,
}

impl Scheduler {
    /// Sends passes off, as many as can be in flight.
    pub(crate) fn fill(&mut self, effects: &mut Vec<Effect>) {
        let Some(stages) = self.stages else {
            return;
        };
        while (self.flights.len() as u32) <= stages {
            let ready = self.ready();
            let mut chosen = self.choose_decoders(stages, &ready);
            let decodes = !chosen.is_empty();
            let budget = self.prefill_budget(stages, &ready, chosen.len() as u32);
            let prefill_rows = self.choose_prompts(&ready, budget, &mut chosen, effects);
            if chosen.is_empty() {
                return;
            }
            self.send(chosen, decodes, prefill_rows, effects);
        }
    }

    fn ready(&self) -> Ready {
        let mut ready = Ready {
            decoders: Vec::new(),
            decoding: 0,
            prompts: Vec::new(),
        };
        for id in self.active.values() {
            let Some(sequence) = self.sequences.get(id) else {
                continue;
            };
            let rows = sequence.ready_rows();
            if sequence.decodes() {
                ready.decoding += 1;
                if rows > 0 {
                    ready.decoders.push((sequence.turn, *id));
                }
            } else if rows > 0 {
                ready.prompts.push((*id, rows));
            }
        }
        ready.decoders.sort_unstable();
        ready
    }

    /// Chooses sequences that decode: an even share of them for each pass that can be in flight.
    fn choose_decoders(&mut self, stages: u32, ready: &Ready) -> Vec<(u64, u32)> {
        let extra = stages > 1 && ready.decoding >= (stages + 1) * EXTRA_PASS_ROWS;
        let ways = stages + u32::from(extra);
        let in_flight = self.flights.values().filter(|flight| flight.decodes);
        let mut chosen = Vec::new();
        if in_flight.count() as u32 >= ways {
            return chosen;
        }
        let share = ready.decoding.div_ceil(ways).min(self.settings.rows_max);
        for &(_, id) in &ready.decoders {
            if chosen.len() as u32 == share {
                break;
            }
            if self.has_room(id, 1) {
                self.mark(id);
                chosen.push((id, 1));
            }
        }
        chosen
    }

    /// Rows of prompts that the next pass may have.
    fn prefill_budget(&self, stages: u32, ready: &Ready, decode_rows: u32) -> u32 {
        let free = self.settings.rows_max - decode_rows;
        if ready.decoding > 0 {
            let in_flight: u32 = self
                .flights
                .values()
                .map(|flight| flight.prefill_rows)
                .sum();
            let allowed = self.settings.prefill_chunk.saturating_mul(stages);
            let left = allowed.saturating_sub(in_flight);
            return free.min(left).min(self.settings.prefill_chunk);
        }
        if stages == 1 {
            return free;
        }
        // All stages shall have something to do. A sequence is in one pass at a time, so that it
        // does not gain by smaller ones.
        let here: u32 = ready.prompts.iter().map(|(_, rows)| rows).sum();
        let head = self.queue.head().and_then(|id| self.sequences.get(&id));
        let next = head.map_or(0, |sequence| sequence.target());
        let waiting = next.saturating_mul(self.queue.len() as u32);
        let share = here.saturating_add(waiting).div_ceil(stages);
        let first = ready.prompts.first().map_or(next, |(_, rows)| *rows);
        free.min(share.max(first).max(PREFILL_MIN))
    }

    /// Chooses rows of prompts, and admits whoever is next while there is room.
    fn choose_prompts(
        &mut self,
        ready: &Ready,
        mut budget: u32,
        chosen: &mut Vec<(u64, u32)>,
        effects: &mut Vec<Effect>,
    ) -> u32 {
        let mut total = 0;
        for &(id, rows) in &ready.prompts {
            let count = rows.min(budget);
            // A sequence before this one may have taken its pages.
            let is_there = self.sequences.get(&id).is_some_and(|s| s.ready_rows() > 0);
            if count > 0 && is_there {
                self.mark(id);
                chosen.push((id, count));
                (budget, total) = (budget - count, total + count);
            }
        }
        while budget > 0 {
            let Some(id) = self.admit(effects) else {
                break;
            };
            let count = self.sequences[&id].ready_rows().min(budget);
            if count > 0 {
                self.mark(id);
                chosen.push((id, count));
                (budget, total) = (budget - count, total + count);
            }
        }
        total
    }

    /// Gives pages to whoever is next, for all tokens that it has.
    fn admit(&mut self, effects: &mut Vec<Effect>) -> Option<u64> {
        let id = self.queue.head()?;
        if self.active.len() >= self.settings.active_max {
            return None;
        }
        let sequence = self.sequences.get_mut(&id)?;
        let (adapter, count) = (sequence.generation.spec.adapter, sequence.reusable_pages());
        prefix::extend(&mut sequence.keys, adapter, &sequence.tokens, count);
        let needed = sequence.target().div_ceil(PAGE_TOKENS) as usize;
        let keys: &[Digest] = &sequence.keys[..count];
        let mut held: Vec<u32> = keys.iter().map_while(|key| self.pages.share(key)).collect();
        let shared = held.len();
        // Some pages are left for those that are active already: they grow.
        let spare = self.active.len().div_ceil(8);
        let is_room = self.pages.available() >= needed - shared + spare;
        let more = is_room.then(|| self.pages.take(needed - shared)).flatten();
        let Some(more) = more else {
            self.pages.release(&held);
            return None;
        };
        held.extend(more);
        sequence.pages = held;
        sequence.published = shared;
        sequence.computed = shared as u32 * PAGE_TOKENS;
        sequence.phase = Phase::Active;
        self.queue.pop();
        self.account(id, shared as u32 * PAGE_TOKENS);
        let age = self.age(id);
        self.active.insert(age, id);
        // Nothing to compute and nothing to draw: a prompt that is not even scored.
        let end = self.sequences[&id].end(self.settings.positions);
        if let Some(finish) = end {
            self.finish(id, finish, effects);
        }
        Some(id)
    }

    /// Counts what an admission takes, and what it found.
    fn account(&mut self, id: u64, found: u32) {
        let Some(sequence) = self.sequences.get_mut(&id) else {
            return;
        };
        let owner = sequence.generation.owner;
        let to_compute = u64::from(sequence.target() - found);
        if sequence.age.is_none() {
            let prompt = sequence.prompt();
            sequence.cached = found.min(prompt);
            self.prefix_queries += u64::from(prompt);
            self.prefix_hits += u64::from(found);
            self.queue.charge(owner, to_compute);
        }
    }

    /// Whether a sequence has pages for `count` more rows; if need be, the youngest gives its own.
    fn has_room(&mut self, id: u64, count: u32) -> bool {
        let Some(sequence) = self.sequences.get(&id) else {
            return false;
        };
        if sequence.ready_rows() < count {
            return false;
        }
        let needed = (sequence.computed + count).div_ceil(PAGE_TOKENS) as usize;
        let more = needed.saturating_sub(sequence.pages.len());
        while self.pages.available() < more {
            // What closes soon frees pages: nobody has to give way.
            let youngest = self.active.last_key_value().map(|(_, id)| *id);
            let Some(youngest) = youngest.filter(|_| self.closing.is_empty()) else {
                return false;
            };
            self.preempt(youngest);
            let is_still_there = self.sequences[&youngest].phase == Phase::Active;
            if youngest == id || is_still_there {
                return false;
            }
        }
        let taken = self.pages.take(more).unwrap_or_default();
        if let Some(sequence) = self.sequences.get_mut(&id) {
            sequence.pages.extend(taken);
        }
        true
    }

    /// A sequence gives its pages to others: at once, or when its pass is back.
    pub(crate) fn preempt(&mut self, id: u64) {
        let Some(sequence) = self.sequences.get_mut(&id) else {
            return;
        };
        sequence.preempted = true;
        if sequence.in_flight {
            return;
        }
        let pages = sequence.reset();
        sequence.phase = Phase::Waiting;
        self.preemptions += 1;
        self.pages.release(&pages);
        if let Some(age) = sequence.age {
            self.active.remove(&age);
            self.queue.push_begun(age, id);
        }
    }

    /// A sequence is in the pass that is being made.
    fn mark(&mut self, id: u64) {
        self.next_turn += 1;
        if let Some(sequence) = self.sequences.get_mut(&id) {
            sequence.in_flight = true;
            sequence.turn = self.next_turn;
        }
    }

    /// Sends a pass off.
    fn send(
        &mut self,
        mut chosen: Vec<(u64, u32)>,
        decodes: bool,
        prefill_rows: u32,
        effects: &mut Vec<Effect>,
    ) {
        // Runs of one adapter stand together.
        let adapter = |id: &u64| self.sequences[id].generation.spec.adapter;
        chosen.sort_by_cached_key(|(id, _)| adapter(id));
        let number = self.next_pass;
        let mut pass = Pass {
            number,
            runs: Vec::with_capacity(chosen.len()),
            tokens: Vec::new(),
        };
        let (mut draws, mut runs) = (Vec::new(), Vec::with_capacity(chosen.len()));
        for (index, (id, count)) in (0..).zip(chosen) {
            let sequence = &self.sequences[&id];
            let (run, draw) = sequence.run(id, index, count);
            let (first, end) = (run.first, run.first + count);
            pass.tokens
                .extend(&sequence.tokens[first as usize..end as usize]);
            pass.runs.push(run);
            runs.push(FlightRun {
                sequence: id,
                first,
                count,
                samples: draw.as_ref().is_some_and(|draw| draw.sample.is_some()),
                targets: draw.as_ref().map_or(0, |draw| draw.targets.len() as u32),
                logprobs: draw.as_ref().and_then(|draw| draw.logprobs),
                is_broken: false,
            });
            draws.extend(draw);
        }
        self.next_pass += 1;
        let flight = Flight {
            runs,
            decodes,
            prefill_rows,
        };
        self.flights.insert(number, flight);
        let draws = DrawOrder {
            pass: number,
            draws,
        };
        effects.push(Effect::Pass { pass, draws });
    }
}
