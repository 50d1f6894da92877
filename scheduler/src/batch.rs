//! Chooses what goes into the next pass.
//!
//! Sequences that decode come first, in turn; then rows of prompts; then waiting sequences are
//! admitted. While anything decodes, the rows of prompts in flight are limited to those that take a
//! fraction of a second ([`crate::pace`]), so that no token waits long behind a prompt. The oldest
//! prompt and the one with the fewest rows left take turns in going first, so that a short prompt
//! does not wait for all of a long one.

use concord_proto::Digest;
use concord_proto::serving::{DrawOrder, PAGE_TOKENS, Pass};

use crate::event::SchedulerEffect;
use crate::flight::{Flight, FlightRun};
use crate::pace::{ADDED_US, Chunk, ROWS_LEAST};
use crate::prefix;
use crate::scheduler::Scheduler;
use crate::sequence::SequencePhase;

/// With no more rows of prompts than this, a split over several passes is not worth while.
const PREFILL_MIN: u32 = 64;

/// With at least so many rows in each pass, decoding uses one more pass than there are stages. The
/// extra pass hides the time from the last stage through the coordinator to the first.
const EXTRA_PASS_ROWS: u32 = 8;

/// With so many prompts in progress, none is admitted just because it is short: each prompt holds
/// its pages from its admission on.
const PROMPTS_MAX: usize = 4;

/// What prompts may still use of a pass.
struct Budget {
    rows: u32,
    /// Microseconds, where other sequences wait for their next token.
    micros: Option<f64>,
    /// Whether a prompt gets a few rows in any case, because no other one is in flight.
    is_due: bool,
}

/// The sequences to choose from.
struct Ready {
    /// Sequences that decode and are in no pass: (turn, sequence).
    decoders: Vec<(u64, u64)>,
    /// How many sequences decode, in passes or not.
    decoding: u32,
    /// Sequences with rows of prompts to compute, by age: (sequence, rows).
    prompts: Vec<(u64, u32)>,
    /// How many sequences have prompts that are not through, in passes or not.
    prefilling: usize,
}

impl Scheduler {
    /// Sends as many passes as can be in flight.
    pub(crate) fn fill(&mut self, effects: &mut Vec<SchedulerEffect>) {
        let Some(stages) = self.stages else {
            return;
        };
        while (self.flights.len() as u32) <= stages {
            let ready = self.ready();
            let mut chosen = self.choose_decoders(stages, &ready);
            let decodes = !chosen.is_empty();
            let budget = self.prefill_budget(stages, &ready, chosen.len() as u32);
            let chunks = self.choose_prompts(ready, budget, &mut chosen, effects);
            if chosen.is_empty() {
                return;
            }
            self.send(chosen, decodes, chunks, effects);
        }
    }

