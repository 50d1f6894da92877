//! A stage that serves: loaded layers, their pages, and the thread that owns the device.

mod binding;
mod bound;
mod claim;
mod draw;
mod engine;
#[cfg(test)]
pub(crate) mod fixtures;
mod load;
mod memory;
mod pass;
mod row_log;
mod rows;

pub(crate) use binding::StageBinding;
pub(crate) use bound::BoundStage;
pub(crate) use draw::{drawable, logits, sampling, with_logprobs};
pub(crate) use engine::{ServingEngine, StageEvent, StageEventKind};
pub(crate) use load::{
    ServedStage, ServedStages, StageLoader, adapter_tensors, fetch_model, on_a_thread,
    stage_options,
};
pub(crate) use memory::page_bytes;
pub(crate) use rows::{OutgoingPass, ReceivedPass, digests};
