//! Continuous batching as a pure core: which tokens of which sequences are in the next pass.
//!
//! [`Scheduler::apply`] takes events and returns effects; it has no clock, no randomness and no
//! threads. No other part knows sequences: the scheduler owns the pages of keys and values of a
//! pipeline (with the same numbers in all stages), the prefix cache, the queue, and every token
//! that was drawn. So no answer is lost with a stage: all pages become void, and each sequence is
//! computed again from its prompt and its answer so far.
//!
//! ```
//! use concord_proto::serving::{DeploymentId, Generation, GenerationSpec, SamplingSpec};
//! use concord_proto::{Digest, Domain, F32Bits};
//! use concord_scheduler::{Scheduler, SchedulerEffect, SchedulerEvent, Settings};
//!
//! # fn main() {
//! let digest = Digest::of(Domain::Text, b"anything");
//! let generation = Generation {
//!     id: "cmpl-1-0".to_string(),
//!     model: "tiny".to_string(),
//!     owner: digest,
//!     spec: GenerationSpec {
//!         deployment: DeploymentId(digest),
//!         adapter: None,
//!         prompt: vec![3, 1, 4],
//!         sampling: SamplingSpec {
//!             temperature: F32Bits::from(0.0),
//!             top_k: 0,
//!             top_p: F32Bits::from(1.0),
//!             seed: 7,
//!             frequency_penalty: F32Bits::from(0.0),
//!             presence_penalty: F32Bits::from(0.0),
//!             logit_bias: Vec::new(),
//!             grammar: None,
//!         },
//!         max_tokens: 8,
//!         stop_tokens: Vec::new(),
//!         stop_texts: Vec::new(),
//!         readings: Vec::new(),
//!         logprobs: None,
//!         prompt_logprobs: None,
//!     },
//!     body: digest,
//! };
//! // A pipeline of one stage, with 16 pages, is there; somebody asks.
//! let mut scheduler = Scheduler::new(Settings::new(32_000, 2_048));
//! assert!(scheduler.apply(0, SchedulerEvent::Up { stages: 1, pages: 16 }).is_empty());
//! assert_eq!(scheduler.refusal(&generation), None);
//! let submit = SchedulerEvent::Submit { sequence: 1, generation, answer: Vec::new() };
//! let effects = scheduler.apply(1_000, submit);
//! // The whole prompt is in the first pass, and the first token is drawn from its last row.
//! let rows = effects.iter().find_map(|effect| match effect {
//!     SchedulerEffect::Pass { pass, .. } => Some(pass.runs[0].count),
//!     _ => None,
//! });
//! assert_eq!(rows, Some(3));
//! # }
//! ```

mod batch;
mod event;
mod flight;
mod lifecycle;
mod pace;
mod pages;
mod prefix;
mod queue;
mod rate;
mod results;
mod scheduler;
mod sequence;
#[cfg(test)]
mod tests;

pub use event::{Evicted, Refusal, SchedulerEffect, SchedulerEvent, Settings};
pub use scheduler::Scheduler;
