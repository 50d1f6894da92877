//! The messages of a conversation, and how answers are sampled.

use std::fmt;
use std::path::Path;

use anyhow::{Context, bail};
use serde_json::{Value, json};

#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Conversation {
    system: Option<String>,
    /// (role, content), oldest first.
    messages: Vec<(String, String)>,
    /// Tokens of the last prompt and of the last answer.
    pub(super) tokens: (u32, u32),
    /// Time that the last answer took.
    pub(super) seconds: f64,
}

impl Conversation {
    pub(super) fn new(system: Option<String>) -> Self {
        Self {
            system,
            ..Self::default()
        }
    }

    /// The messages in the form of chat templates and APIs.
    pub(super) fn messages(&self) -> Value {
        let system = self.system.iter().map(|text| ("system", text.as_str()));
        let said = self
            .messages
            .iter()
            .map(|(role, text)| (role.as_str(), text.as_str()));
        let all = system.chain(said);
        all.map(|(role, text)| json!({ "role": role, "content": text }))
            .collect()
    }

    pub(super) fn say(&mut self, text: String) {
        self.messages.push(("user".to_string(), text));
    }

    /// Removes the last question.
    pub(super) fn unsay(&mut self) {
        self.messages.pop();
    }

    pub(super) fn answered(&mut self, text: String) {
        self.messages.push(("assistant".to_string(), text));
    }

    /// Removes the last answer. Returns false where there is none.
    pub(super) fn forget_answer(&mut self) -> bool {
        let has = self
            .messages
            .last()
            .is_some_and(|(role, _)| role == "assistant");
        if has {
            self.messages.pop();
        }
        has
    }

    /// Removes the last question and its answer. Returns false where there is none.
    pub(super) fn undo(&mut self) -> bool {
        self.forget_answer();
        self.messages.pop().is_some()
    }

    pub(super) fn clear(&mut self) {
        self.messages.clear();
    }

    pub(super) fn set_system(&mut self, text: &str) {
        self.system = Some(text.to_string()).filter(|text| !text.is_empty());
    }

    /// Saves the conversation as JSON, in the form of an API's messages.
    pub(super) fn save(&self, path: &Path) -> anyhow::Result<()> {
        let text = serde_json::to_string_pretty(&self.messages())?;
        std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
    }

    /// Reads a conversation that [`Self::save`] wrote. On an error nothing is changed.
    pub(super) fn load(&mut self, path: &Path) -> anyhow::Result<()> {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("cannot read {}", path.display()))?;
        let place = || format!("{}: not a list of messages", path.display());
        let messages: Vec<Value> = serde_json::from_str(&text).with_context(place)?;
        let mut read = Self::default();
        for message in &messages {
            let (Some(role), Some(text)) = (message["role"].as_str(), message["content"].as_str())
            else {
                bail!("{}", place());
            };
            match role {
                "system" => read.system = Some(text.to_string()),
                "user" | "assistant" => read.messages.push((role.into(), text.into())),
                other => bail!("{}: a message of '{other}'", path.display()),
            }
        }
        *self = read;
        Ok(())
    }
}

/// How answers are sampled. The partner chooses settings that are not given: from the model's
/// `generation_config.json`, or else a default.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct ChatSettings {
    pub(super) temperature: Option<f32>,
    pub(super) top_p: Option<f32>,
    /// By default as many as fit.
    pub(super) max_tokens: Option<u32>,
    pub(super) seed: Option<u64>,
}

impl ChatSettings {
    /// Refuses settings that are out of range.
    pub(super) fn check(&self) -> anyhow::Result<()> {
        // NaN is in neither range.
        if let Some(temperature) = self.temperature.filter(|t| !(0.0..=2.0).contains(t)) {
            bail!("temperature {temperature}: a number from 0 to 2");
        }
        if let Some(top_p) = self.top_p.filter(|p| !(*p > 0.0 && *p <= 1.0)) {
            bail!("top_p {top_p}: a share above 0, at most 1");
        }
        if self.max_tokens == Some(0) {
            bail!("max_tokens 0: at least one token");
        }
        Ok(())
    }

