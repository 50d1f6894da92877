//! Decides who is wrong where two neighbours claim different things, by the headers that the sender
//! signed when it sent the rows.

use std::collections::BTreeMap;

use concord_proto::serving::{DeploymentId, PAGE_TOKENS, PassHeader};
use concord_proto::{Digest, WorkerId, merkle};

/// Who is at fault, as the headers show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EdgeFault {
    /// The sender signed what the receiver claims, and now claims something else.
    Sender,
    /// The sender signed something else than what the receiver claims.
    Receiver,
    /// Rows are missing, or headers are not the sender's.
    Unclear,
}

/// Two neighbours who claim different things about the rows that passed between them.
#[derive(Clone, Copy, Debug)]
pub struct EdgeDispute<'a> {
    pub deployment: DeploymentId,
    /// The plan's epoch.
    pub epoch: u32,
    /// Who sent the rows.
    pub sender: WorkerId,
    /// Pages of the sequence, in order.
    pub pages: &'a [u32],
    /// Positions of the sequence.
    pub positions: u32,
    /// The root over the rows that the receiver claims to have received.
    pub claimed: Digest,
}

impl EdgeDispute<'_> {
    /// Decides by `headers`, which the receiver supplied. Those that the sender did not sign for
    /// this plan are ignored.
    pub fn decide(&self, headers: &[PassHeader]) -> EdgeFault {
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
            None => EdgeFault::Unclear,
            Some(all) if merkle::root(&all) == self.claimed => EdgeFault::Sender,
            Some(_) => EdgeFault::Receiver,
        }
    }
}

#[cfg(test)]
mod tests {
    use concord_proto::serving::SequenceRun;
    use concord_proto::{Domain, Keypair, Origin};

    use super::*;

    const ID: DeploymentId = DeploymentId(Digest([5; 32]));

    fn row(position: u32) -> Digest {
        Digest::of_value(Domain::Row, &position)
    }

    fn header(key: &Keypair, pass: u64, pages: &[u32], rows: &[(u32, Digest)]) -> PassHeader {
        let runs = rows.iter().map(|(position, _)| SequenceRun {
            sequence: pass,
            first: *position,
            count: 1,
            pages: pages.to_vec(),
            adapter: None,
        });
        let runs: Vec<SequenceRun> = runs.collect();
        let rows: Vec<Digest> = rows.iter().map(|(_, row)| *row).collect();
        let message = PassHeader::message(&ID, 3, pass, &runs, &rows);
        PassHeader {
            deployment: ID,
            epoch: 3,
            pass,
            runs,
            rows,
            origin: Origin::sign(key, &message),
        }
    }

    /// Of 130 positions in pages 4 and 9.
    fn dispute(sender: &Keypair, claimed: Digest) -> EdgeDispute<'static> {
        EdgeDispute {
            deployment: ID,
            epoch: 3,
            sender: sender.public(),
            pages: &[4, 9],
            positions: 130,
            claimed,
        }
    }

    fn all() -> Vec<(u32, Digest)> {
        (0..130).map(|position| (position, row(position))).collect()
    }

    #[test]
    fn what_the_sender_signed_tells_who_is_wrong() {
        let sender = Keypair::from_secret([1; 32]);
        let rows: Vec<Digest> = (0..130).map(row).collect();
        let (right, wrong) = (merkle::root(&rows), Digest([8; 32]));
        // The first page came with another sequence, and in parts.
        let (first, second) = (&all()[..100], &all()[100..]);
        let headers = [
            header(&sender, 1, &[4], &first[..60]),
            header(&sender, 2, &[4], &first[60..]),
            header(&sender, 7, &[4, 9], second),
        ];
        assert_eq!(dispute(&sender, right).decide(&headers), EdgeFault::Sender);
        assert_eq!(
            dispute(&sender, wrong).decide(&headers),
            EdgeFault::Receiver
        );
        assert_eq!(
            dispute(&sender, right).decide(&headers[1..]),
            EdgeFault::Unclear
        );
        assert_eq!(dispute(&sender, right).decide(&[]), EdgeFault::Unclear);
    }

    #[test]
    fn only_what_the_sender_signed_for_the_plan_counts() {
        let (sender, other) = (Keypair::from_secret([1; 32]), Keypair::from_secret([2; 32]));
        let root = merkle::root(&(0..130).map(row).collect::<Vec<_>>());
        let good = header(&sender, 1, &[4, 9], &all());
        let mut altered = good.clone();
        altered.rows[3] = row(999);
        let mut late = good.clone();
        late.epoch = 4;
        for bad in [altered, late, header(&other, 1, &[4, 9], &all())] {
            assert_eq!(dispute(&sender, root).decide(&[bad]), EdgeFault::Unclear);
        }
        // Rows in other pages belong to another sequence.
        let elsewhere = header(&sender, 1, &[4, 8], &all());
        assert_eq!(
            dispute(&sender, root).decide(&[elsewhere]),
            EdgeFault::Unclear
        );
        // Of two rows at one place the one from the later pass counts, in whatever order they come.
        let before = header(&sender, 0, &[4, 9], &[(3, row(999))]);
        for headers in [[before.clone(), good.clone()], [good, before]] {
            assert_eq!(dispute(&sender, root).decide(&headers), EdgeFault::Sender);
        }
    }
}
