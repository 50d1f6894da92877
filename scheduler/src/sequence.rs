//! One generation, as the scheduler sees it.

use concord_proto::Digest;
use concord_proto::serving::{Draw, Finish, Generation, PAGE_TOKENS, SampleOrder, SequenceRun};
use concord_proto::serving::{TokenLogprob, Usage};

/// The phase of a generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SequencePhase {
    /// It holds no page.
    Waiting,
    /// It holds pages, and takes part in passes.
    Active,
    /// It is done; its pages are held until they are claimed.
    Claiming,
    /// It was cancelled or has failed, but a pass with it is in flight.
    Leaving,
}

/// A generation, its tokens, and how many of them are in pages.
#[derive(Clone, Debug)]
pub(crate) struct Sequence {
    pub(crate) generation: Generation,
    pub(crate) phase: SequencePhase,
    /// Prompt and answer.
    pub(crate) tokens: Vec<u32>,
    /// Keys of its full pages in the prefix cache, as far as they were needed.
    pub(crate) keys: Vec<Digest>,
    /// Its pages, in order.
    pub(crate) pages: Vec<u32>,
    /// Positions whose keys and values are in the pages.
    pub(crate) computed: u32,
    /// How many of its pages were put into the prefix cache, or come from it.
    pub(crate) published: usize,
    /// Whether a pass in flight holds a run of it.
    pub(crate) in_flight: bool,
    /// Its number in the order of first admissions; the youngest sequence loses its pages first.
    pub(crate) age: Option<u64>,
    /// The number of its last run, as the scheduler counts runs.
    pub(crate) turn: u64,
    /// Whether it loses its pages once the pass in flight is back.
    pub(crate) preempted: bool,
    /// Under a grammar, the tokens that may come next, once they are known.
    pub(crate) allowed: Option<Vec<u8>>,
    /// The scores of prompt tokens so far; `None` once they were sent, or if nobody asked for them.
    pub(crate) scored: Option<Vec<TokenLogprob>>,
    /// Prompt tokens that came from the prefix cache at the first admission.
    pub(crate) cached: u32,
    /// Whether the client knows that it pauses.
    pub(crate) paused: bool,
    /// The number of generations before it that the client was last told.
    pub(crate) told_ahead: Option<u32>,
}

impl Sequence {
    pub(crate) fn new(generation: Generation, answer: &[u32]) -> Self {
        let mut tokens = generation.spec.prompt.clone();
        tokens.extend(answer);
        let is_scored = generation.spec.prompt_logprobs.is_some() && answer.is_empty();
        Self {
            generation,
            phase: SequencePhase::Waiting,
            tokens,
            keys: Vec::new(),
            pages: Vec::new(),
            computed: 0,
            published: 0,
            in_flight: false,
            age: None,
            turn: 0,
            preempted: false,
            allowed: None,
            scored: is_scored.then(Vec::new),
            cached: 0,
            paused: !answer.is_empty(),
            told_ahead: None,
        }
    }

    pub(crate) fn prompt(&self) -> u32 {
        self.generation.spec.prompt.len() as u32
    }

    pub(crate) fn answer(&self) -> &[u32] {
        &self.tokens[self.generation.spec.prompt.len()..]
    }

    pub(crate) fn usage(&self) -> Usage {
        Usage {
            prompt: self.prompt(),
            cached: self.cached,
            answer: self.answer().len() as u32,
        }
    }

    /// How many positions must have gone through the stages before the next token is drawn, or
    /// before the generation ends.
    pub(crate) fn target(&self) -> u32 {
        self.tokens.len() as u32 - u32::from(self.generation.spec.max_tokens == 0)
    }

    /// Whether the candidates for the next token are not known yet.
    pub(crate) fn awaits_grammar(&self) -> bool {
        self.generation.spec.sampling.grammar.is_some() && self.allowed.is_none()
    }