    /// Changes one setting by its name. On an error nothing is changed.
    pub(super) fn set(&mut self, name: &str, value: &str) -> anyhow::Result<()> {
        let mut new = self.clone();
        let bad = || format!("/set {name} {value}: not a number");
        match name {
            "temperature" if value == "any" => new.temperature = None,
            "temperature" => new.temperature = Some(value.parse().with_context(bad)?),
            "top_p" if value == "any" => new.top_p = None,
            "top_p" => new.top_p = Some(value.parse().with_context(bad)?),
            "max_tokens" if value == "any" => new.max_tokens = None,
            "max_tokens" => new.max_tokens = Some(value.parse().with_context(bad)?),
            "seed" if value == "any" => new.seed = None,
            "seed" => new.seed = Some(value.parse().with_context(bad)?),
            _ => bail!("/set {name}: temperature, top_p, max_tokens or seed"),
        }
        new.check()?;
        *self = new;
        Ok(())
    }
}

impl fmt::Display for ChatSettings {
    /// Names and values, as `/set` takes them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fn or_any(value: Option<impl fmt::Display>) -> String {
            value.map_or("any".to_string(), |value| value.to_string())
        }
        write!(
            f,
            "temperature {}, top_p {}, max_tokens {}, seed {}",
            or_any(self.temperature),
            or_any(self.top_p),
            or_any(self.max_tokens),
            or_any(self.seed)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_conversation_comes_back_from_its_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("talk.json");
        let mut talk = Conversation::new(Some("Be brief.".to_string()));
        talk.say("Hello".to_string());
        talk.answered("Hello to you".to_string());
        talk.save(&path).unwrap();
        let mut read = Conversation::default();
        read.load(&path).unwrap();
        assert_eq!(read, talk);
        std::fs::write(&path, "[{\"role\": \"nobody\", \"content\": \"?\"}]").unwrap();
        assert!(
            read.load(&path)
                .unwrap_err()
                .to_string()
                .contains("'nobody'")
        );
        assert_eq!(read, talk, "what fails changes nothing");
    }

    #[test]
    fn answers_and_questions_are_taken_back() {
        let mut talk = Conversation::default();
        assert!(!talk.undo() && !talk.forget_answer());
        talk.say("a".to_string());
        talk.answered("b".to_string());
        assert!(talk.forget_answer() && !talk.forget_answer());
        assert_eq!(talk.messages(), json!([{ "role": "user", "content": "a" }]));
        assert!(talk.undo());
        assert_eq!(talk.messages(), json!([]));
    }

    #[test]
    fn settings_out_of_range_change_nothing() {
        let mut settings = ChatSettings {
            temperature: Some(1.0),
            top_p: None,
            max_tokens: Some(10),
            seed: None,
        };
        for (name, value) in [
            ("temperature", "3"),
            ("temperature", "nan"),
            ("top_p", "0"),
            ("max_tokens", "-1"),
            ("max_tokens", "0"),
            ("x", "1"),
        ] {
            assert!(settings.set(name, value).is_err(), "{name} {value}");
        }
        settings.set("seed", "7").unwrap();
        assert_eq!((settings.seed, settings.temperature), (Some(7), Some(1.0)));
        settings.set("temperature", "0.5").unwrap();
        settings.set("top_p", "0.9").unwrap();
        let said = "temperature 0.5, top_p 0.9, max_tokens 10, seed 7";
        assert_eq!(settings.to_string(), said);
        for name in ["max_tokens", "seed", "top_p", "temperature"] {
            settings.set(name, "any").unwrap();
        }
        let said = "temperature any, top_p any, max_tokens any, seed any";
        assert_eq!(settings.to_string(), said);
    }
}
