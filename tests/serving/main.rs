//! `concord serve` with real processes: answers that nothing changes, and receipts that can be
//! checked.

#[path = "../pool/mod.rs"]
mod pool;

mod answers;
mod chat_verify;
mod clients;
mod ends;
mod expert_cuts;
mod failover;
mod local;
mod page;
mod receipts;
mod server;
mod sources;
