//! Joins the gateway and the coordinator's serving side, which do not know each other.

use std::path::PathBuf;
use std::sync::Arc;

use concord_coordinator::serving::{ModelService, SubmitError};
use concord_gateway::{EngineAnswer, InferenceEngine, Refused};
use concord_models::config::DecoderConfig;
use concord_proto::Digest;
use concord_proto::serving::{BatchedReceipt, Generation, PoolView};
use futures_util::future::BoxFuture;

use crate::support::adapter_blobs::adapter_blobs;
use crate::support::blobs::BlobSet;
use crate::support::pool::Troubles;

/// A pool that serves.
pub struct PoolEngine {
    serving: ModelService,
    /// The model's configuration, against which adapters are checked.
    config: Arc<DecoderConfig>,
    /// The adapter that the name of the model stands for, where `--model` is an adapter.
    adapter: Option<Digest>,
    /// What is wrong with the members on this machine.
    troubles: Troubles,
}

impl PoolEngine {
    /// An engine over the coordinator's serving side. Requests that name no adapter use `adapter`.
    pub fn new(
        serving: ModelService,
        config: Arc<DecoderConfig>,
        adapter: Option<Digest>,
        troubles: Troubles,
    ) -> Self {
        Self {
            serving,
            config,
            adapter,
            troubles,
        }
    }

    /// The state of the pool, with what is wrong on this machine.
    fn with_troubles(&self, state: String) -> String {
        match self.troubles.now() {
            Some(troubles) => format!("{state}; {troubles}"),
            None => state,
        }
    }
}

impl InferenceEngine for PoolEngine {
    fn submit(&self, mut generation: Generation) -> Result<EngineAnswer, Refused> {
        let spec = &mut generation.spec;
        spec.adapter = spec.adapter.or(self.adapter);
        let answering = self.serving.submit(generation);
        let answering = answering.map_err(|error| match refused(error) {
            Refused::NotReady(why) => Refused::NotReady(self.with_troubles(why)),
            other => other,
        })?;
        Ok(EngineAnswer {
            updates: answering.updates,
            control: answering.control,
        })
    }

    fn view(&self) -> PoolView {
        let mut view = self.serving.view();
        if !view.ready {
            view.state = self.with_troubles(view.state);
        }
        view
    }

    fn receipts(&self, id: String) -> BoxFuture<'static, Result<Vec<BatchedReceipt>, String>> {
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
        // The model's own adapter stays loaded, even if it had another name, too.
        let stays = self.adapter == Some(adapter);
        Box::pin(async move {
            match stays {
                true => Ok(()),
                false => serving.remove_adapter(adapter).await,
            }
        })
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
