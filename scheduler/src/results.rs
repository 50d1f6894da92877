//! Handles the results of passes.

use concord_proto::serving::{Drawn, PAGE_TOKENS, PassResult, TokenLogprob, Update};

use crate::event::SchedulerEffect;
use crate::flight::{Flight, FlightRun};
use crate::prefix;
use crate::scheduler::{RECENT_PASSES, Scheduler};
use crate::sequence::{Sequence, SequencePhase};

const BROKEN: &str = "the numbers of the model overflow for this input: it has no answer";

impl Scheduler {
    /// Takes in a result, as a whole or not at all.
    pub(crate) fn result(&mut self, result: PassResult, effects: &mut Vec<SchedulerEffect>) {
        let fault = match self.flights.get(&result.pass) {
            None => Err("no such pass is in flight".to_string()),
            Some(flight) => self.check(flight, &result.drawn),
        };
        let flight = match fault {
            Err(what) => {
                let reason = format!("the result of pass {} does not fit: {what}", result.pass);
                return effects.push(SchedulerEffect::Fault { reason });
            }
            Ok(()) => self.flights.remove(&result.pass),
        };
        if let (Some(flight), Some(stages)) = (&flight, self.stages) {
            let (sent, now) = (flight.sent_us, self.now_us);
            self.pace.measure(stages, sent, now, &flight.chunks);
        }
        let mut drawn = result.drawn.into_iter().peekable();
        let mut members = Vec::new();
        for (index, run) in (0..).zip(flight.into_iter().flat_map(|flight| flight.runs)) {
            let drawn = drawn.next_if(|drawn| drawn.run == index);
            members.push(run.sequence);
            self.run_is_back(&run, drawn, effects);
        }
        self.recent.push_back((result.pass, members));
        if self.recent.len() > RECENT_PASSES {
            self.recent.pop_front();
        }
    }

    /// Checks that a result has exactly what was ordered.
    fn check(&self, flight: &Flight, drawn: &[Drawn]) -> Result<(), String> {
        let mut rest = drawn.iter().peekable();
        for (index, run) in (0..).zip(&flight.runs) {
            let found = rest.next_if(|drawn| drawn.run == index);
            let is_ordered = run.samples || run.targets > 0;
            match found {
                _ if run.is_broken => {}
                Some(_) if !is_ordered => return Err(format!("run {index} has nothing to draw")),
                None if is_ordered => return Err(format!("run {index} is missing")),
                Some(drawn) => self
                    .check_run(run, drawn)
                    .map_err(|what| format!("run {index}: {what}"))?,
                None => {}
            }
        }
        match rest.next() {
            Some(drawn) => Err(format!("run {} is unknown or out of order", drawn.run)),
            None => Ok(()),
        }
    }

    fn check_run(&self, run: &FlightRun, drawn: &Drawn) -> Result<(), String> {
        let token = drawn.token.iter().map(|drawn| (drawn, run.logprobs));
        let scored = drawn.scored.iter();
        let scored = scored.map(|drawn| (drawn, run.target_logprobs));
        for (drawn, asked) in token.chain(scored) {
            let ids = drawn.top.iter().map(|(token, _)| token);
            let mut ids = ids.chain(std::iter::once(&drawn.token));
            if let Some(token) = ids.find(|token| **token >= self.settings.vocab) {
                return Err(format!("token {token} is not in the vocabulary"));
            }
            let most = asked.unwrap_or(0) as usize;
            if drawn.top.len() > most {
                return Err(format!("{} alternatives, not {most}", drawn.top.len()));
            }
            // The client gets what the last stage claims, and nothing else.
            if asked.is_none() && drawn.logprob != TokenLogprob::unasked(drawn.token).logprob {
                return Err("a logprob that nobody asked for".to_string());
            }
        }
        if drawn.token.is_some() != run.samples {
            return Err("a token is missing or too many".to_string());
        }
        let Some(sequence) = self.sequences.get(&run.sequence) else {
            return Ok(());
        };
        let from = run.first as usize + 1;
        let prompt = &sequence.generation.spec.prompt;
        let targets = &prompt[from.min(prompt.len())..];
        let targets = &targets[..(run.targets as usize).min(targets.len())];
        if !targets
            .iter()
            .eq(drawn.scored.iter().map(|scored| &scored.token))
        {
            return Err("other tokens are scored than those of the prompt".to_string());
        }
        let allowed = sequence.allowed.as_deref();
        let forbids = |token: u32| {
            let byte = allowed.and_then(|bits| bits.get(token as usize / 8));
            byte.is_some_and(|byte| byte >> (token % 8) & 1 == 0)
        };
        let is_live = sequence.phase == SequencePhase::Active;
        match &drawn.token {
            Some(drawn) if is_live && forbids(drawn.token) => Err(format!(
                "token {} is not allowed by the grammar",
                drawn.token
            )),
            _ => Ok(()),
        }
    }

