//! A pass on its way from one stage to the next: a signed header, then rows of f32.

use concord_proto::limits::CHUNK_BYTES;
use concord_proto::serving::{PassHeader, SequenceRun, row_digest};
use concord_proto::wire::Frame;
use concord_proto::{Digest, canonical};

use super::seat::Seat;

#[cfg(target_endian = "big")]
compile_error!("rows are sent as they lie in memory: little-endian machines only");

/// A pass that has arrived, checked.
#[derive(Debug)]
pub(crate) struct ReceivedPass {
    pub(crate) header: PassHeader,
    /// Hidden states, row after row.
    pub(crate) rows: Vec<f32>,
}

/// Why a pass is refused.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FrameError {
    /// It does not come from the stage before; whoever sent it.
    #[error("not from the stage before: {0}")]
    Stranger(String),
    /// The stage before has signed it, and it is wrong.
    #[error("the stage before sent a wrong pass: {0}")]
    Wrong(String),
}

/// Puts the pieces of passes together.
pub(crate) struct FrameReader<'a> {
    seat: &'a Seat,
    partial: Option<(PassHeader, Vec<u8>, usize)>,
}

impl<'a> FrameReader<'a> {
    /// A reader for what comes to a seat.
    pub(crate) fn new(seat: &'a Seat) -> Self {
        Self {
            seat,
            partial: None,
        }
    }

    /// Takes a piece; gives header and bytes of a pass that is whole.
    ///
    /// # Errors
    /// [`FrameError`]: nothing more can be read.
    pub(crate) fn take(
        &mut self,
        piece: Frame,
    ) -> Result<Option<(PassHeader, Vec<u8>)>, FrameError> {
        let stranger = |why: &str| FrameError::Stranger(why.to_string());
        if piece.header.is_empty() {
            let partial = self.partial.as_mut();
            let (_, bytes, _) = partial.ok_or_else(|| stranger("data without a header"))?;
            bytes.extend_from_slice(&piece.data);
        } else {
            if self.partial.is_some() {
                return Err(stranger("a pass before the last one ended"));
            }
            let (header, len) = self.header(&piece.header)?;
            let mut bytes = piece.data;
            bytes.reserve_exact(len.saturating_sub(bytes.len()));
            self.partial = Some((header, bytes, len));
        }
        let (_, bytes, len) = self.partial.as_ref().expect("just seen");
        match bytes.len().cmp(len) {
            std::cmp::Ordering::Less => Ok(None),
            std::cmp::Ordering::Equal => {
                let whole = self.partial.take();
                Ok(whole.map(|(header, bytes, _)| (header, bytes)))
            }
            std::cmp::Ordering::Greater => Err(stranger("more data than the header says")),
        }
    }

    /// The header of a pass for this seat, from the stage before; and the bytes that follow.
    fn header(&self, bytes: &[u8]) -> Result<(PassHeader, usize), FrameError> {
        let seat = self.seat;
        let decoded = canonical::decode::<PassHeader>(bytes);
        let header = decoded.map_err(|error| FrameError::Stranger(error.to_string()))?;
        let stranger = |why: String| Err(FrameError::Stranger(why));
        if seat.previous != Some(header.origin.worker) {
            return stranger(format!("it is of {}", header.origin.worker.short()));
        }
        if (header.deployment, header.epoch) != (seat.id, seat.epoch) {
            return stranger(format!("it is for epoch {}", header.epoch));
        }
        if !header.is_signed() {
            return stranger("its signature does not fit".to_string());
        }
        let rows = header.rows.len();
        let checked = seat.check_runs(&header.runs, rows);
        let len = checked.and_then(|()| seat.row_bytes(rows));
        Ok((header, len.map_err(FrameError::Wrong)?))
    }
}

/// Checks the rows of a pass against its header.
///
/// # Errors
/// [`FrameError::Wrong`] for other rows than those that were signed, and for a NaN or an infinity.
pub(crate) fn check(
    header: PassHeader,
    bytes: &[u8],
    hidden: usize,
) -> Result<ReceivedPass, FrameError> {
    let mut rows = vec![0.0f32; bytes.len() / 4];
    bytemuck::cast_slice_mut(&mut rows).copy_from_slice(bytes);
    for (index, (row, digest)) in rows.chunks_exact(hidden).zip(&header.rows).enumerate() {
        if row_digest(row) != *digest {
            let why = format!("row {index} is not what it signed");
            return Err(FrameError::Wrong(why));
        }
        if row.iter().any(|value| !value.is_finite()) {
            let why = format!("row {index} has a NaN or an infinity");
            return Err(FrameError::Wrong(why));
        }
    }
    Ok(ReceivedPass { header, rows })
}

/// The pieces of a pass. A small one is a single piece.
pub(crate) fn pieces(header: &PassHeader, rows: &[f32]) -> impl Iterator<Item = Frame> {
    let mut head = canonical::encode(header);
    bytemuck::cast_slice::<f32, u8>(rows)
        .chunks(CHUNK_BYTES)
        .map(move |data| Frame {
            header: std::mem::take(&mut head),
            data: data.to_vec(),
        })
}

/// The digests of rows of `hidden` features.
pub(crate) fn digests(rows: &[f32], hidden: usize) -> Vec<Digest> {
    rows.chunks_exact(hidden).map(row_digest).collect()
}

