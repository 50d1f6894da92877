//! The state of a serving pool, for people and metrics.

use crate::crypto::WorkerId;
use crate::training::Layers;

/// The pool behind an API.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PoolView {
    /// Whether at least one pipeline takes requests.
    pub ready: bool,
    /// What it waits for or does, as a sentence.
    pub state: String,
    /// The members of the pool.
    pub workers: Vec<WorkerView>,
    pub pipelines: Vec<PipelineView>,
    /// Stages lost so far, and put right.
    pub failovers: u64,
    /// Seconds from the notice of the last loss until tokens came again.
    pub last_resume_seconds: Option<f64>,
    /// Audits that agreed, and those that did not.
    pub audits: (u64, u64),
    /// Receipts that could not be written.
    pub receipts_lost: u64,
}

/// A member.
#[derive(Clone, Debug, PartialEq)]
pub struct WorkerView {
    /// Its key.
    pub id: WorkerId,
    pub device: String,
    /// What it does at present, as a sentence.
    pub doing: String,
    /// Memory that it may use.
    pub memory_bytes: u64,
    /// Multiply-adds a second, as measured.
    pub macs_per_second: u64,
}

/// The stages of one pipeline, and how busy they are.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PipelineView {
    /// The plan's epoch.
    pub epoch: u32,
    /// Whether it computes.
    pub running: bool,
    /// Generations that hold pages.
    pub active: u32,
    /// Generations that wait.
    pub waiting: u32,
    /// Pages in use, those of the prefix cache not counted.
    pub pages_used: u32,
    /// Pages that only the prefix cache holds.
    pub pages_cached: u32,
    pub pages: u32,
    /// Prompt tokens of all generations, whether in the prefix cache or not.
    pub prefix_queries: u64,
    /// Prompt tokens that came out of the prefix cache.
    pub prefix_hits: u64,
    /// Generations that lost their pages to others and started anew.
    pub preemptions: u64,
    /// Tokens drawn.
    pub tokens: u64,
    /// Tokens drawn a second, over the last seconds.
    pub tokens_per_second: f64,
    /// The stages, in order.
    pub stages: Vec<StageView>,
}

/// One stage of a pipeline, and who holds it.
#[derive(Clone, Debug, PartialEq)]
pub struct StageView {
    /// Who holds it.
    pub worker: WorkerId,
    pub device: String,
    pub layers: Layers,
    /// Passes done.
    pub passes: u64,
    /// Rows done.
    pub rows: u64,
    /// Seconds that passes waited here.
    pub queue_seconds: f64,
    /// Seconds of computing.
    pub compute_seconds: f64,
    /// Seconds without work.
    pub wait_seconds: f64,
    /// The link to the next stage.
    pub link: LinkView,
}

/// A link to the next stage.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LinkView {
    /// Bytes sent.
    pub bytes: u64,
    /// Seconds on the wire.
    pub wire_seconds: f64,
}
