//! Who asks.

use concord_proto::PublicKey;

/// A client that asks, and how far it is trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asker {
    /// The key of its connection.
    pub key: PublicKey,
    /// Whether it is an admin of this coordinator, who sees and stops the jobs of all.
    pub is_admin: bool,
}

impl Asker {
    /// Whether it sees a job of these submitters.
    pub(super) fn sees(&self, submitters: &[PublicKey]) -> bool {
        self.is_admin || submitters.contains(&self.key)
    }

    /// Whether it may stop such a job, or say how it is run: the first who has submitted it.
    pub(super) fn rules(&self, submitters: &[PublicKey]) -> bool {
        self.is_admin || submitters.first() == Some(&self.key)
    }
}
