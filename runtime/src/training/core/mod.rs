//! The worker's decisions, without clock, sockets or device: which microbatch is next, and whose
//! gradients go to whom.

mod exchange;
mod schedule;

pub use exchange::{Exchange, PartKey, consumers};
pub use schedule::{MicrobatchSchedule, MicrobatchTask};
