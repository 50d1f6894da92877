//! Metrics by key.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use concord_proto::serving::Usage;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

/// Most names that have metrics of their own: the key file may change any number of times, but
/// metrics must stay bounded.
const NAMES_MAX: usize = 200;

/// The name that all further keys share.
const OTHERS: &str = "(others)";

/// The name of clients without a key.
const NOBODY: &str = "(none)";

type Labels<const N: usize> = Family<[(&'static str, String); N], Counter>;

/// Metrics by key.
pub(super) struct KeyFigures {
    names: Mutex<BTreeSet<String>>,
    requests: Labels<2>,
    prompt_tokens: Labels<1>,
    answer_tokens: Labels<1>,
}

impl KeyFigures {
    pub fn new(registry: &mut Registry) -> Self {
        let figures = Self {
            names: Mutex::default(),
            requests: Family::default(),
            prompt_tokens: Family::default(),
            answer_tokens: Family::default(),
        };
        registry.register(
            "concord:requests",
            "Requests, by key and by the hundreds of the status",
            figures.requests.clone(),
        );
        registry.register(
            "concord:key_prompt_tokens",
            "Prompt tokens, by key",
            figures.prompt_tokens.clone(),
        );
        registry.register(
            "concord:key_generation_tokens",
            "Tokens of answers, by key",
            figures.answer_tokens.clone(),
        );
        figures
    }

    /// Counts a request that is over.
    pub fn visited(&self, key: Option<&str>, status: u16, usage: &Usage) {
        let name = self.name(key);
        let class = format!("{}xx", status / 100);
        let labels = [("key", name.clone()), ("status", class)];
        self.requests.get_or_create(&labels).inc();
        let tokens = [
            (&self.prompt_tokens, usage.prompt),
            (&self.answer_tokens, usage.answer),
        ];
        for (family, count) in tokens {
            if count > 0 {
                let labels = [("key", name.clone())];
                family.get_or_create(&labels).inc_by(u64::from(count));
            }
        }
    }

    fn name(&self, key: Option<&str>) -> String {
        let Some(key) = key else {
            return NOBODY.to_string();
        };
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        if !names.contains(key) && names.len() >= NAMES_MAX {
            return OTHERS.to_string();
        }
        names.insert(key.to_string());
        key.to_string()
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text::encode;

    use super::*;

    #[test]
    fn names_are_bounded() {
        let mut registry = Registry::default();
        let figures = KeyFigures::new(&mut registry);
        let usage = Usage {
            prompt: 3,
            cached: 0,
            answer: 2,
        };
        for index in 0..1_000 {
            figures.visited(Some(&format!("key-{index}")), 200, &usage);
        }
        figures.visited(Some("key-0"), 429, &Usage::default());
        figures.visited(None, 401, &Usage::default());
        let mut text = String::new();
        encode(&mut text, &registry).expect("a text");
        for line in [
            "concord:requests_total{key=\"key-0\",status=\"2xx\"} 1",
            "concord:requests_total{key=\"key-0\",status=\"4xx\"} 1",
            "concord:requests_total{key=\"(others)\",status=\"2xx\"} 800",
            "concord:requests_total{key=\"(none)\",status=\"4xx\"} 1",
            "concord:key_prompt_tokens_total{key=\"key-7\"} 3",
            "concord:key_generation_tokens_total{key=\"(others)\"} 1600",
        ] {
            assert!(text.contains(line), "{line} in\n{text}");
        }
        assert!(text.lines().count() < 700, "{}", text.lines().count());
    }
}
