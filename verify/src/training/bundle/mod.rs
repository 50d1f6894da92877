//! The proof of a job, in files, and its verification by anyone who has them.
//!
//! A bundle has seven files: what was to be done (`job.spec`, `data.manifest`, `state.initial`),
//! what came out (`chain.records`), who did it (`claims.steps`; of what is void, `claims.void`) and
//! how it was checked (`ledger.entries`). The entries of the ledger are signed by the coordinator
//! and name, directly or by digests of what they name, every byte of the other files: so [`verify`]
//! can tell which file does not hold, and needs no coordinator, no model and no arithmetic.
//!
//! ```
//! use concord_verify::training::bundle::Bundle;
//!
//! let error = Bundle::from_files(&[]).expect_err("its files are missing");
//! assert_eq!((error.file.as_str(), error.reason.as_str()), ("job.spec", "it is missing"));
//! ```

mod auditors;
mod audits;
mod chain;
mod convictions;
mod error;
mod files;
mod folder;
mod history;
mod report;
mod settled;
mod voided;

use std::collections::BTreeSet;

use borsh::{BorshDeserialize, BorshSerialize};
use concord_proto::manifest::{DataManifest, StateEntry, StateManifest};
use concord_proto::session::Scalars;
use concord_proto::{Claim, Course, JobSpec, Signed, StepRecord, WorkerId};

use super::WorkerClaim;
pub use error::{BundleError, VerifyError};
pub use files::{FILES, from_blob, to_blob};
pub use report::Report;
pub use settled::AuditorReport;

/// What the workers of a step signed, with the scalars that they computed from.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct StepClaims {
    pub step: u32,
    /// The losses and norms that the updates of the step were computed from.
    pub scalars: Scalars,
    /// The claims, in the plan's order.
    pub claims: Vec<WorkerClaim>,
}

/// What the workers of an attempt signed that was committed and is void.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VoidClaims {
    /// Its number.
    pub attempt: u32,
    /// The claims, in the plan's order.
    pub claims: Vec<WorkerClaim>,
}

/// The proof of a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bundle {
    /// What was to be done. Its digest is the job id.
    pub spec: JobSpec,
    /// The data, by the digests of its sequences.
    pub data: DataManifest,
    /// The trained state before the first step.
    pub initial_state: StateManifest,
    /// The chain of step records, one for each step.
    pub records: Vec<StepRecord>,
    /// The claims of each step, as they were committed last.
    pub claims: Vec<StepClaims>,
    /// The claims of void attempts, as far as they are there: they show what was drawn of them.
    pub voided: Vec<VoidClaims>,
    /// All entries of the job's ledger: signed [`concord_proto::ledger::LedgerEntry`]s.
    pub ledger: Vec<Signed>,
}

impl Bundle {
    /// The claims of the step whose state is the result of the job: the last one, or that of the
    /// best evaluation where the job keeps it. `None` without claims.
    pub fn result_claims(&self) -> Option<&StepClaims> {
        let losses = self.records.iter().map(|record| record.loss);
        let steps = Course::of(&self.spec, losses).result_steps(&self.spec);
        self.claims.get(steps.checked_sub(1)? as usize)
    }

    /// The state after `steps` steps of the chain, one entry for each trained tensor, as the claims
    /// have it. `None` where there is no such step, or, in a bundle that does not hold, no entry.
    pub fn state_after(&self, steps: u32) -> Option<Vec<StateEntry>> {
        let Some(last) = steps.checked_sub(1) else {
            return Some(self.initial_state.entries.clone());
        };
        let claims = self.claims.get(last as usize)?.claims.iter();
        let claims: Vec<Claim> = claims
            .map(|given| given.claim.open().ok())
            .collect::<Option<_>>()?;
        super::merged_state(&self.spec, &claims.iter().collect::<Vec<_>>())
    }
}

/// Checks a bundle: the job id, the chain of records, the signatures and numbering of the ledger,
/// that every step is covered by claims that fit together, that no finding against a leaf is open,
/// and that every conviction shows its offence, as far as that can be seen without computing. What
/// each checker has drawn and settled is derived again, and reported.
///
/// # Errors
/// [`VerifyError`] naming the file, the statement in it and, where one is at fault, the party.
pub fn verify(bundle: &Bundle) -> Result<Report, VerifyError> {
    verify_by(bundle, &BTreeSet::new())
}

/// As [`verify`], for a reader who believes these checkers: what one of them found wrong no
/// conviction takes back.
///
/// # Errors
/// As [`verify`].
pub fn verify_by(bundle: &Bundle, pinned: &BTreeSet<WorkerId>) -> Result<Report, VerifyError> {
    let history = history::History::of(&bundle.spec, &bundle.ledger)?;
    let steps = chain::check(bundle, &history)?;
    let shown = convictions::check(bundle, &history)?;
    audits::check(&history, &shown, &steps, pinned)?;
    let voided = voided::check(bundle, &history)?;
    let auditors = settled::report(&bundle.spec, &history, (&steps, &voided));
    Ok(report::of(bundle, &history, &steps, (&shown, auditors)))
}
