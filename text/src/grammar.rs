//! What an answer may have to be.

/// What an answer has to be. Tokens that cannot lead there are no candidates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Grammar {
    /// Any JSON object.
    JsonObject,
    /// JSON that a schema allows; the text of the schema.
    JsonSchema(String),
    /// A grammar in the dialect of Lark that llguidance reads (tool calls).
    Lark(String),
}
