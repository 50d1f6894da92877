//! The coordinator: it plans, commits steps, has them audited and keeps the proof. It holds no
//! tensor and links no kernel: it plans from a model's profile and judges by digests.

pub mod blobs;
pub mod core;
pub mod planner;
pub mod server;
pub mod serving;
pub mod store;
