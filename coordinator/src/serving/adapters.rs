//! Adapters: loaded by all stages before anyone may ask for them.

use std::sync::Arc;
use std::time::Duration;

use concord_proto::Digest;
use tokio::sync::oneshot;

use super::hub::Hub;
use super::pipeline::Input;
use crate::core::ServingEvent;

/// How long stages may take to load an adapter.
const LOAD_MAX: Duration = Duration::from_secs(120);

/// Adapters at a time: a stage holds all of them beside its layers.
const ADAPTERS_MAX: usize = 64;

impl Hub {
    pub(super) async fn add_adapter(self: &Arc<Self>, adapter: Digest) -> Result<(), String> {
        let count = {
            let state = self.state();
            if state.adapters.contains(&adapter) {
                return Ok(());
            }
            if state.adapters.len() >= ADAPTERS_MAX {
                return Err(format!(
                    "{ADAPTERS_MAX} adapters are loaded: unload one first"
                ));
            }
            state.routes.len() as u32
        };
        // Plans from now on have it, so that no stage that comes later lacks it.
        self.tell_adapters(Some(adapter)).await;
        let mut waiting = Vec::new();
        for index in 0..count {
            let (done, loaded) = oneshot::channel();
            self.send_to(index, Input::AddAdapter { adapter, done })
                .await;
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
            self.state().adapters.insert(adapter);
        } else {
            self.drop_adapter(adapter).await;
        }
        outcome
    }

    pub(super) async fn remove_adapter(&self, adapter: Digest) -> Result<(), String> {
        if !self.state().adapters.remove(&adapter) {
            return Err("no such adapter is loaded".to_string());
        }
        self.drop_adapter(adapter).await;
        Ok(())
    }

    async fn drop_adapter(&self, adapter: Digest) {
        self.tell_adapters(None).await;
        let count = self.state().routes.len() as u32;
        for index in 0..count {
            self.send_to(index, Input::RemoveAdapter { adapter }).await;
        }
    }

    /// Tells the core which adapters there are, and one more.
    async fn tell_adapters(&self, more: Option<Digest>) {
        let mut all = self.state().adapters.clone();
        all.extend(more);
        let event = ServingEvent::Adapters(all.into_iter().collect());
        // A core that is gone plans nothing.
        let _ = self.events.send(event).await;
    }
}
