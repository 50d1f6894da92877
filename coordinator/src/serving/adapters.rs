//! Adapters: loaded by all stages before anyone may ask for them.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use concord_proto::Digest;
use tokio::sync::{mpsc, oneshot};

use super::router::{PipelineInput, Router};
use crate::core::ServingEvent;

/// How long stages may take to load an adapter.
const LOAD_MAX: Duration = Duration::from_secs(120);

/// Adapters at a time: a stage holds all of them beside its layers.
const ADAPTERS_MAX: usize = 64;

/// The adapters that all stages have loaded.
#[derive(Default)]
pub(super) struct LoadedAdapters(Mutex<BTreeSet<Digest>>);

impl LoadedAdapters {
    fn lock(&self) -> MutexGuard<'_, BTreeSet<Digest>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn contains(&self, adapter: &Digest) -> bool {
        self.lock().contains(adapter)
    }

    pub(super) fn all(&self) -> BTreeSet<Digest> {
        self.lock().clone()
    }
}

/// Has stages load and drop adapters.
pub(super) struct AdapterLoader {
    pub(super) loaded: Arc<LoadedAdapters>,
    pub(super) router: Arc<Router>,
    pub(super) events: mpsc::Sender<ServingEvent>,
}

impl AdapterLoader {
    /// Has all stages load an adapter. See [`super::ModelService::add_adapter`].
    pub(super) async fn add(&self, adapter: Digest) -> Result<(), String> {
        {
            let loaded = self.loaded.lock();
            if loaded.contains(&adapter) {
                return Ok(());
            }
            if loaded.len() >= ADAPTERS_MAX {
                return Err(format!(
                    "{ADAPTERS_MAX} adapters are loaded: unload one first"
                ));
            }
        }
        let count = self.router.len();
        // Plans from now on have it, so that no stage that comes later lacks it.
        self.tell_core(Some(adapter)).await;
        let mut waiting = Vec::new();
        for index in 0..count {
            let (done, loaded) = oneshot::channel();
            let input = PipelineInput::AddAdapter { adapter, done };
            self.router.send(index, input).await;
            waiting.push(loaded);
        }
        let all = async {
            for loaded in waiting {
                loaded.await.map_err(|_| "the pool stops".to_string())??;
            }
            Ok(())
        };
        let outcome = tokio::time::timeout(LOAD_MAX, all).await;
        let outcome = outcome.unwrap_or_else(|_| {
            let seconds = LOAD_MAX.as_secs();
            Err(format!("stages have not loaded it within {seconds} s"))
        });
        if outcome.is_ok() {
            self.loaded.lock().insert(adapter);
        } else {
            self.drop_from_stages(adapter).await;
        }
        outcome
    }

    /// Has all stages drop an adapter. See [`super::ModelService::remove_adapter`].
    pub(super) async fn remove(&self, adapter: Digest) -> Result<(), String> {
        if !self.loaded.lock().remove(&adapter) {
            return Err("no such adapter is loaded".to_string());
        }
        self.drop_from_stages(adapter).await;
        Ok(())
    }

    async fn drop_from_stages(&self, adapter: Digest) {
        self.tell_core(None).await;
        for index in 0..self.router.len() {
            let input = PipelineInput::RemoveAdapter { adapter };
            self.router.send(index, input).await;
        }
    }

    /// Tells the core which adapters there are, and one more.
    async fn tell_core(&self, more: Option<Digest>) {
        let mut all = self.loaded.all();
        all.extend(more);
        let event = ServingEvent::Adapters(all.into_iter().collect());
        // A core that has ended plans nothing.
        let _ = self.events.send(event).await;
    }
}
