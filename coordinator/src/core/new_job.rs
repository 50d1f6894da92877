//! A job as it comes in.

use concord_proto::PublicKey;
use concord_proto::client::Submission;
use concord_proto::manifest::{DataManifest, StateManifest};

/// A job, with the manifests that its spec names.
#[derive(Clone, Debug)]
pub struct NewJob {
    /// What the client sent.
    pub submission: Submission,
    /// Who has submitted it, the first who rules it in front. Empty for jobs of coordinators that
    /// did not ask.
    pub submitters: Vec<PublicKey>,
    /// The manifest behind [`concord_proto::JobSpec::data`].
    pub data: DataManifest,
    /// The manifest behind [`concord_proto::JobSpec::initial_state`].
    pub initial: StateManifest,
}
