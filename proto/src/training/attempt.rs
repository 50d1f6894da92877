//! An attempt at a step, as claims and tensors name it.

use borsh::{BorshDeserialize, BorshSerialize};

use crate::crypto::Digest;

/// An attempt at a step, by its [`Started`](crate::ledger::LedgerEvent::Started). Its digest binds
/// all entries before it, so who signs it is a witness of that history.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct AttemptId {
    /// Counted from 0 over the whole job.
    pub number: u32,
    /// [`entry_digest`](crate::ledger::entry_digest) of its entry.
    pub entry: Digest,
}
