//! `concord chat --verify`: the client computes the answer that it got again, by its receipt.

use std::path::Path;

use anyhow::{Context, bail};
use concord_gateway::receipt_file::{self, ReceiptError};
use concord_kernels::Device;
use concord_proto::serving::{AnswerVerdict, Finish, Receipt};
use concord_proto::{Digest, Domain};
use concord_text::ChatTemplate;
use serde_json::{Map, Value, json};

use super::ChatAnswer;
use super::conversation::ChatSettings;
use crate::support::output::in_words;
use crate::support::receipt_judge::ReceiptJudge;
use crate::support::receipt_words::{self, refutation};

/// What the client asked, and what it heard beside the text.
pub(super) struct AskedChat {
    /// Digest of the request's body.
    body: Digest,
    messages: Value,
    settings: ChatSettings,
    /// The name of the answer.
    id: Option<String>,
    /// Whether reasoning came, which is a part of the text that was signed.
    has_reasoning: bool,
}

impl AskedChat {
    pub(super) fn new(body: &[u8], messages: Value, settings: &ChatSettings) -> Self {
        Self {
            body: Digest::of(Domain::Text, body),
            messages,
            settings: settings.clone(),
            id: None,
            has_reasoning: false,
        }
    }

    /// Takes in a chunk of the answer.
    pub(super) fn hear(&mut self, chunk: &Value) {
        if let Some(id) = chunk["id"].as_str() {
            self.id.get_or_insert_with(|| id.to_string());
        }
        let reasoning = chunk["choices"][0]["delta"]["reasoning_content"].as_str();
        self.has_reasoning |= reasoning.is_some_and(|text| !text.is_empty());
    }

    /// # Errors
    /// Where the API gave the answer no name.
    pub(super) fn id(&self) -> anyhow::Result<&str> {
        let id = self.id.as_deref();
        id.context("the API gives answers no names, so there is no receipt to ask for")
    }
}

/// What came of checking an answer, best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Standing {
    Shown,
    Unshown,
    Refuted,
}

/// An answer that was checked.
pub(super) struct AnswerCheck {
    pub(super) standing: Standing,
    id: String,
    /// Why it was refuted, or could not be judged.
    why: String,
    shown: Vec<String>,
    not_shown: Vec<String>,
}

impl AnswerCheck {
    /// It cannot be judged.
    pub(super) fn unshown(asked: &AskedChat, why: &anyhow::Error) -> Self {
        let id = asked.id.clone().unwrap_or_default();
        Self::because(Standing::Unshown, id, in_words(why))
    }

    fn because(standing: Standing, id: String, why: String) -> Self {
        Self {
            standing,
            id,
            why,
            shown: Vec::new(),
            not_shown: Vec::new(),
        }
    }

    /// One sentence on what is shown and what not.
    pub(super) fn words(&self) -> String {
        let (shown, not_shown) = (self.shown.join("; "), self.not_shown.join("; "));
        match self.standing {
            Standing::Shown => format!("verified: {shown}. Not shown: {not_shown}."),
            Standing::Unshown => format!("not verified: {}", self.why),
            Standing::Refuted => format!("refuted: {}", self.why),
        }
    }

    pub(super) fn object(&self) -> Value {
        let event = match self.standing {
            Standing::Shown => "verified",
            Standing::Unshown => "unproven",
            Standing::Refuted => "refuted",
        };
        json!({ "event": event, "receipt": self.id, "reason": self.why, "shown": self.shown,
            "not_shown": self.not_shown })
    }
}

/// Checks answers with a model of this machine.
pub(super) struct AnswerChecker {
    judge: ReceiptJudge,
    /// The model's own chat template, where it has one.
    template: Option<ChatTemplate>,
}

impl AnswerChecker {
    /// # Errors
    /// Naming the file that cannot be read.
    pub(super) fn open(
        model: &Path,
        adapter: Option<&Path>,
        device: Device,
    ) -> anyhow::Result<Self> {
        let judge = ReceiptJudge::open(model, None, adapter, device)?;
        let template = judge.folder().chat_template()?;
        Ok(Self { judge, template })
    }

