//! Tensors as content-addressed blobs: dtype, shape, little-endian elements.

use std::sync::Arc;

use concord_kernels::packed::BlockFormat;
use concord_kernels::{KernelError, Tensor};
use concord_proto::tensor::{self, TensorHeader};
use concord_proto::{Digest, Domain};

#[cfg(target_endian = "big")]
compile_error!("elements are hashed as they lie in memory: little-endian machines only");

fn header(tensor: &Tensor) -> TensorHeader {
    let shape = tensor.shape().iter().map(|&dim| dim as u64).collect();
    TensorHeader {
        dtype: BlockFormat::F32,
        shape,
    }
}

/// The address of a tensor. One that lies on a GPU is hashed there.
///
/// # Errors
/// [`KernelError::Cuda`] where a GPU fails.
pub fn digest(tensor: &Tensor) -> Result<Digest, KernelError> {
    let header = header(tensor);
    if tensor.is_on_host() {
        return Ok(header.digest(bytemuck::cast_slice(tensor.data())));
    }
    let key = Domain::Blob.context_key();
    let digest = tensor.derived_digest(&key, &header.prefix())?;
    Ok(Digest(digest))
}

/// The blob of a tensor, which is fetched where it lies on a GPU.
///
/// # Errors
/// [`KernelError::Cuda`] where a GPU fails.
pub fn encode(tensor: &Tensor) -> Result<Vec<u8>, KernelError> {
    Ok(header(tensor).blob(bytemuck::cast_slice(&tensor.values()?)))
}

/// Bytes of [`encode`].
pub fn encoded_len(tensor: &Tensor) -> u64 {
    (header(tensor).prefix().len() + 4 * tensor.len()) as u64
}

/// The tensor on the host: itself, or a copy of what lies on a GPU.
///
/// # Errors
/// [`KernelError::Cuda`] where a GPU fails.
pub(crate) fn on_host(tensor: &Arc<Tensor>) -> Result<Arc<Tensor>, KernelError> {
    if tensor.is_on_host() {
        return Ok(tensor.clone());
    }
    Ok(Arc::new(tensor.on_host()?.into_owned()))
}

/// The tensor of a blob, as f32.
///
/// # Errors
/// A sentence, where the blob is no tensor.
pub fn decode(blob: &[u8]) -> Result<Tensor, String> {
    let (header, elements) = TensorHeader::split(blob)?;
    widen(&header, elements)
}

/// The tensor of a blob of a store, as f32: any stored form that has the address will do, as long
/// as it is no more than `elements` numbers.
///
/// # Errors
/// A sentence, where the blob is no tensor, or one of more numbers.
pub fn decode_stored(blob: &[u8], elements: u64) -> Result<Tensor, String> {
    let (header, bytes) = TensorHeader::split(blob)?;
    let count = (header.shape.iter()).try_fold(1_u64, |all, dim| all.checked_mul(*dim));
    if count.is_none_or(|count| count > elements) {
        let shape = &header.shape;
        return Err(format!(
            "it has the shape {shape:?}, and not {elements} numbers"
        ));
    }
    numbers_of(&header, bytes)
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
    // What is sent whole is made by workers and clients, who write numbers: a block would be a
    // sender's way to make us hold many times what it sends.
    if header.dtype.elements() > 1 {
        return Err(format!("a tensor in blocks of {}", header.dtype.name()));
    }
    numbers_of(header, elements)
}

fn numbers_of(header: &TensorHeader, elements: &[u8]) -> Result<Tensor, String> {
    let shape: Vec<usize> = header.shape.iter().map(|&dim| dim as usize).collect();
    let data = tensor::numbers(header.dtype, elements);
    Tensor::new(&shape, data).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blobs_come_back_and_have_the_address_of_their_bytes() {
        let a = Tensor::new(&[2, 2], vec![1.0, -2.0, 0.5, 3.0]).unwrap();
        let b = Tensor::new(&[3], vec![1.0, 2.0, 3.0]).unwrap();
        let both = [encode(&a).unwrap(), encode(&b).unwrap()].concat();
        let decoded = decode_all(&both).unwrap();
        let expected = [&a, &b].map(|tensor| (digest(tensor).unwrap(), tensor.clone()));
        assert_eq!(decoded, expected);
        let address = Digest::of(Domain::Blob, &encode(&a).unwrap());
        assert_eq!(address, digest(&a).unwrap());
        assert_eq!(encode(&a).unwrap().len() as u64, encoded_len(&a));
        assert!(decode_all(&both[..both.len() - 1]).is_err());
        assert!(decode(&both).is_err());
    }

    /// Whoever stored the numbers first chose the form.
    #[test]
    fn a_stored_tensor_may_be_in_blocks_of_no_more_numbers_than_are_due() {
        let packed = TensorHeader {
            dtype: BlockFormat::Q8_0,
            shape: vec![2, 32],
        };
        let blob = packed.blob(&[0; 68]);
        assert!(decode(&blob).is_err());
        let zeros = decode_stored(&blob, 64).unwrap();
        assert_eq!(zeros, Tensor::zeros(&[2, 32]));
        assert_eq!(digest(&zeros).unwrap(), packed.digest(&[0; 68]));
        let error = decode_stored(&blob, 63).unwrap_err();
        assert!(error.contains("[2, 32], and not 63 numbers"), "{error}");
    }

    #[test]
    fn a_device_takes_the_same_address_from_the_context_key() {
        let tensor = Tensor::new(&[3, 1], vec![1.0, -0.5, 7.0]).unwrap();
        let prefix = header(&tensor).prefix();
        let taken = tensor.derived_digest(&Domain::Blob.context_key(), &prefix);
        assert_eq!(Digest(taken.unwrap()), digest(&tensor).unwrap());
    }
}
