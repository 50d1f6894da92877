//! Tensors as content-addressed blobs: dtype, shape, little-endian elements.

use concord_kernels::Tensor;
use concord_proto::manifest::{StoredDtype, TensorHeader};
use concord_proto::{Digest, canonical};
use half::{bf16, f16};

#[cfg(target_endian = "big")]
compile_error!("elements are hashed as they lie in memory: little-endian machines only");

fn header(tensor: &Tensor) -> TensorHeader {
    let shape = tensor.shape().iter().map(|&dim| dim as u64).collect();
    TensorHeader {
        dtype: StoredDtype::F32,
        shape,
    }
}

/// The address of a tensor.
pub fn digest(tensor: &Tensor) -> Digest {
    header(tensor).digest(bytemuck::cast_slice(tensor.data()))
}

/// The blob of a tensor.
pub fn encode(tensor: &Tensor) -> Vec<u8> {
    header(tensor).blob(bytemuck::cast_slice(tensor.data()))
}

/// Bytes of [`encode`].
pub fn encoded_len(tensor: &Tensor) -> u64 {
    (canonical::encode(&header(tensor)).len() + 4 * tensor.data().len()) as u64
}

/// The tensor of a blob, as f32.
///
/// # Errors
/// A sentence, where the blob is no tensor.
pub fn decode(blob: &[u8]) -> Result<Tensor, String> {
    let (header, elements) = TensorHeader::split(blob)?;
    widen(&header, elements)
}

/// The tensors of several blobs, one after another.
///
/// # Errors
/// A sentence, where the bytes are not whole tensors.
pub fn decode_all(mut bytes: &[u8]) -> Result<Vec<(Digest, Tensor)>, String> {
    let mut tensors = Vec::new();
    while !bytes.is_empty() {
        let (header, header_len) = TensorHeader::peek(bytes)?;
        let len = header
            .element_bytes()
            .ok_or("a tensor too large to count")?;
        let rest = &bytes[header_len..];
        let len = usize::try_from(len).map_err(|_| "a tensor too large for this machine")?;
        let elements = rest.get(..len).ok_or("a tensor that ends early")?;
        tensors.push((header.digest(elements), widen(&header, elements)?));
        bytes = &rest[len..];
    }
    Ok(tensors)
}

fn widen(header: &TensorHeader, elements: &[u8]) -> Result<Tensor, String> {
    let pairs = || elements.chunks_exact(2).map(|pair| [pair[0], pair[1]]);
    let data: Vec<f32> = match header.dtype {
        StoredDtype::F32 => elements
            .chunks_exact(4)
            .map(|quad| f32::from_le_bytes([quad[0], quad[1], quad[2], quad[3]]))
            .collect(),
        StoredDtype::F16 => pairs()
            .map(|pair| f16::from_le_bytes(pair).to_f32())
            .collect(),
        StoredDtype::Bf16 => pairs()
            .map(|pair| bf16::from_le_bytes(pair).to_f32())
            .collect(),
    };
    let shape: Vec<usize> = header.shape.iter().map(|&dim| dim as usize).collect();
    Tensor::new(&shape, data).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blobs_come_back_and_have_the_address_of_their_bytes() {
        let a = Tensor::new(&[2, 2], vec![1.0, -2.0, 0.5, 3.0]).unwrap();
        let b = Tensor::new(&[3], vec![1.0, 2.0, 3.0]).unwrap();
        let both = [encode(&a), encode(&b)].concat();
        let decoded = decode_all(&both).unwrap();
        assert_eq!(decoded, [(digest(&a), a.clone()), (digest(&b), b)]);
        let address = Digest::of(concord_proto::Domain::Blob, &encode(&a));
        assert_eq!(address, digest(&a));
        assert_eq!(encode(&a).len() as u64, encoded_len(&a));
        assert!(decode_all(&both[..both.len() - 1]).is_err());
        assert!(decode(&both).is_err());
    }
}
