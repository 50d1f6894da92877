//! The parts of a template.

use std::sync::Arc;

/// Tags and text, one after the other.
pub type Body = Vec<Statement>;

/// A tag or a text, with its line.
#[derive(Debug)]
pub struct Statement {
    pub line: u32,
    pub kind: StatementKind,
}

/// What a tag does.
#[derive(Debug)]
pub enum StatementKind {
    Text(String),
    Print(Expression),
    For(Arc<For>),
    If {
        /// Conditions with what follows them.
        branches: Vec<(Expression, Body)>,
        otherwise: Body,
    },
    Set(AssignTarget, Expression),
    /// `{% set name %}..{% endset %}`, with filters.
    SetBlock(AssignTarget, Vec<Filter>, Body),
    Macro(Arc<MacroSyntax>),
    /// `{% call(..) name(..) %}`: the body, and what is called with it.
    Call(Arc<MacroSyntax>, Expression),
    FilterBlock(Vec<Filter>, Body),
    With(Vec<(AssignTarget, Expression)>, Body),
    /// Marks the model's own words; its variables stay within it.
    Generation(Body),
    Break,
    Continue,
}

/// A loop.
#[derive(Debug)]
pub struct For {
    pub target: AssignTarget,
    pub over: Expression,
    pub condition: Option<Expression>,
    pub is_recursive: bool,
    pub body: Body,
    pub otherwise: Body,
}

/// A macro, or the body of a call.
#[derive(Debug)]
pub struct MacroSyntax {
    pub name: String,
    pub parameters: Vec<(String, Option<Expression>)>,
    pub body: Body,
    /// Which of `varargs`, `kwargs` and `caller` the body uses.
    pub takes: Takes,
}

/// Names that a macro has without declaring them.
#[derive(Clone, Copy, Debug, Default)]
pub struct Takes {
    pub varargs: bool,
    pub kwargs: bool,
    pub caller: bool,
}

/// What a value is given to.
#[derive(Debug)]
pub enum AssignTarget {
    Name(String),
    Attribute(String, String),
    Tuple(Vec<AssignTarget>),
}

/// A filter with its arguments.
#[derive(Debug)]
pub struct Filter {
    pub name: String,
    pub arguments: Arguments,
}

/// Arguments of a call.
#[derive(Debug, Default)]
pub struct Arguments {
    pub values: Vec<Expression>,
    pub named: Vec<(String, Expression)>,
    /// `*list`
    pub more: Option<Box<Expression>>,
    /// `**dict`
    pub more_named: Option<Box<Expression>>,
}

/// An expression.
#[derive(Debug)]
pub enum Expression {
    Name(String),
    Constant(Constant),
    List(Vec<Expression>),
    Tuple(Vec<Expression>),
    Dict(Vec<(Expression, Expression)>),
    Attribute(Box<Expression>, String),
    Item(Box<Expression>, Box<Expression>),
    Slice(Box<Expression>, Box<[Option<Expression>; 3]>),
    Call(Box<Expression>, Box<Arguments>),
    Filter(Option<Box<Expression>>, Box<Filter>),
    Test(Box<Expression>, Box<Filter>),
    Not(Box<Expression>),
    Sign(char, Box<Expression>),
    Binary(Binary, Box<Expression>, Box<Expression>),
    Concat(Vec<Expression>),
    Compare(Box<Expression>, Vec<(Comparison, Expression)>),
    And(Box<Expression>, Box<Expression>),
    Or(Box<Expression>, Box<Expression>),
    /// Condition, then, else.
    If(Box<Expression>, Box<Expression>, Option<Box<Expression>>),
}

/// A literal in the template.
#[derive(Clone, Debug)]
pub enum Constant {
    None,
    Bool(bool),
    Int(i128),
    Float(f64),
    Text(String),
}

/// Operators of two values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Binary {
    Add,
    Subtract,
    Multiply,
    Divide,
    FloorDivide,
    Remainder,
    Power,
}

/// Comparisons.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessEqual,
    Greater,
    GreaterEqual,
    In,
    NotIn,
}
