//! A coordinator in one hand with all workers, and an honest auditor that looks at what they show
//! it. The core does not lie, so here its ledger is written without it, by one who knows everything
//! but the secrets that are not open yet. What the proof prints is compared with what the auditor
//! could see.

mod bench;
mod collusion;
mod draft;
mod forgeries;
mod watchman;

pub use collusion::{CollusionCounts, CollusionRow, Ruse, collude};
pub use forgeries::{ForgedCounts, Shown, forge};
