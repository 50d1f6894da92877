//! Moments of the optimizer as content-addressed blobs: of f32 as any tensor, of 8 bits as header
//! and words.

use std::sync::Arc;

use concord_kernels::{KernelError, MomentKind, PackedMoment};
use concord_models::train::{Moment, MomentForm};
use concord_proto::moment::{MOMENT_MARK, MomentHeader};
use concord_proto::{Digest, Domain};

use crate::tensor_blob;

fn header(moment: &PackedMoment) -> MomentHeader {
    MomentHeader {
        is_second: moment.kind() == MomentKind::Second,
        shape: moment.shape().iter().map(|&dim| dim as u64).collect(),
    }
}

/// The address of a moment. One that lies on a GPU is hashed there.
///
/// # Errors
/// [`KernelError::Cuda`] where a GPU fails.
pub fn digest(moment: &Moment) -> Result<Digest, KernelError> {
    match moment {
        Moment::F32(numbers) => tensor_blob::digest(numbers),
        Moment::Packed(moment) => {
            let key = Domain::Blob.context_key();
            Ok(Digest(
                moment.derived_digest(&key, &header(moment).prefix())?,
            ))
        }
    }
}

/// The blob of a moment, which is fetched where it lies on a GPU.
///
/// # Errors
/// [`KernelError::Cuda`] where a GPU fails.
pub fn encode(moment: &Moment) -> Result<Vec<u8>, KernelError> {
    match moment {
        Moment::F32(numbers) => tensor_blob::encode(numbers),
        Moment::Packed(moment) => Ok(header(moment).blob(bytemuck::cast_slice(&moment.words()?))),
    }
}

/// Bytes of [`encode`].
pub fn encoded_len(moment: &Moment) -> u64 {
    match moment {
        Moment::F32(numbers) => tensor_blob::encoded_len(numbers),
        Moment::Packed(moment) => {
            let header = header(moment);
            header.prefix().len() as u64 + header.word_bytes().unwrap_or(0)
        }
    }
}

/// The moment on the host: itself, or a copy of what lies on a GPU.
///
/// # Errors
/// [`KernelError::Cuda`] where a GPU fails.
pub(crate) fn on_host(moment: &Moment) -> Result<Moment, KernelError> {
    Ok(match moment {
        Moment::F32(numbers) => Moment::F32(tensor_blob::on_host(numbers)?),
        Moment::Packed(moment) if moment.is_on_host() => Moment::Packed(moment.clone()),
        Moment::Packed(moment) => Moment::Packed(Arc::new((**moment).clone().into_host()?)),
    })
}

/// The moment `kind` of a tensor of `shape`, from a blob of a store.
///
/// # Errors
/// A sentence, where the blob is no moment, or another one than `form`, `kind` and `shape` say.
pub fn decode_stored(
    blob: &[u8],
    form: MomentForm,
    kind: MomentKind,
    shape: &[u64],
) -> Result<Moment, String> {
    let moment = match form.is_packed() {
        true => packed(blob)?,
        false => {
            let numbers = tensor_blob::decode_stored(blob, shape.iter().product())?;
            Moment::F32(Arc::new(numbers))
        }
    };
    check(&moment, form, kind, shape)?;
    Ok(moment)
}

/// The moment of a blob that a worker sent, which says itself in which form it is.
///
/// # Errors
/// A sentence, where the blob is no moment.
pub fn decode(blob: &[u8]) -> Result<Moment, String> {
    match blob.starts_with(&MOMENT_MARK) {
        true => packed(blob),
        false => Ok(Moment::F32(Arc::new(tensor_blob::decode(blob)?))),
    }
}

fn packed(blob: &[u8]) -> Result<Moment, String> {
    let (header, words) = MomentHeader::split(blob)?;
    let kind = match header.is_second {
        false => MomentKind::First,
        true => MomentKind::Second,
    };
    let shape: Vec<usize> = header.shape.iter().map(|&dim| dim as usize).collect();
    let words = words
        .as_chunks()
        .0
        .iter()
        .map(|word| u32::from_le_bytes(*word));
    let moment = PackedMoment::new(kind, &shape, words.collect());
    let moment = moment.map_err(|error| error.to_string())?;
    Ok(Moment::Packed(Arc::new(moment)))
}

/// Checks that a moment is the one that is due.
///
/// # Errors
/// A sentence, where it is another one.
pub fn check(
    moment: &Moment,
    form: MomentForm,
    kind: MomentKind,
    shape: &[u64],
) -> Result<(), String> {
    let (is_packed, found) = match moment {
        Moment::F32(numbers) => (false, numbers.shape()),
        Moment::Packed(moment) => (true, moment.shape()),
    };
    match (is_packed, form.is_packed()) {
        (true, false) => return Err("it is a moment in 8 bits, and not in f32".to_string()),
        (false, true) => return Err("it is a moment in f32, and not in 8 bits".to_string()),
        _ => {}
    }
    if matches!(moment, Moment::Packed(moment) if moment.kind() != kind) {
        return Err("it is the other moment".to_string());
    }
    let shape = if form.keeps(kind) { shape } else { &[0] };
    match found
        .iter()
        .map(|&dim| dim as u64)
        .eq(shape.iter().copied())
    {
        true => Ok(()),
        false => Err(format!("it has the shape {found:?}, and not {shape:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KINDS: [MomentKind; 2] = [MomentKind::First, MomentKind::Second];

    #[test]
    fn moments_come_back_and_have_the_address_of_their_bytes() {
        for form in [MomentForm::F32, MomentForm::Bits8, MomentForm::FirstBits8] {
            for kind in KINDS {
                let moment = Moment::zeros(form, kind, &[3, 100]);
                let blob = encode(&moment).unwrap();
                assert_eq!(blob.len() as u64, encoded_len(&moment));
                assert_eq!(
                    digest(&moment).unwrap(),
                    concord_proto::tensor::address_of(&blob)
                );
                assert_eq!(decode(&blob).unwrap(), moment);
                let stored = decode_stored(&blob, form, kind, &[3, 100]);
                assert_eq!(stored.unwrap(), moment);
            }
        }
    }

    #[test]
    fn what_is_not_the_moment_that_is_due_is_refused() {
        let [first, second] = KINDS.map(|kind| Moment::zeros(MomentForm::Bits8, kind, &[300]));
        let refused = |blob: &[u8], form, shape: &[u64]| {
            decode_stored(blob, form, MomentKind::First, shape).unwrap_err()
        };
        let of = |moment: &Moment| encode(moment).unwrap();
        let other = refused(&of(&second), MomentForm::Bits8, &[300]);
        assert_eq!(other, "it is the other moment");
        let shape = refused(&of(&first), MomentForm::Bits8, &[30, 10]);
        assert!(shape.contains("[300], and not [30, 10]"), "{shape}");
        assert!(refused(&of(&first), MomentForm::F32, &[300]).contains("no tensor"));
        let wide = Moment::zeros(MomentForm::F32, MomentKind::First, &[300]);
        assert!(refused(&of(&wide), MomentForm::Bits8, &[300]).contains("no moment in 8 bits"));
        let mut infinite = of(&first);
        let scale = infinite.len() - 4 * (1 + 64 + 1 + 11);
        infinite[scale..scale + 4].copy_from_slice(&f32::INFINITY.to_le_bytes());
        assert!(refused(&infinite, MomentForm::Bits8, &[300]).contains("the scale inf"));
        let due = check(&first, MomentForm::F32, MomentKind::First, &[300]).unwrap_err();
        assert_eq!(due, "it is a moment in 8 bits, and not in f32");
    }
}
