//! What auditors have yet to open, and what they draw.

use std::collections::BTreeSet;
use std::sync::Arc;

use concord_proto::{Digest, Signed, WorkerId};
use concord_verify::training::bundle::StepClaims;

use super::Time;
use super::audits::{AuditedLeaves, SignedStep};
use super::planned_step::PlannedStep;

/// A committed attempt that auditors are to draw from.
pub(super) struct PendingAttempt {
    pub(super) at: PlannedStep,
    pub(super) claims: Arc<StepClaims>,
    /// What its workers have signed, for whoever lies about it.
    pub(super) signed: Arc<SignedStep>,
    /// What its workers are asked for.
    pub(super) audited: AuditedLeaves,
    pub(super) committed: Signed,
    pub(super) entry: Digest,
    pub(super) awaited: BTreeSet<WorkerId>,
    pub(super) since: Time,
}

/// What one auditor draws from one attempt.
pub(super) struct SecretDraw {
    pub(super) auditor: WorkerId,
    pub(super) attempt: u32,
    pub(super) secret: Digest,
    pub(super) entry: Digest,
    pub(super) rate: u64,
}
