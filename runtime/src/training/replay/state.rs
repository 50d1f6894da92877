//! A state read from its blobs, each checked against its address.

use std::sync::Arc;

use concord_kernels::MomentKind;
use concord_models::train::{StateTensor, TrainState};
use concord_proto::manifest::StateEntry;
use concord_proto::tensor::address_of;
use concord_proto::{Digest, JobSpec};

use crate::{moment_blob, spec as words, tensor_blob};

/// What is wrong with a state that was kept.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StateFault {
    /// A part of it is not there, or cannot be read.
    #[error("{what} of `{tensor}` ({address}) is missing: {why}")]
    Missing {
        /// The name of the tensor.
        tensor: String,
        /// Its value, or one of its moments.
        what: &'static str,
        /// Its address.
        address: Digest,
        /// Why.
        why: String,
    },
    /// A part of it has other bytes than its address says.
    #[error("{what} of `{tensor}` is not the one that was signed: {why}")]
    Wrong {
        /// The name of the tensor.
        tensor: String,
        /// Its value, or one of its moments.
        what: &'static str,
        /// What is wrong.
        why: String,
    },
}

/// The state with these entries, one for each trained tensor of the spec, of blobs that `read`
/// gives by their addresses. With an error of `read`, the blob is missing.
///
/// # Errors
/// [`StateFault`], of the first part that is missing or wrong.
pub fn read_state(
    spec: &JobSpec,
    entries: &[StateEntry],
    read: &mut dyn FnMut(Digest) -> Result<Vec<u8>, String>,
) -> Result<TrainState, StateFault> {
    let form = words::moments(spec);
    let mut state = TrainState::default();
    for (tensor, entry) in spec.trainable.iter().zip(entries) {
        let wrong = |what, why| StateFault::Wrong {
            tensor: tensor.name.clone(),
            what,
            why,
        };
        let mut part = |what: &'static str, address: Digest| {
            let bytes = read(address).map_err(|why| StateFault::Missing {
                tensor: tensor.name.clone(),
                what,
                address,
                why,
            })?;
            let found = address_of(&bytes);
            let short = (found.short(), address.short());
            let differs = || format!("it hashes to {}, and {} was signed", short.0, short.1);
            match found == address {
                true => Ok(bytes),
                false => Err(wrong(what, differs())),
            }
        };
        let shape = &tensor.shape;
        let value = part("the value", entry.value)?;
        let value = tensor_blob::decode_stored(&value, shape.iter().product());
        let value = value.map_err(|why| wrong("the value", why))?;
        let found = value.shape();
        if !found
            .iter()
            .map(|&dim| dim as u64)
            .eq(shape.iter().copied())
        {
            return Err(wrong("the value", format!("it has the shape {found:?}")));
        }
        let mut moment = |what, kind, address| {
            let bytes = part(what, address)?;
            let moment = moment_blob::decode_stored(&bytes, form, kind, shape);
            moment.map_err(|why| wrong(what, why))
        };
        let first = moment("the first moment", MomentKind::First, entry.first_moment)?;
        let second = moment("the second moment", MomentKind::Second, entry.second_moment)?;
        let held = StateTensor {
            value: Arc::new(value),
            first_moment: first,
            second_moment: second,
        };
        state.0.insert(tensor.name.clone(), held);
    }
    Ok(state)
}
