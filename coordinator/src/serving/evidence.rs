//! Two neighbours claim different things: what the sender signed at the time shows who is wrong.

use std::collections::BTreeMap;

use concord_proto::serving::{DeploymentId, PAGE_TOKENS, PassHeader};
use concord_proto::{Digest, WorkerId, merkle};

/// What the headers show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shown {
    /// The sender has signed what the receiver claims, and claims another thing.
    Sender,
    /// The sender has signed something else than what the receiver claims.
    Receiver,
    /// Rows are missing, or headers are not the sender's.
    Nothing,
}

/// What was asked for.
pub(super) struct Dispute<'a> {
    pub(super) deployment: DeploymentId,
    pub(super) epoch: u32,
    pub(super) sender: WorkerId,
    /// Pages of the sequence, in order.
    pub(super) pages: &'a [u32],
    pub(super) positions: u32,
    /// What the receiver claims to have received.
    pub(super) claimed: Digest,
}

impl Dispute<'_> {
    /// Judges by `headers`, which the receiver has given out.
    pub(super) fn judge(&self, headers: &[PassHeader]) -> Shown {
        let mut rows: BTreeMap<(u32, u32), (u64, Digest)> = BTreeMap::new();
        for header in headers {
            let fits = header.deployment == self.deployment
                && header.epoch == self.epoch
                && header.origin.worker == self.sender
                && header.is_signed();
            if !fits {
                continue;
            }
            let mut at = 0;
            for run in &header.runs {
                for position in run.first..run.first.saturating_add(run.count) {
                    let Some(row) = header.rows.get(at) else {
                        break;
                    };
                    at += 1;
                    let page = run.pages.get((position / PAGE_TOKENS) as usize);
                    let Some(page) = page else {
                        continue;
                    };
                    // The last pass that wrote a row counts.
                    let place = (*page, position);
                    let known = rows.get(&place).map_or(0, |(pass, _)| *pass);
                    if header.pass >= known {
                        rows.insert(place, (header.pass, *row));
                    }
                }
            }
        }
        let row = |position: u32| {
            let page = self.pages.get((position / PAGE_TOKENS) as usize)?;
            rows.get(&(*page, position)).map(|(_, row)| *row)
        };
        let all: Option<Vec<Digest>> = (0..self.positions).map(row).collect();
        match all {
            None => Shown::Nothing,
            Some(all) if merkle::root(&all) == self.claimed => Shown::Sender,
            Some(_) => Shown::Receiver,
        }
    }
}
