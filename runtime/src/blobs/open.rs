//! Blobs that lie in memory as what they mean.

use std::sync::Arc;

use concord_kernels::{KernelError, Tensor};
use concord_models::train::Moment;

use crate::{moment_blob, tensor_blob};

/// A blob that is given out or stored. It is fetched from its GPU and encoded when its bytes are
/// asked for.
#[derive(Clone)]
pub(crate) enum OpenBlob {
    Tensor(Arc<Tensor>),
    Moment(Moment),
    Bytes(Arc<Vec<u8>>),
}

impl OpenBlob {
    pub(crate) fn bytes(&self) -> Result<Vec<u8>, KernelError> {
        match self {
            Self::Tensor(tensor) => tensor_blob::encode(tensor),
            Self::Moment(moment) => moment_blob::encode(moment),
            Self::Bytes(bytes) => Ok(bytes.to_vec()),
        }
    }

    /// The length of [`Self::bytes`].
    pub(crate) fn len(&self) -> u64 {
        match self {
            Self::Tensor(tensor) => tensor_blob::encoded_len(tensor),
            Self::Moment(moment) => moment_blob::encoded_len(moment),
            Self::Bytes(bytes) => bytes.len() as u64,
        }
    }

    /// Fetches what lies on a GPU, so that its memory is free.
    pub(crate) fn fetch(&mut self) -> Result<(), KernelError> {
        match self {
            Self::Tensor(tensor) => *tensor = tensor_blob::on_host(tensor)?,
            Self::Moment(moment) => *moment = moment_blob::on_host(moment)?,
            Self::Bytes(_) => {}
        }
        Ok(())
    }
}