    /// # Errors
    /// Where the answer cannot be judged.
    pub(super) fn check(
        &self,
        receipt: &str,
        asked: &AskedChat,
        answer: &ChatAnswer,
    ) -> anyhow::Result<AnswerCheck> {
        if answer.finish == "stopped" {
            bail!("the answer was stopped before its end");
        }
        let refuted = |why: String| {
            let id = asked.id.clone().unwrap_or_default();
            Ok(AnswerCheck::because(Standing::Refuted, id, why))
        };
        let read = receipt_file::from_json(receipt);
        let (receipt, signed) = match read.and_then(|signed| Ok((signed.open()?, signed))) {
            Ok(opened) => opened,
            Err(why @ (ReceiptError::Signed(_) | ReceiptError::Contradiction(_))) => {
                return refuted(format!("the API gives a receipt that does not hold: {why}"));
            }
            Err(why) => return Err(why.into()),
        };
        if let Some(why) = self.contradiction(&receipt, asked, answer)? {
            let signer = signed.signer();
            return refuted(format!(
                "the coordinator {signer} signed another answer: {why}"
            ));
        }
        let verdict = self.judge.judge(&signed, None, &mut |_| {})?;
        if let Some((_, why)) = refutation(&verdict, signed.signer()) {
            return match verdict {
                AnswerVerdict::Inconclusive { .. } => bail!("{why}"),
                _ => refuted(why),
            };
        }
        let mut shown = receipt_words::shown(&receipt, &signed.path);
        let mut not_shown = receipt_words::not_shown(&receipt, false);
        shown.push("it is signed for this very request".to_string());
        match self.prompt(&asked.messages)? == receipt.spec.prompt {
            true => {
                shown.push("its prompt is what the model makes of this conversation".to_string());
            }
            false => not_shown.push(
                "that its prompt says what this conversation says: the template of this model \
                 makes another one"
                    .to_string(),
            ),
        }
        match self.compares_text(&receipt, asked) {
            true => shown.push("the text that came is the one that was signed".to_string()),
            false => {
                not_shown.push("that the text that came is the one of the receipt".to_string())
            }
        }
        Ok(AnswerCheck {
            standing: Standing::Shown,
            id: receipt.id,
            why: String::new(),
            shown,
            not_shown,
        })
    }

    /// Whether the text that came is all that was signed. Reasoning comes apart from it.
    fn compares_text(&self, receipt: &Receipt, asked: &AskedChat) -> bool {
        let template = self.template.as_ref();
        let thinks = template.is_some_and(|template| template.mentions("think>"));
        receipt.text != Digest::default() && !thinks && !asked.has_reasoning
    }

    /// What the receipt says otherwise than the client knows.
    fn contradiction(
        &self,
        receipt: &Receipt,
        asked: &AskedChat,
        answer: &ChatAnswer,
    ) -> anyhow::Result<Option<String>> {
        let (spec, settings) = (&receipt.spec, &asked.settings);
        let text = Digest::of(Domain::Text, answer.text.as_bytes());
        let differs = |given: Option<f32>, signed: f32| {
            // Temperatures close to 0 are raised.
            given.is_some_and(|given| given != signed && !(given < 0.01 && signed == 0.01))
        };
        let finish = match receipt.finish {
            Finish::Length => "length",
            Finish::StopToken | Finish::StopText | Finish::Grammar => "stop",
            Finish::Cancelled => answer.finish.as_str(),
        };
        let checks = [
            ("its name", receipt.id != format!("{}-0", asked.id()?)),
            ("the request", receipt.body != asked.body),
            (
                "the text",
                self.compares_text(receipt, asked) && receipt.text != text,
            ),
            ("why it ended", finish != answer.finish),
            (
                "the temperature",
                differs(settings.temperature, spec.sampling.temperature.get()),
            ),
            ("top_p", differs(settings.top_p, spec.sampling.top_p.get())),
            (
                "the seed",
                settings.seed.is_some_and(|seed| seed != spec.sampling.seed),
            ),
            (
                "max_tokens",
                settings
                    .max_tokens
                    .is_some_and(|most| most != spec.max_tokens),
            ),
        ];
        let other = checks.iter().find(|(_, is_other)| *is_other);
        Ok(other.map(|(what, _)| format!("{what} is not that of this client")))
    }

    /// The tokens that the model makes of a conversation.
    fn prompt(&self, messages: &Value) -> anyhow::Result<Vec<u32>> {
        let plain = ChatTemplate::plain();
        let template = self.template.as_ref().unwrap_or(&plain);
        let chat = template.render(messages, None, true, &Map::new())?;
        // A model's own template writes the special tokens itself.
        let adds_special = self.template.is_none();
        Ok(self.judge.tokenizer().encode_chat(&chat, adds_special)?)
    }
}
