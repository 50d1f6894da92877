//! The state that all requests share.

use std::sync::{Arc, Mutex, PoisonError, RwLock};

use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use concord_proto::Digest;
use concord_text::{ChatTemplate, TokenWidth};
use tokio::sync::watch;

use crate::access_log::AccessLog;
use crate::api_error::ApiError;
use crate::engine::InferenceEngine;
use crate::guides::Guides;
use crate::keys::{KeyAccount, Keyring, UsageFile};
use crate::metrics::Metrics;
use crate::options::{GatewayOptions, Served};
use crate::phase::{DrainPhase, UnderWay};
use crate::readers::Readers;

/// Most adapters at a time.
const ADAPTERS_MAX: usize = 1_024;

/// The state that all requests share.
pub(crate) struct Gateway {
    pub served: Served,
    /// The chat template of the served model, or the plain one.
    pub template: ChatTemplate,
    /// Whether the template is the model's own.
    pub has_template: bool,
    /// The longest text of a token, if that is bounded.
    width: Option<TokenWidth>,
    pub readers: Readers,
    pub engine: Arc<dyn InferenceEngine>,
    pub keys: Keyring,
    /// The usage file of keys; `None` where no key is needed, and after [`Gateway::close_usage`].
    usage: Mutex<Option<UsageFile>>,
    pub options: GatewayOptions,
    pub cors: Option<HeaderValue>,
    pub metrics: Metrics,
    pub guides: Guides,
    pub access_log: Option<AccessLog>,
    pub phase: watch::Receiver<DrainPhase>,
    pub under_way: UnderWay,
    adapters: RwLock<Vec<(String, Digest)>>,
}

/// The parts of a gateway besides the model.
pub(crate) struct GatewayParts {
    pub keys: Keyring,
    pub usage: Option<UsageFile>,
    pub cors: Option<HeaderValue>,
    pub access_log: Option<AccessLog>,
    pub phase: watch::Receiver<DrainPhase>,
    pub under_way: UnderWay,
}

impl Gateway {
    pub fn new(
        mut served: Served,
        engine: Arc<dyn InferenceEngine>,
        options: GatewayOptions,
        parts: GatewayParts,
    ) -> Self {
        Self {
            has_template: served.template.is_some(),
            width: served.tokenizer.token_width(),
            readers: Readers::new(&options.limits),
            template: served.template.take().unwrap_or_else(ChatTemplate::plain),
            metrics: Metrics::new(&served.name, engine.clone()),
            guides: Guides::new(served.tokenizer.clone(), served.deployment.vocab),
            adapters: RwLock::new(std::mem::take(&mut served.adapters)),
            served,
            engine,
            keys: parts.keys,
            usage: Mutex::new(parts.usage),
            options,
            cors: parts.cors,
            access_log: parts.access_log,
            phase: parts.phase,
            under_way: parts.under_way,
        }
    }

    /// Writes what keys have used today, if that has changed and any key has a quota. Blocks on the
    /// disk. If several requests wait here at the same time, the first one writes for all.
    pub fn write_usage(&self) {
        let mut file = self.usage.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(file) = file.as_mut().filter(|_| self.keys.has_quotas()) {
            file.write(self.keys.used());
        }
    }

    /// Writes the usage for the last time, and releases the file for other servers.
    pub fn close_usage(&self) {
        self.write_usage();
        let file = self
            .usage
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        drop(file);
    }

    /// The names that requests may have: the model's, then the adapters'.
    pub fn models(&self) -> Vec<String> {
        let adapters = self.adapters.read().unwrap_or_else(PoisonError::into_inner);
        let names = adapters.iter().map(|(name, _)| name.clone());
        std::iter::once(self.served.name.clone())
            .chain(names)
            .collect()
    }

    /// The name of the model or adapter that a request names, and the adapter. No name, or an empty
    /// one, means the model.
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

    /// Stops serving the adapter `name`.
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

    /// Runs `work` on a body of `bytes` on a blocking thread, once it is the account's turn. The
    /// turn lasts until the work is done, even if the client leaves before.
    ///
    /// # Errors
    /// The error of `work`; a 500 where it panics.
    pub async fn read<T: Send + 'static>(
        self: &Arc<Self>,
        account: &KeyAccount,
        bytes: usize,
        work: impl FnOnce(&Self) -> Result<T, ApiError> + Send + 'static,
    ) -> Result<T, ApiError> {
        let turn = self.readers.turn(&account.state.share, bytes).await?;
        let gateway = self.clone();
        let task = tokio::task::spawn_blocking(move || {
            let outcome = work(&gateway);
            drop(turn);
            outcome
        });
        let bug = |_| ApiError::server("The gateway has a bug, please report it.");
        task.await.map_err(bug)?
    }

    /// Refuses a text that is too long for the model however it is tokenized. It is not tokenized
    /// for that, which may take seconds for each megabyte.
    ///
    /// # Errors
    /// A 400 that names `field`.
    pub fn check_length(&self, text: &str, field: &str) -> Result<(), ApiError> {
        let positions = self.served.deployment.positions;
        let least = self.width.map_or(0, |width| width.least_tokens(text));
        match least > positions as usize {
            true => Err(ApiError::surely_too_long(
                field,
                text.len(),
                least,
                positions,
            )),
            false => Ok(()),
        }
    }

    /// Refuses requests whose `Host` is not this machine (DNS rebinding by a foreign web page).
    /// Does nothing where a key is needed or the API is open to others.
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