    fn ready(&self) -> Ready {
        let mut ready = Ready {
            decoders: Vec::new(),
            decoding: 0,
            prompts: Vec::new(),
            prefilling: 0,
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
            } else {
                ready.prefilling += 1;
                if rows > 0 {
                    ready.prompts.push((*id, rows));
                }
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

    /// The rows of prompts that the next pass may have.
    fn prefill_budget(&self, stages: u32, ready: &Ready, decode_rows: u32) -> Budget {
        let free = self.settings.rows_max - decode_rows;
        if ready.decoding > 0 {
            let in_flight: Vec<Chunk> = self
                .flights
                .values()
                .flat_map(|flight| flight.chunks.iter().copied())
                .collect();
            let rows: u32 = in_flight.iter().map(|chunk| chunk.rows).sum();
            let allowed = self.settings.prefill_chunk.saturating_mul(stages);
            let left = allowed.saturating_sub(rows);
            // A pass waits for the one before it at one stage only, and then follows it.
            let before: f64 = in_flight.iter().map(|chunk| self.pace.cost(*chunk)).sum();
            return Budget {
                rows: free.min(left).min(self.settings.prefill_chunk),
                micros: Some(ADDED_US - before / f64::from(stages)),
                is_due: in_flight.is_empty(),
            };
        }
        Budget {
            rows: self.lone_budget(stages, ready, free),
            micros: None,
            is_due: true,
        }
    }

    /// Rows of prompts in a pass while no sequence waits for its next token.
    fn lone_budget(&self, stages: u32, ready: &Ready, free: u32) -> u32 {
        if stages == 1 {
            return free;
        }
        // The rows are split so that all stages have something to do. A single sequence is in one
        // pass at a time, so it would not gain from smaller passes.
        let here: u32 = ready.prompts.iter().map(|(_, rows)| rows).sum();
        let head = self.queue.head().and_then(|id| self.sequences.get(&id));
        let next = head.map_or(0, |sequence| sequence.target());
        let waiting = next.saturating_mul(self.queue.len() as u32);
        let share = here.saturating_add(waiting).div_ceil(stages);
        let first = ready.prompts.first().map_or(next, |(_, rows)| *rows);
        free.min(share.max(first).max(PREFILL_MIN))
    }

    /// Chooses rows of prompts, and admits the next sequences while there is room.
    fn choose_prompts(
        &mut self,
        ready: Ready,
        mut budget: Budget,
        chosen: &mut Vec<(u64, u32)>,
        effects: &mut Vec<SchedulerEffect>,
    ) -> Vec<Chunk> {
        let mut chunks = Vec::new();
        let mut prompts = ready.prompts;
        if self.shortest_first {
            let may_admit = ready.prefilling < PROMPTS_MAX && self.has_time(&budget);
            if let Some(id) = may_admit.then(|| self.admit(effects)).flatten() {
                prompts.push((id, self.sequences[&id].ready_rows()));
            }
            // The sort is stable: among equals, the oldest comes first.
            prompts.sort_by_key(|(_, rows)| *rows);
        }
        for (id, _) in prompts {
            self.choose_prompt(id, &mut budget, chosen, &mut chunks);
        }
        while self.has_time(&budget) {
            let Some(id) = self.admit(effects) else {
                break;
            };
            let is_in = self.choose_prompt(id, &mut budget, chosen, &mut chunks);
            let has_rows = self.sequences.get(&id).is_some_and(|s| s.ready_rows() > 0);
            if has_rows && !is_in {
                break;
            }
        }
        if !chunks.is_empty() {
            self.shortest_first = !self.shortest_first;
        }
        chunks
    }

    /// Takes as many rows of a prompt into the pass as the budget has. Returns whether any.
    fn choose_prompt(
        &mut self,
        id: u64,
        budget: &mut Budget,
        chosen: &mut Vec<(u64, u32)>,
        chunks: &mut Vec<Chunk>,
    ) -> bool {
        // A sequence before this one may have taken its pages.
        let Some(sequence) = self.sequences.get(&id) else {
            return false;
        };
        let (first, rows) = (sequence.computed, sequence.ready_rows());
        let rows = self.chunk_rows(budget, first, rows);
        if rows == 0 {
            return false;
        }
        let chunk = Chunk { first, rows };
        budget.rows -= rows;
        budget.micros = budget.micros.map(|left| left - self.pace.cost(chunk));
        budget.is_due = false;
        self.mark(id);
        chosen.push((id, rows));
        chunks.push(chunk);
        true
    }

    /// How many of its `rows` from position `first` on a prompt gets.
    fn chunk_rows(&self, budget: &Budget, first: u32, rows: u32) -> u32 {
        let most = rows.min(budget.rows);
        let Some(left) = budget.micros else {
            return most;
        };
        let in_time = self.pace.rows(first, left);
        if most <= in_time {
            most
        } else if in_time >= ROWS_LEAST {
            in_time
        } else if budget.is_due {
            most.min(ROWS_LEAST)
        } else {
            0
        }
    }

    /// Whether the budget has time for a prompt that is admitted now.
    fn has_time(&self, budget: &Budget) -> bool {
        let in_time = |left: f64| self.pace.rows(0, left) >= ROWS_LEAST;
        budget.rows > 0 && (budget.is_due || budget.micros.is_none_or(in_time))
    }

    /// Admits the next sequence: gives it pages for all its tokens.
    fn admit(&mut self, effects: &mut Vec<SchedulerEffect>) -> Option<u64> {
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
        // Some pages stay free for the active sequences, which grow.
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
        sequence.phase = SequencePhase::Active;
        self.queue.pop();
        self.account(id, shared as u32 * PAGE_TOKENS);
        let age = self.age(id);
        self.active.insert(age, id);
        // A prompt that has nothing to compute, draw or score is done at once.
        let end = self.sequences[&id].end(self.settings.positions);
        if let Some(finish) = end {
            self.finish(id, finish, effects);
        }
        Some(id)
    }

    /// Counts a first admission: charges its owner, and counts the prompt tokens that were in the
    /// prefix cache.
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

    /// Whether a sequence has pages for `count` more rows. If there are too few, the youngest
    /// sequence gives up its own.
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
            // Closing sequences free their pages soon, so none has to be preempted.
            let youngest = self.active.last_key_value().map(|(_, id)| *id);
            let Some(youngest) = youngest.filter(|_| self.closing.is_empty()) else {
                return false;
            };
            self.preempt(youngest);
            let is_still_there = self.sequences[&youngest].phase == SequencePhase::Active;
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

    /// Takes the pages of a sequence for others, at once or when its pass is back.
    pub(crate) fn preempt(&mut self, id: u64) {
        let Some(sequence) = self.sequences.get_mut(&id) else {
            return;
        };
        sequence.preempted = true;
        if sequence.in_flight {
            return;
        }
        let pages = sequence.reset();
        sequence.phase = SequencePhase::Waiting;
        self.preemptions += 1;
        self.pages.release(&pages);
        if let Some(age) = sequence.age {
            self.active.remove(&age);
            self.queue.push_begun(age, id);
        }
    }

    /// Notes that a sequence is in the pass that is being made.
    fn mark(&mut self, id: u64) {
        self.next_turn += 1;
        if let Some(sequence) = self.sequences.get_mut(&id) {
            sequence.in_flight = true;
            sequence.turn = self.next_turn;
        }
    }

    /// Sends a pass.
    fn send(
        &mut self,
        mut chosen: Vec<(u64, u32)>,
        decodes: bool,
        chunks: Vec<Chunk>,
        effects: &mut Vec<SchedulerEffect>,
    ) {
        // Runs of one adapter are adjacent, and share its product.
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
                logprobs: sequence.generation.spec.logprobs,
                target_logprobs: sequence.generation.spec.prompt_logprobs,
                is_broken: false,
            });
            draws.extend(draw);
        }
        self.next_pass += 1;
        let flight = Flight {
            runs,
            decodes,
            chunks,
            sent_us: self.now_us,
        };
        self.flights.insert(number, flight);
        let draws = DrawOrder {
            pass: number,
            draws,
        };
        effects.push(SchedulerEffect::Pass { pass, draws });
    }
}
