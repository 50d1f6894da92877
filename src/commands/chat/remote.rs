//! A model behind an OpenAI-compatible API.

use std::io::{BufRead, BufReader};
use std::time::Duration;

use anyhow::{Context, bail};
use serde_json::{Value, json};

use super::conversation::{ChatSettings, Conversation};
use super::verify::{AnswerCheck, AnswerChecker, AskedChat};
use super::{ChatAnswer, Partner};

/// The longest accepted line of a stream of events.
const LINE_BYTES_MAX: u64 = 16 << 20;
/// The longest accepted receipt: a message as hexadecimal digits, and its readable part.
const RECEIPT_BYTES_MAX: u64 = 256 << 20;
/// How long connecting may take.
const CONNECT: Duration = Duration::from_secs(10);

pub(super) struct Api {
    agent: ureq::Agent,
    url: String,
    model: String,
    key: Option<String>,
    checker: Option<AnswerChecker>,
    /// What was asked last.
    asked: Option<AskedChat>,
}

impl Api {
    /// Checks that the API answers, and takes its first model where none is named.
    pub(super) fn connect(
        url: &str,
        model: Option<String>,
        key: Option<String>,
        checker: Option<AnswerChecker>,
    ) -> anyhow::Result<Self> {
        let config = ureq::Agent::config_builder()
            .timeout_connect(Some(CONNECT))
            .http_status_as_error(false)
            .build();
        let mut api = Self {
            agent: config.new_agent(),
            url: url
                .trim_end_matches('/')
                .trim_end_matches("/v1")
                .to_string(),
            model: String::new(),
            key,
            checker,
            asked: None,
        };
        let list: Value = {
            let path = format!("{}/v1/models", api.url);
            let response = api.with_key(api.agent.get(&path)).call();
            let response = response.with_context(|| format!("no API at {url}"))?;
            checked(response)?.body_mut().read_json().context(path)?
        };
        let first = list["data"][0]["id"].as_str().map(str::to_string);
        let named = model.or(first);
        api.model = named.with_context(|| format!("the API at {url} has no model"))?;
        Ok(api)
    }

    fn with_key<B>(&self, request: ureq::RequestBuilder<B>) -> ureq::RequestBuilder<B> {
        match &self.key {
            Some(key) => request.header("Authorization", format!("Bearer {key}")),
            None => request,
        }
    }
}

type Response = ureq::http::Response<ureq::Body>;

/// The response, or the API's message where its status is an error.
fn checked(mut response: Response) -> anyhow::Result<Response> {
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let text = response.body_mut().read_to_string().unwrap_or_default();
    let object: Value = serde_json::from_str(&text).unwrap_or(Value::Null);
    let message = object["error"]["message"].as_str();
    let remedy = match (status.as_u16(), object["error"]["code"].as_str()) {
        (401 | 403, _) => "; give the key by --api-key or CONCORD_API_KEY",
        (_, Some("context_length_exceeded")) => {
            "; /undo or /clear makes the conversation shorter, /set max_tokens any lets the answer \
             be as long as fits"
        }
        _ => "",
    };
    match message {
        Some(message) => bail!("{}{remedy}", message.trim_end_matches('.')),
        None => bail!("the API answers {status}{remedy}"),
    }
}

impl Partner for Api {
    fn name(&self) -> String {
        format!("{} at {}", self.model, self.url)
    }

    fn answer(
        &mut self,
        conversation: &Conversation,
        settings: &ChatSettings,
        show: &mut dyn FnMut(&str) -> bool,
    ) -> anyhow::Result<ChatAnswer> {
        let mut body = json!({
            "model": self.model, "messages": conversation.messages(), "stream": true,
            "stream_options": { "include_usage": true },
        });
        // Settings that are not given are left to the server, which knows the model's defaults.
        if let Some(temperature) = settings.temperature {
            body["temperature"] = json!(temperature);
        }
        if let Some(top_p) = settings.top_p {
            body["top_p"] = json!(top_p);
        }
        // Left out by default, so that an answer may have as many tokens as fit: no number is right
        // for every server.
        if let Some(most) = settings.max_tokens {
            body["max_tokens"] = json!(most);
        }
        if let Some(seed) = settings.seed {
            body["seed"] = json!(seed);
        }
        let path = format!("{}/v1/chat/completions", self.url);
        let bytes = serde_json::to_vec(&body)?;
        self.asked = Some(AskedChat::new(&bytes, conversation.messages(), settings));
        let request = self.with_key(self.agent.post(&path));
        let request = request.header("Content-Type", "application/json");
        let sent = request.send(&bytes[..]);
        let response = checked(sent.with_context(|| format!("no API at {}", self.url))?)?;
        let mut answer = ChatAnswer {
            text: String::new(),
            prompt_tokens: 0,
            tokens: 0,
            finish: "stopped".to_string(),
        };
        let body = response
            .into_body()
            .into_with_config()
            .limit(u64::MAX)
            .reader();
        let mut lines = BufReader::new(body);
        let mut line = String::new();
        loop {
            line.clear();
            let mut bounded = std::io::Read::take(&mut lines, LINE_BYTES_MAX);
            let read = bounded.read_line(&mut line);
            if read.context("the API broke off in the middle of the answer")? == 0 {
                bail!("the API ended in the middle of the answer");
            }
            let Some(data) = line.trim_end().strip_prefix("data:") else {
                continue;
            };
            if data.trim() == "[DONE]" {
                return Ok(answer);
            }
            let chunk: Value = serde_json::from_str(data).context("the API sends no JSON")?;
            if let Some(asked) = &mut self.asked {
                asked.hear(&chunk);
            }
            if !take(&chunk, &mut answer, show)? {
                return Ok(answer);
            }
        }
    }

    fn check(&mut self, answer: &ChatAnswer) -> Option<AnswerCheck> {
        let (checker, asked) = (self.checker.as_ref()?, self.asked.as_ref()?);
        let receipt = asked.id().and_then(|id| self.receipt(id));
        let checked = receipt.and_then(|receipt| checker.check(&receipt, asked, answer));
        Some(checked.unwrap_or_else(|why| AnswerCheck::unshown(asked, &why)))
    }
}

impl Api {
    /// The receipt of an answer, as the API has it.
    fn receipt(&self, id: &str) -> anyhow::Result<String> {
        let path = format!("{}/v1/receipts/{id}", self.url);
        let response = self.with_key(self.agent.get(&path)).call();
        let mut response = checked(response.with_context(|| format!("no API at {}", self.url))?)?;
        let body = response.body_mut().with_config().limit(RECEIPT_BYTES_MAX);
        Ok(body.read_to_string()?)
    }
}

/// Adds a piece to an answer. Returns false where the answer was stopped.
fn take(
    chunk: &Value,
    answer: &mut ChatAnswer,
    show: &mut dyn FnMut(&str) -> bool,
) -> anyhow::Result<bool> {
    if let Some(message) = chunk["error"]["message"].as_str() {
        bail!("{message}");
    }
    let count = |name: &str| chunk["usage"][name].as_u64().map(|tokens| tokens as u32);
    answer.prompt_tokens = count("prompt_tokens").unwrap_or(answer.prompt_tokens);
    answer.tokens = count("completion_tokens").unwrap_or(answer.tokens);
    let choice = &chunk["choices"][0];
    if let Some(finish) = choice["finish_reason"].as_str() {
        answer.finish = finish.to_string();
    }
    let piece = choice["delta"]["content"].as_str().unwrap_or_default();
    answer.text.push_str(piece);
    Ok(show(piece))
}
