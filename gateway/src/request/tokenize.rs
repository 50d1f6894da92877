//! `/tokenize`

use serde_json::Value;

use super::chat::ChatPrompt;
use crate::api_error::ApiError;
use crate::fields::TOKENIZE;
use crate::gateway::Gateway;
use crate::ignored::Ignored;
use crate::json::Fields;

/// What to tokenize.
#[derive(Debug)]
pub(crate) enum TokenizeRequest {
    /// A chat, and whether the names of tokens are asked for.
    Chat(Box<ChatPrompt>, bool),
    Text {
        text: String,
        add_special_tokens: bool,
        wants_names: bool,
    },
}

impl TokenizeRequest {
    /// Reads the body's object.
    ///
    /// # Errors
    /// A 400 that names the field, or a 404 for the model.
    pub fn read(value: Value, gateway: &Gateway, ignored: &mut Ignored) -> Result<Self, ApiError> {
        let mut fields = Fields::new(value, "", TOKENIZE)?;
        gateway.model(fields.text("model")?.as_deref())?;
        let wants_names = fields.flag("return_token_strs")?.unwrap_or(false);
        let request = match fields.text("prompt")? {
            Some(text) => Self::Text {
                text,
                add_special_tokens: fields.flag("add_special_tokens")?.unwrap_or(true),
                wants_names,
            },
            None => {
                fields.refuse("add_special_tokens", "false")?;
                let prompt = ChatPrompt::take(&mut fields, &gateway.template, ignored)?;
                Self::Chat(Box::new(prompt), wants_names)
            }
        };
        fields.finish()?;
        Ok(request)
    }

    /// Whether the names of tokens are asked for.
    pub fn wants_names(&self) -> bool {
        match self {
            Self::Chat(_, wants_names) | Self::Text { wants_names, .. } => *wants_names,
        }
    }
}