/// The rows of each run, `[start, end)`.
pub(crate) fn ranges(runs: &[SequenceRun]) -> impl Iterator<Item = std::ops::Range<usize>> {
    let mut end = 0;
    runs.iter().map(move |run| {
        let start = end;
        end += run.count as usize;
        start..end
    })
}

#[cfg(test)]
mod tests {
    use concord_proto::{Keypair, Origin};

    use super::super::seat::tests::{run, seat};
    use super::*;

    fn key() -> Keypair {
        Keypair::from_secret([7; 32])
    }

    fn from_previous() -> Seat {
        Seat {
            previous: Some(key().public()),
            ..seat()
        }
    }

    fn signed(seat: &Seat, by: &Keypair, runs: Vec<SequenceRun>, rows: &[f32]) -> PassHeader {
        let rows = digests(rows, seat.hidden);
        let message = PassHeader::message(&seat.id, seat.epoch, 0, &runs, &rows);
        PassHeader {
            deployment: seat.id,
            epoch: seat.epoch,
            pass: 0,
            runs,
            rows,
            origin: Origin::sign(by, &message),
        }
    }

    fn read(seat: &Seat, header: &PassHeader, rows: &[f32]) -> Result<ReceivedPass, FrameError> {
        let mut reader = FrameReader::new(seat);
        for piece in pieces(header, rows) {
            if let Some((header, bytes)) = reader.take(piece)? {
                return check(header, &bytes, seat.hidden);
            }
        }
        Err(FrameError::Stranger("cut short".into()))
    }

    #[test]
    fn a_pass_arrives_as_it_was_sent() {
        let seat = from_previous();
        let rows = [1.0f32, -2.5, 3.0, 0.0, 5.0, 6.0, 7.0, 8.0];
        let header = signed(&seat, &key(), vec![run(1, 0, 2, &[0])], &rows);
        let received = read(&seat, &header, &rows).unwrap();
        assert_eq!((received.header, &received.rows[..]), (header, &rows[..]));
    }

    #[test]
    fn large_passes_come_in_pieces() {
        let seat = Seat {
            hidden: 4_096,
            ..from_previous()
        };
        let rows: Vec<f32> = (0..100 * 4_096).map(|n| n as f32).collect();
        let header = signed(&seat, &key(), vec![run(1, 0, 100, &[0])], &rows);
        assert_eq!(pieces(&header, &rows).count(), 2);
        assert_eq!(read(&seat, &header, &rows).unwrap().rows, rows);
        let mut reader = FrameReader::new(&seat);
        let first = pieces(&header, &rows).next().unwrap();
        assert_eq!(reader.take(first.clone()), Ok(None));
        assert!(reader.take(first).is_err(), "a header inside a pass");
    }

    #[test]
    fn tampered_passes_are_refused() {
        let seat = from_previous();
        let rows = [1.0f32, 2.0, 3.0, 4.0];
        let runs = || vec![run(1, 0, 1, &[0])];
        let good = signed(&seat, &key(), runs(), &rows);
        assert!(read(&seat, &good, &rows).is_ok());

        let stranger = Keypair::from_secret([8; 32]);
        let mut altered = good.clone();
        altered.pass = 1;
        let mut old = signed(&seat, &key(), runs(), &rows);
        old.epoch -= 1;
        for header in [signed(&seat, &stranger, runs(), &rows), altered, old] {
            let refused = read(&seat, &header, &rows);
            assert!(
                matches!(refused, Err(FrameError::Stranger(_))),
                "{refused:?}"
            );
        }
        let other = [1.0f32, 2.0, 3.0, 5.0];
        let nan = [1.0f32, f32::NAN, 3.0, 4.0];
        for (header, rows) in [
            (good.clone(), &other),
            (signed(&seat, &key(), runs(), &nan), &nan),
            (
                signed(&seat, &key(), vec![run(1, 0, 2, &[0])], &rows),
                &rows,
            ),
            (
                signed(&seat, &key(), vec![run(1, 0, 1, &[99])], &rows),
                &rows,
            ),
        ] {
            let refused = read(&seat, &header, rows);
            assert!(matches!(refused, Err(FrameError::Wrong(_))), "{refused:?}");
        }
        let long = [0.0f32; 8];
        assert!(read(&seat, &good, &long).is_err(), "too much data");
        assert!(read(&seat, &good, &rows[..3]).is_err(), "too little data");
    }

    #[test]
    fn garbage_is_refused() {
        let seat = from_previous();
        let take = |header: &[u8], data: &[u8]| {
            let (header, data) = (header.to_vec(), data.to_vec());
            FrameReader::new(&seat).take(Frame { header, data })
        };
        assert!(take(&[], &[1, 2]).is_err());
        assert!(take(&[0xff; 100], &[]).is_err());
        let rows = [0.0f32; 4];
        let good = signed(&seat, &key(), vec![run(1, 0, 1, &[0])], &rows);
        let bytes = canonical::encode(&good);
        for cut in 1..bytes.len() {
            assert!(take(&bytes[..cut], &[]).is_err());
        }
        assert!(take(&[&bytes[..], &[0]].concat(), &[]).is_err());
    }
}
