//! What examples of a data set are made with: tokenizer, end tokens and chat template.

use std::time::Duration;

use concord_text::{ChatTemplate, TextTokenizer};

use crate::error::DataError;
use crate::loader::DataLoader;
use crate::source::{DatasetKind, DatasetSource};

/// What a chat template's clock shows while data are read, as time since 1970: 26 July 2024, the
/// day that the templates of Llama 3.1 and 3.2 name where they have no clock. A template that
/// writes today's date would make another job of the same file each day.
pub const CLOCK: Duration = Duration::from_secs(1_721_952_000);

/// What rows of one data set become examples with.
pub(crate) struct ExampleMaker<'a> {
    pub source: &'a DatasetSource,
    pub tokenizer: &'a TextTokenizer,
    /// The token that ends a text, for kinds that write it.
    pub end: Option<u32>,
    /// Tokens that may end a turn.
    pub ends: Vec<u32>,
    template: Option<TemplateChoice<'a>>,
}

/// The chat template of the model, or that of the data set.
enum TemplateChoice<'a> {
    Model(&'a ChatTemplate),
    Own(Box<ChatTemplate>),
}

impl<'a> ExampleMaker<'a> {
    /// For a data set of any kind but `text`.
    pub fn new<'l: 'a>(
        source: &'a DatasetSource,
        loader: &DataLoader<'l>,
    ) -> Result<Self, DataError> {
        let tokenizer = loader.tokenizer(source)?;
        let template = match &source.chat_template {
            Some(text) => {
                let own = ChatTemplate::for_tokenizer(text, tokenizer)?.with_clock(CLOCK);
                Some(TemplateChoice::Own(Box::new(own)))
            }
            None => loader.chat_template.map(TemplateChoice::Model),
        };
        let needs_end = matches!(
            source.kind,
            DatasetKind::Completion | DatasetKind::Instruct | DatasetKind::Alpaca
        );
        if needs_end {
            loader.needed_end(source)?;
        }
        let maker = Self {
            source,
            tokenizer,
            end: loader.end_of_text(),
            ends: [
                tokenizer.eos_ids(),
                loader.eos,
                &ends_of(source, tokenizer)?[..],
            ]
            .concat(),
            template,
        };
        if source.kind.has_turns() && source.kind != DatasetKind::PromptCompletion {
            maker.template()?;
        }
        Ok(maker)
    }

    /// The chat template.
    ///
    /// # Errors
    /// Where neither model nor data set has one.
    pub fn template(&self) -> Result<&ChatTemplate, DataError> {
        match &self.template {
            Some(TemplateChoice::Model(template)) => Ok(template),
            Some(TemplateChoice::Own(template)) => Ok(template),
            None => Err(self.source.fail(
                "the model has no chat template for conversations: set `chat_template` to a \
                 .jinja file, or take a type that needs none, such as `instruct`",
            )),
        }
    }

    /// The token that ends a text.
    ///
    /// # Errors
    /// Where the model names none.
    pub fn needed_end(&self) -> Result<u32, DataError> {
        self.end.ok_or_else(|| {
            self.source.fail(
                "an end-of-text token is needed: neither tokenizer_config.json (eos_token) nor \
                 config.json (eos_token_id) names one",
            )
        })
    }
}

/// The tokens that the data set names as ends of turns.
fn ends_of(source: &DatasetSource, tokenizer: &TextTokenizer) -> Result<Vec<u32>, DataError> {
    let id = |name: &String| {
        tokenizer.token_id(name).ok_or_else(|| {
            source.fail(format!(
                "`eot_tokens` has {name:?}, which is no token of the model's tokenizer: take it \
                 off the list, or name one that is"
            ))
        })
    };
    source.eot_tokens.iter().map(id).collect()
}
