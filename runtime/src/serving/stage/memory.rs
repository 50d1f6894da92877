//! How much memory the keys and values of a stage take.

use concord_models::config::DecoderConfig;
use concord_models::memory::page_bytes as page_bytes_of;
use concord_proto::Layers;
use concord_proto::serving::Deployment;

use crate::{RuntimeError, spec};

/// Bytes of a page of keys and values in `layers`: none where these are experts alone.
///
/// # Errors
/// [`RuntimeError::Unsupported`] for a precision that this build does not know.
pub(crate) fn page_bytes(
    config: &DecoderConfig,
    layers: Layers,
    deployment: &Deployment,
) -> Result<u64, RuntimeError> {
    let precision = spec::precision(deployment.precision.key_values)?;
    Ok(page_bytes_of(config, layers.attended().len(), precision))
}
