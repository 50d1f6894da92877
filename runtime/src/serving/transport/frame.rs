//! A pass on its way from one stage to the next: a signed header, then rows of f32.

use concord_proto::canonical;
use concord_proto::limits::CHUNK_BYTES;
use concord_proto::serving::{PassHeader, row_digest};
use concord_proto::wire::Frame;

use crate::serving::stage::{ReceivedPass, StageBinding};

#[cfg(target_endian = "big")]
compile_error!("rows are sent as they lie in memory: little-endian machines only");

/// Why a pass is refused.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FrameError {
    /// It does not come from the stage before.
    #[error("not from the stage before: {0}")]
    Stranger(String),
    /// The stage before has signed it, and it is wrong.
    #[error("the stage before sent a wrong pass: {0}")]
    Wrong(String),
}

/// Puts the pieces of passes together.
pub(crate) struct FrameReader<'a> {
    binding: &'a StageBinding,
    partial: Option<(PassHeader, Vec<u8>, usize)>,
}

impl<'a> FrameReader<'a> {
    /// A reader for what comes to a binding.
    pub(crate) fn new(binding: &'a StageBinding) -> Self {
        Self {
            binding,
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

    /// The header of a pass for this binding, from the stage before; and the bytes that follow.
    fn header(&self, bytes: &[u8]) -> Result<(PassHeader, usize), FrameError> {
        let binding = self.binding;
        let decoded = canonical::decode::<PassHeader>(bytes);
        let header = decoded.map_err(|error| FrameError::Stranger(error.to_string()))?;
        let stranger = |why: String| Err(FrameError::Stranger(why));
        if binding.previous != Some(header.origin.worker) {
            return stranger(format!("it is of {}", header.origin.worker.short()));
        }
        if (header.deployment, header.epoch) != (binding.id, binding.epoch) {
            return stranger(format!("it is for epoch {}", header.epoch));
        }
        if !header.is_signed() {
            return stranger("its signature does not fit".to_string());
        }
        let rows = header.rows.len();
        let checked = binding.check_runs(&header.runs, rows);
        let len = checked.and_then(|()| binding.row_bytes(rows));
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
    columns: usize,
) -> Result<ReceivedPass, FrameError> {
    let mut rows = vec![0.0f32; bytes.len() / 4];
    bytemuck::cast_slice_mut(&mut rows).copy_from_slice(bytes);
    for (index, (row, digest)) in rows.chunks_exact(columns).zip(&header.rows).enumerate() {
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

#[cfg(test)]
mod tests {
    use concord_proto::serving::SequenceRun;
    use concord_proto::{Keypair, Origin};

    use super::*;
    use crate::serving::stage::digests;
    use crate::serving::stage::fixtures::{binding, run};

    fn key() -> Keypair {
        Keypair::from_secret([7; 32])
    }

    fn from_previous() -> StageBinding {
        StageBinding {
            previous: Some(key().public()),
            ..binding()
        }
    }

    fn signed(
        binding: &StageBinding,
        by: &Keypair,
        runs: Vec<SequenceRun>,
        rows: &[f32],
    ) -> PassHeader {
        let rows = digests(rows, binding.entering);
        let message = PassHeader::message(&binding.id, binding.epoch, 0, &runs, &rows);
        PassHeader {
            deployment: binding.id,
            epoch: binding.epoch,
            pass: 0,
            runs,
            rows,
            origin: Origin::sign(by, &message),
        }
    }

    fn read(
        binding: &StageBinding,
        header: &PassHeader,
        rows: &[f32],
    ) -> Result<ReceivedPass, FrameError> {
        let mut reader = FrameReader::new(binding);
        for piece in pieces(header, rows) {
            if let Some((header, bytes)) = reader.take(piece)? {
                return check(header, &bytes, binding.entering);
            }
        }
        Err(FrameError::Stranger("cut short".into()))
    }

    #[test]
    fn a_pass_arrives_as_it_was_sent() {
        let binding = from_previous();
        let rows = [1.0f32, -2.5, 3.0, 0.0, 5.0, 6.0, 7.0, 8.0];
        let header = signed(&binding, &key(), vec![run(1, 0, 2, &[0])], &rows);
        let received = read(&binding, &header, &rows).unwrap();
        assert_eq!((received.header, &received.rows[..]), (header, &rows[..]));
    }

    #[test]
    fn large_passes_come_in_pieces() {
        let binding = StageBinding {
            entering: 4_096,
            ..from_previous()
        };
        let rows: Vec<f32> = (0..100 * 4_096).map(|n| n as f32).collect();
        let header = signed(&binding, &key(), vec![run(1, 0, 100, &[0])], &rows);
        assert_eq!(pieces(&header, &rows).count(), 2);
        assert_eq!(read(&binding, &header, &rows).unwrap().rows, rows);
        let mut reader = FrameReader::new(&binding);
        let first = pieces(&header, &rows).next().unwrap();
        assert_eq!(reader.take(first.clone()), Ok(None));
        assert!(reader.take(first).is_err(), "a header inside a pass");
    }

    #[test]
    fn tampered_passes_are_refused() {
        let binding = from_previous();
        let rows = [1.0f32, 2.0, 3.0, 4.0];
        let runs = || vec![run(1, 0, 1, &[0])];
        let good = signed(&binding, &key(), runs(), &rows);
        assert!(read(&binding, &good, &rows).is_ok());

        let stranger = Keypair::from_secret([8; 32]);
        let mut altered = good.clone();
        altered.pass = 1;
        let mut old = signed(&binding, &key(), runs(), &rows);
        old.epoch -= 1;
        for header in [signed(&binding, &stranger, runs(), &rows), altered, old] {
            let refused = read(&binding, &header, &rows);
            assert!(
                matches!(refused, Err(FrameError::Stranger(_))),
                "{refused:?}"
            );
        }
        let other = [1.0f32, 2.0, 3.0, 5.0];
        let nan = [1.0f32, f32::NAN, 3.0, 4.0];
        for (header, rows) in [
            (good.clone(), &other),
            (signed(&binding, &key(), runs(), &nan), &nan),
            (
                signed(&binding, &key(), vec![run(1, 0, 2, &[0])], &rows),
                &rows,
            ),
            (
                signed(&binding, &key(), vec![run(1, 0, 1, &[99])], &rows),
                &rows,
            ),
        ] {
            let refused = read(&binding, &header, rows);
            assert!(matches!(refused, Err(FrameError::Wrong(_))), "{refused:?}");
        }
        let long = [0.0f32; 8];
        assert!(read(&binding, &good, &long).is_err(), "too much data");
        assert!(
            read(&binding, &good, &rows[..3]).is_err(),
            "too little data"
        );
    }

    #[test]
    fn garbage_is_refused() {
        let binding = from_previous();
        let take = |header: &[u8], data: &[u8]| {
            let (header, data) = (header.to_vec(), data.to_vec());
            FrameReader::new(&binding).take(Frame { header, data })
        };
        assert!(take(&[], &[1, 2]).is_err());
        assert!(take(&[0xff; 100], &[]).is_err());
        let rows = [0.0f32; 4];
        let good = signed(&binding, &key(), vec![run(1, 0, 1, &[0])], &rows);
        let bytes = canonical::encode(&good);
        for cut in 1..bytes.len() {
            assert!(take(&bytes[..cut], &[]).is_err());
        }
        assert!(take(&[&bytes[..], &[0]].concat(), &[]).is_err());
    }
}
