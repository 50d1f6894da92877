//! What all requests share.

use std::sync::{Arc, PoisonError, RwLock};

use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use concord_proto::Digest;
use concord_text::ChatTemplate;
use tokio::sync::Semaphore;

use crate::api_error::ApiError;
use crate::engine::Engine;
use crate::guides::Guides;
use crate::keys::Keyring;
use crate::metrics::Metrics;
use crate::options::{Options, Served};

/// Adapters at a time.
const ADAPTERS_MAX: usize = 1_024;

/// What all requests share.
pub(crate) struct Gateway {
    pub served: Served,
    /// The served model's, or the plain one.
    pub template: ChatTemplate,
    /// Whether it is the model's.
    pub has_template: bool,
    /// Requests that are read at a time: that is work for processors, not waiting.
    readers: Semaphore,
    pub engine: Arc<dyn Engine>,
    pub keys: Keyring,
    pub options: Options,
    pub cors: Option<HeaderValue>,
    pub metrics: Metrics,
    pub guides: Guides,
    adapters: RwLock<Vec<(String, Digest)>>,
}

impl Gateway {
    pub fn new(
        mut served: Served,
        engine: Arc<dyn Engine>,
        keys: Keyring,
        options: Options,
        cors: Option<HeaderValue>,
    ) -> Self {
        Self {
            has_template: served.template.is_some(),
            readers: Semaphore::new(std::thread::available_parallelism().map_or(2, usize::from)),
            template: served.template.take().unwrap_or_else(ChatTemplate::plain),
            metrics: Metrics::new(&served.name, engine.clone()),
            guides: Guides::new(served.tokenizer.clone(), served.deployment.vocab),
            adapters: RwLock::new(std::mem::take(&mut served.adapters)),
            served,
            engine,
            keys,
            options,
            cors,
        }
    }

    /// The names that requests may have: the model's, then the adapters'.
    pub fn models(&self) -> Vec<String> {
        let adapters = self.adapters.read().unwrap_or_else(PoisonError::into_inner);
        let names = adapters.iter().map(|(name, _)| name.clone());
        std::iter::once(self.served.name.clone())
            .chain(names)
            .collect()
    }

    /// The model that a request names, and its adapter. No name, or an empty one, is the model's.
    ///
    /// # Errors
    /// A 404.
    pub fn model(&self, name: Option<&str>) -> Result<(String, Option<Digest>), ApiError> {
        let Some(name) = name.filter(|name| !name.is_empty() && *name != self.served.name) else {
            return Ok((self.served.name.clone(), None));
        };
        match self.adapter(name) {
            Some(digest) => Ok((name.to_string(), Some(digest))),
            None => {
                let name: String = name.chars().take(200).collect();
                Err(ApiError::model_not_found(&name, &self.models()))
            }
        }
    }

    /// The adapter of this name.
    pub fn adapter(&self, name: &str) -> Option<Digest> {
        let adapters = self.adapters.read().unwrap_or_else(PoisonError::into_inner);
        let found = adapters.iter().find(|(known, _)| known == name);
        found.map(|(_, digest)| *digest)
    }

    /// Whether an adapter may be loaded under `name`.
    ///
    /// # Errors
    /// A 400, where the name is taken or there are too many.
    pub fn check_adapter_name(&self, name: &str) -> Result<(), ApiError> {
        let adapters = self.adapters.read().unwrap_or_else(PoisonError::into_inner);
        self.check_free(name, &adapters)
    }

    fn check_free(&self, name: &str, adapters: &[(String, Digest)]) -> Result<(), ApiError> {
        if name == self.served.name || adapters.iter().any(|(known, _)| known == name) {
            let message = format!("The name '{name}' is taken: unload it first.");
            return Err(ApiError::param("lora_name", message));
        }
        if adapters.len() >= ADAPTERS_MAX {
            let message = format!("{ADAPTERS_MAX} adapters are loaded: unload one first.");
            return Err(ApiError::invalid(message));
        }
        Ok(())
    }

    /// Serves an adapter under `name`.
    ///
    /// # Errors
    /// As [`Self::check_adapter_name`].
    pub fn add_adapter(&self, name: &str, digest: Digest) -> Result<(), ApiError> {
        let mut adapters = self
            .adapters
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        self.check_free(name, &adapters)?;
        adapters.push((name.to_string(), digest));
        Ok(())
    }

    /// Serves the adapter `name` no longer.
    pub fn remove_adapter(&self, name: &str) -> Option<Digest> {
        let mut adapters = self
            .adapters
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        let at = adapters.iter().position(|(known, _)| known == name)?;
        Some(adapters.remove(at).1)
    }

    /// Whether an adapter is served under some name.
    pub fn serves(&self, digest: &Digest) -> bool {
        let adapters = self.adapters.read().unwrap_or_else(PoisonError::into_inner);
        adapters.iter().any(|(_, known)| known == digest)
    }

    /// Reads something on a thread that may take its time.
    ///
    /// # Errors
    /// What `work` says; a 500 where it has a bug.
    pub async fn read<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Self) -> Result<T, ApiError> + Send + 'static,
    ) -> Result<T, ApiError> {
        let bug = || ApiError::server("The gateway has a bug, please report it.");
        let _reader = self.readers.acquire().await.map_err(|_| bug())?;
        let gateway = self.clone();
        let task = tokio::task::spawn_blocking(move || work(&gateway));
        task.await.map_err(|_| bug())?
    }

    /// Refuses requests that a foreign web page makes a browser send to this machine under another
    /// name. Only needed where no key is asked for and nobody else was invited.
    ///
    /// # Errors
    /// A 403.
    pub fn check_host(&self, headers: &HeaderMap) -> Result<(), ApiError> {
        if self.keys.is_closed() || self.options.open {
            return Ok(());
        }
        let host = headers
            .get(header::HOST)
            .and_then(|host| host.to_str().ok());
        match host.is_none_or(is_this_machine) {
            true => Ok(()),
            false => {
                let message = "Without API keys, only this machine is served, by the names \
                               localhost, 127.0.0.1 and [::1].";
                let kind = "invalid_request_error";
                Err(ApiError::new(StatusCode::FORBIDDEN, kind, message))
            }
        }
    }
}

fn is_this_machine(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|digit| digit.is_ascii_digit()) => name,
        _ => host,
    };
    let bare = name.trim_start_matches('[').trim_end_matches(']');
    let address: Result<std::net::IpAddr, _> = bare.parse();
    name.eq_ignore_ascii_case("localhost") || address.is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::is_this_machine;

    #[test]
    fn names_of_this_machine() {
        for host in [
            "localhost",
            "LOCALHOST:80",
            "127.0.0.1:8000",
            "127.1.2.3",
            "[::1]:80",
            "[::1]",
        ] {
            assert!(is_this_machine(host), "{host}");
        }
        for host in [
            "evil.example",
            "localhost.evil.example:80",
            "10.0.0.1:80",
            "",
            "127.0.0.1.x",
        ] {
            assert!(!is_this_machine(host), "{host}");
        }
    }
}
