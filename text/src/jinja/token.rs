//! The tokens of a template.

/// A token and its line.
#[derive(Clone, Debug)]
pub struct TemplateToken {
    pub line: u32,
    pub kind: TokenKind,
}

/// What a token is.
#[derive(Clone, Debug, PartialEq)]
pub enum TokenKind {
    /// Text between tags.
    Text(String),
    BlockBegin,
    BlockEnd,
    VariableBegin,
    VariableEnd,
    Name(String),
    String(String),
    Int(i128),
    Float(f64),
    Operator(&'static str),
    End,
}
