//! What goes into the scheduler, and what comes out of it.

use concord_proto::Digest;
use concord_proto::serving::{Control, DrawOrder, Finish, Generation, Pass, PassResult};
use concord_proto::serving::{Update, Usage};

/// The bounds of a scheduler.
///
/// ```
/// use concord_scheduler::Settings;
///
/// let settings = Settings { active_max: 64, ..Settings::new(32_000, 2_048) };
/// assert_eq!((settings.positions, settings.active_max), (2_048, 64));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Size of the vocabulary.
    pub vocab: u32,
    /// Positions that a sequence may have, prompt and answer.
    pub positions: u32,
    /// Rows of a pass, at most.
    pub rows_max: u32,
    /// Rows of prompts in a pass, at most, while other sequences decode; fewer where these would
    /// have to wait too long.
    pub prefill_chunk: u32,
    /// Generations that may wait before owners with more than their share are refused. In all,
    /// twice as many may wait.
    pub waiting_max: usize,
    /// Generations that may hold pages.
    pub active_max: usize,
}

impl Settings {
    /// The usual bounds, for a model of this vocabulary and these positions.
    pub fn new(vocab: u32, positions: u32) -> Self {
        Self {
            vocab,
            positions,
            rows_max: 512,
            prefill_chunk: 256,
            waiting_max: 1_024,
            active_max: 256,
        }
    }
}

/// What happens to a pipeline and its generations.
#[derive(Clone, Debug, PartialEq)]
#[expect(
    clippy::large_enum_variant,
    reason = "an event is handed over once, and never kept in numbers"
)]
pub enum SchedulerEvent {
    /// The pipeline is up, or up again: all pages are empty, passes count from 0.
    Up {
        /// Its stages.
        stages: u32,
        /// Pages of each stage.
        pages: u32,
    },
    /// The pipeline is down: passes in flight and the contents of pages are void.
    Down {
        /// Why, as a text for users.
        reason: String,
    },
    /// A new generation, which [`crate::Scheduler::refusal`] does not refuse.
    Submit {
        /// Its number. Never given before.
        sequence: u64,
        /// What is asked.
        generation: Generation,
        /// Tokens that another pipeline has already sent to the client.
        answer: Vec<u32>,
    },
    /// The client controls a generation. Controls of sequences that are done are ignored.
    Control {
        /// Which.
        sequence: u64,
        /// What the client wants.
        control: Control,
    },
    /// The client has given up a generation.
    Cancel {
        /// Which.
        sequence: u64,
    },
    /// Runs whose hidden states are not finite. Comes before the [`SchedulerEvent::Result`] of the
    /// pass: a driver holds a result back until each stage has reported that the pass has left it.
    Broken {
        /// Number of the pass.
        pass: u64,
        /// Indexes of the runs.
        runs: Vec<u32>,
    },
    /// The result of a pass. Each pass has one, even if it is empty.
    Result(PassResult),
    /// All stages have claimed a finished sequence, or cannot: its pages may be freed.
    Claimed {
        /// Which.
        sequence: u64,
    },
    /// Time has passed; sent a few times a second.
    Tick,
}

/// What is to be done, in this order.
#[derive(Clone, Debug, PartialEq)]
pub enum SchedulerEffect {
    /// Send a pass to the first stage, and its draws to the last one.
    Pass {
        /// For the first stage.
        pass: Pass,
        /// For the last stage.
        draws: DrawOrder,
    },
    /// News for the client.
    Update {
        /// Which generation.
        sequence: u64,
        /// The news.
        update: Update,
    },
    /// An answer is complete. [`SchedulerEffect::Claim`] and [`Update::Finished`] follow at once.
    Answered {
        /// Which.
        sequence: u64,
        /// All its tokens.
        answer: Vec<u32>,
        /// Why it ended.
        finish: Finish,
        /// What it took.
        usage: Usage,
    },
    /// Have all stages claim a sequence; [`SchedulerEvent::Claimed`] must follow.
    Claim {
        /// Which.
        sequence: u64,
        /// Digest of its spec.
        spec: Digest,
        /// Tokens of the prompt.
        prompt: u32,
        /// Positions that went through the stages.
        positions: u32,
        /// Its pages. Empty where the answer ended while its rows were void, because it was stopped
        /// while it waited to be rebuilt: no stage can claim it then.
        pages: Vec<u32>,
    },
    /// The stages may forget a sequence.
    Forget {
        /// Which.
        sequence: u64,
    },
    /// The result of the last stage is not what was ordered. Nothing of it is used; the pass stays
    /// in flight until [`SchedulerEvent::Down`].
    Fault {
        /// What.
        reason: String,
    },
}

/// Why a generation is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// The queue is full.
    #[error("{waiting} generations wait already: ask again later")]
    Full {
        /// Generations that wait.
        waiting: u32,
    },
    /// No position is left for an answer.
    #[error(
        "a prompt of {prompt} tokens leaves no room for an answer in {positions} positions: \
         shorten it"
    )]
    TooLong {
        /// Tokens of the prompt.
        prompt: u32,
        /// Positions of the model.
        positions: u32,
    },
    /// The pipeline has too little memory for it.
    #[error(
        "prompt and answer may take {needed} pages of keys and values, and the pool has {pages}: \
         ask for fewer tokens, or add memory to the pool"
    )]
    TooManyPages {
        /// The most pages that it may need.
        needed: u32,
        /// Pages of the pipeline.
        pages: u32,
    },
    /// It cannot be served at all.
    #[error("{0}")]
    NotServed(String),
}

/// A generation that is removed from a pipeline, to continue in another one.
#[derive(Clone, Debug, PartialEq)]
pub struct Evicted {
    /// Its number.
    pub sequence: u64,
    /// What is asked.
    pub generation: Generation,
    /// Tokens that were sent to the client.
    pub answer: Vec<u32>,
    /// Under a grammar, the tokens that may come next, if they are known.
    pub allowed: Option<Vec<u8>>,
}

impl Evicted {
    /// The events with which another scheduler continues it.
    pub fn events(self) -> Vec<SchedulerEvent> {
        let (sequence, answer) = (self.sequence, self.answer.len() as u32);
        let submit = SchedulerEvent::Submit {
            sequence,
            generation: self.generation,
            answer: self.answer,
        };
        let allow = self.allowed.map(|tokens| SchedulerEvent::Control {
            sequence,
            control: Control::Allow { answer, tokens },
        });
        std::iter::once(submit).chain(allow).collect()
    }
}
