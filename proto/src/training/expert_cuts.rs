//! Layers that are cut between their experts, as far as a planner must know of them.

use borsh::{BorshDeserialize, BorshSerialize};

/// What a planner needs to know to cut layers between their experts.
#[derive(Clone, Debug, Default, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct ExpertCuts {
    /// Experts of a layer; 0 where it cannot be cut.
    pub experts: u32,
    /// Bytes that one of them takes of what a layer takes in memory.
    pub expert_bytes: u64,
    /// Bytes that its values, moments and gradients take of those of a layer, where it is trained.
    pub expert_state_bytes: u64,
    /// Bytes that pass over such a cut, of a microbatch or, where a model is served, of a token.
    pub boundary_bytes: u64,
}