    /// Handles a run of a sequence that is back.
    fn run_is_back(
        &mut self,
        run: &FlightRun,
        drawn: Option<Drawn>,
        effects: &mut Vec<SchedulerEffect>,
    ) {
        let id = run.sequence;
        let Some(sequence) = self.sequences.get_mut(&id) else {
            return;
        };
        sequence.in_flight = false;
        match sequence.phase {
            SequencePhase::Leaving => return self.drop_closing(id, effects),
            SequencePhase::Claiming | SequencePhase::Waiting => return,
            SequencePhase::Active => {}
        }
        if run.is_broken {
            self.purge(id);
            return self.fail(id, BROKEN.to_string(), false, effects);
        }
        sequence.computed = run.first + run.count;
        let full = (sequence.computed / PAGE_TOKENS) as usize;
        let adapter = sequence.generation.spec.adapter;
        prefix::extend(&mut sequence.keys, adapter, &sequence.tokens, full);
        while sequence.published < full {
            let at = sequence.published;
            self.pages.publish(sequence.pages[at], sequence.keys[at]);
            sequence.published += 1;
        }
        let mut tell = |update| {
            effects.push(SchedulerEffect::Update {
                sequence: id,
                update,
            });
        };
        let (token, scored) = drawn.map_or((None, Vec::new()), |d| (d.token, d.scored));
        prefill_is_through(sequence, run, scored, &mut tell);
        if let Some(token) = token {
            if std::mem::take(&mut sequence.paused) {
                tell(Update::Resumed);
            }
            sequence.tokens.push(token.token);
            sequence.allowed = None;
            tell(Update::Token(token));
            self.queue.charge(sequence.generation.owner, 1);
            self.drawn += 1;
            self.rate.add(self.now_us, 1);
        }
        let end = sequence.end(self.settings.positions);
        let is_preempted = sequence.preempted;
        if let Some(finish) = end {
            self.finish(id, finish, effects);
        } else if is_preempted {
            self.preempt(id);
        }
    }

    /// Handles broken runs of a pass: their sequences fail once the pass is back, or at once if it
    /// already is.
    pub(crate) fn broken(&mut self, pass: u64, runs: &[u32], effects: &mut Vec<SchedulerEffect>) {
        if let Some(flight) = self.flights.get_mut(&pass) {
            for &run in runs {
                if let Some(run) = flight.runs.get_mut(run as usize) {
                    run.is_broken = true;
                }
            }
            return;
        }
        let known = self.recent.iter().find(|(number, _)| *number == pass);
        let members = known.map_or(Vec::new(), |(_, members)| members.clone());
        for &run in runs {
            let Some(&id) = members.get(run as usize) else {
                continue;
            };
            let phase = self.sequences.get(&id).map(|sequence| sequence.phase);
            self.purge(id);
            if matches!(phase, Some(SequencePhase::Waiting | SequencePhase::Active)) {
                self.fail(id, BROKEN.to_string(), false, effects);
            }
        }
    }

    /// Removes the pages of a sequence from the prefix cache, so that no other sequence uses their
    /// contents.
    fn purge(&mut self, id: u64) {
        if let Some(sequence) = self.sequences.get(&id) {
            for &page in &sequence.pages {
                self.pages.purge(page);
            }
        }
    }
}

/// Reports the progress of a prompt, and its scores once all are there.
fn prefill_is_through(
    sequence: &mut Sequence,
    run: &FlightRun,
    scored: Vec<TokenLogprob>,
    tell: &mut impl FnMut(Update),
) {
    let (done, total) = (sequence.computed, sequence.prompt());
    let is_part = run.count < total && done <= total;
    if sequence.answer().is_empty() && is_part && run.count > 1 {
        tell(Update::Prefill { done, total });
    }
    let Some(all) = &mut sequence.scored else {
        return;
    };
    all.extend(scored);
    if all.len() + 1 >= total as usize {
        let all = std::mem::take(all);
        sequence.scored = None;
        tell(Update::Prompt(all));
    }
}