    /// Whether its next run, or the one in flight, is a single row from which a token is drawn.
    pub(crate) fn decodes(&self) -> bool {
        self.target() <= self.computed + 1
    }

    /// Rows that may be computed now.
    pub(crate) fn ready_rows(&self) -> u32 {
        if self.in_flight || self.preempted || self.phase != SequencePhase::Active {
            return 0;
        }
        let waits = self.awaits_grammar() && self.generation.spec.max_tokens > 0;
        (self.target() - u32::from(waits)).saturating_sub(self.computed)
    }

    /// Why it has ended, if it has.
    pub(crate) fn end(&self, positions: u32) -> Option<Finish> {
        let spec = &self.generation.spec;
        let answer = self.answer();
        if spec.max_tokens == 0 {
            return (self.computed >= self.target()).then_some(Finish::Length);
        }
        let last = answer.last()?;
        if spec.stop_tokens.contains(last) {
            return Some(Finish::StopToken);
        }
        let is_long = answer.len() as u32 >= spec.max_tokens;
        (is_long || self.tokens.len() as u32 >= positions).then_some(Finish::Length)
    }

    /// How many of its pages may be taken from the prefix cache. The last position is always
    /// computed, and so is every position of a prompt that is to be scored.
    pub(crate) fn reusable_pages(&self) -> usize {
        if self.scored.is_some() {
            return 0;
        }
        (self.target().saturating_sub(1) / PAGE_TOKENS) as usize
    }

    /// The run of its next `count` rows, and what to draw from it, as run `index` of a pass.
    pub(crate) fn run(&self, id: u64, index: u32, count: u32) -> (SequenceRun, Option<Draw>) {
        let (first, end) = (self.computed, self.computed + count);
        let pages = &self.pages[..end.div_ceil(PAGE_TOKENS) as usize];
        let run = SequenceRun {
            sequence: id,
            first,
            count,
            pages: pages.to_vec(),
            adapter: self.generation.spec.adapter,
        };
        let sample = self.samples_at(end).then(|| {
            let sampling = &self.generation.spec.sampling;
            SampleOrder::new(sampling, self.answer(), self.allowed.clone())
        });
        let targets = self.targets(first, end).to_vec();
        if sample.is_none() && targets.is_empty() {
            return (run, None);
        }
        let spec = &self.generation.spec;
        let draw = Draw {
            run: index,
            sample,
            targets,
            target_logprobs: spec.prompt_logprobs.unwrap_or(0),
            logprobs: spec.logprobs,
        };
        (run, Some(draw))
    }

    /// Whether a run that ends before position `end` draws a token.
    pub(crate) fn samples_at(&self, end: u32) -> bool {
        end as usize == self.tokens.len() && self.generation.spec.max_tokens > 0
    }

    /// The prompt tokens that the rows from `first` to before `end` score: each row scores the
    /// token after it.
    pub(crate) fn targets(&self, first: u32, end: u32) -> &[u32] {
        if self.scored.is_none() {
            return &[];
        }
        let prompt = &self.generation.spec.prompt;
        let to = (end as usize + 1).min(prompt.len());
        &prompt[(first as usize + 1).min(to)..to]
    }

    /// Gives up its pages, so that everything is computed again. Returns them.
    pub(crate) fn reset(&mut self) -> Vec<u32> {
        self.computed = 0;
        self.published = 0;
        self.in_flight = false;
        self.preempted = false;
        if let Some(scored) = &mut self.scored {
            scored.clear();
        }
        std::mem::take(&mut self.pages)
    }
}

/// The most pages that a generation may need.
pub(crate) fn pages_for(generation: &Generation, positions: u32) -> u32 {
    let prompt = generation.spec.prompt.len() as u32;
    let end = prompt
        .saturating_add(generation.spec.max_tokens)
        .min(positions);
    end.saturating_sub(1).div_ceil(PAGE_TOKENS)
}
