//! The pool behind the gateway: what joins the two, which know nothing of each other.

use std::path::PathBuf;
use std::sync::Arc;

use concord_coordinator::serving::{Serving, SubmitError};
use concord_gateway::{Answering, Engine, Refused};
use concord_models::config::DecoderConfig;
use concord_proto::serving::{Generation, PoolView};
use concord_proto::{Digest, Signed};
use futures_util::future::BoxFuture;

use super::adapters::adapter_blobs;
use crate::blobs::BlobSet;

/// A pool that serves.
pub struct PoolEngine {
    /// The coordinator's side of it.
    pub serving: Serving,
    /// The model's shape, which adapters are checked against.
    pub config: Arc<DecoderConfig>,
}

impl Engine for PoolEngine {
    fn submit(&self, generation: Generation) -> Result<Answering, Refused> {
        let answering = self.serving.submit(generation).map_err(refused)?;
        Ok(Answering {
            updates: answering.updates,
            control: answering.control,
        })
    }

    fn view(&self) -> PoolView {
        self.serving.view()
    }

    fn receipts(&self, id: String) -> BoxFuture<'static, Result<Vec<Signed>, String>> {
        let serving = self.serving.clone();
        Box::pin(async move {
            let found = serving.receipts(&id).await;
            found.map_err(|error| error.to_string())
        })
    }

    fn add_adapter(&self, folder: PathBuf) -> BoxFuture<'static, Result<Digest, String>> {
        let (serving, config) = (self.serving.clone(), self.config.clone());
        Box::pin(async move {
            let read = tokio::task::spawn_blocking(move || {
                let mut blobs = BlobSet::default();
                adapter_blobs(&folder, &config, &mut blobs).map(|digest| (digest, blobs))
            });
            let read = read.await.map_err(|error| error.to_string())?;
            let (digest, blobs) = read.map_err(|error| format!("{error:#}"))?;
            for bytes in blobs.into_bytes() {
                let put = serving.put_blob(bytes).await;
                put.map_err(|error| error.to_string())?;
            }
            serving.add_adapter(digest).await?;
            Ok(digest)
        })
    }

    fn remove_adapter(&self, adapter: Digest) -> BoxFuture<'static, Result<(), String>> {
        let serving = self.serving.clone();
        Box::pin(async move { serving.remove_adapter(adapter).await })
    }
}

fn refused(error: SubmitError) -> Refused {
    match error {
        SubmitError::Overloaded { waiting } => Refused::Overloaded { waiting },
        SubmitError::NotReady(why) => Refused::NotReady(why),
        SubmitError::TooLong { prompt, positions } => Refused::TooLong { prompt, positions },
        SubmitError::UnknownAdapter => Refused::UnknownAdapter,
        other => Refused::Other(other.to_string()),
    }
}
