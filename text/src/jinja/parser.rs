//! The tags of a template.

use std::sync::Arc;

use super::fault::{Fault, Made};
use super::lexer::tokens;
use super::syntax::{
    AssignTarget, Body, Expression, Filter, For, MacroSyntax, Statement, StatementKind, Takes,
};
use super::token::{TemplateToken, TokenKind};

/// How deep tags and brackets may be nested.
const DEPTH_MAX: u32 = 100;

/// Reads a template.
///
/// # Errors
/// Naming what cannot be read, or is not supported, and its line.
pub fn parse(source: &str) -> Made<Body> {
    let mut parser = Parser {
        tokens: tokens(source)?,
        at: 0,
        depth: 0,
        loops: 0,
        takes: Vec::new(),
    };
    let body = parser.body(&[]);
    body.map_err(|fault| fault.at(parser.line()))
}

pub(super) struct Parser {
    tokens: Vec<TemplateToken>,
    at: usize,
    depth: u32,
    /// How many loops are around.
    loops: u32,
    /// Which undeclared names the macros around use, the innermost macro last.
    takes: Vec<Takes>,
}

impl Parser {
    pub fn peek(&self) -> &TokenKind {
        &self.tokens[self.at].kind
    }

    pub fn peek_second(&self) -> &TokenKind {
        &self.tokens[(self.at + 1).min(self.tokens.len() - 1)].kind
    }

    pub fn line(&self) -> u32 {
        self.tokens[self.at].line
    }

    pub fn next(&mut self) -> TokenKind {
        let kind = self.peek().clone();
        self.at = (self.at + 1).min(self.tokens.len() - 1);
        kind
    }

    /// Goes back by one token.
    pub fn back(&mut self) {
        self.at = self.at.saturating_sub(1);
    }

    pub fn is_operator(&self, operator: &str) -> bool {
        matches!(self.peek(), TokenKind::Operator(own) if *own == operator)
    }

    pub fn is_name(&self, name: &str) -> bool {
        matches!(self.peek(), TokenKind::Name(own) if own == name)
    }

    pub fn skip_operator(&mut self, operator: &str) -> bool {
        let is_it = self.is_operator(operator);
        if is_it {
            self.next();
        }
        is_it
    }

    pub fn skip_name(&mut self, name: &str) -> bool {
        let is_it = self.is_name(name);
        if is_it {
            self.next();
        }
        is_it
    }

    pub fn expect_operator(&mut self, operator: &str) -> Made<()> {
        match self.skip_operator(operator) {
            true => Ok(()),
            false => Err(self.unexpected(&format!("'{operator}'"))),
        }
    }

    pub fn expect_name(&mut self) -> Made<String> {
        match self.peek().clone() {
            TokenKind::Name(name) => {
                self.next();
                Ok(name)
            }
            _ => Err(self.unexpected("a name")),
        }
    }

    /// The error that names what was found here and what is expected.
    pub fn unexpected(&self, expected: &str) -> Fault {
        let found = match self.peek() {
            TokenKind::Text(_) => "text".to_string(),
            TokenKind::BlockBegin => "'{%'".to_string(),
            TokenKind::BlockEnd => "'%}'".to_string(),
            TokenKind::VariableBegin => "'{{'".to_string(),
            TokenKind::VariableEnd => "'}}'".to_string(),
            TokenKind::Name(name) => format!("'{name}'"),
            TokenKind::String(_) => "a string".to_string(),
            TokenKind::Int(_) | TokenKind::Float(_) => "a number".to_string(),
            TokenKind::Operator(operator) => format!("'{operator}'"),
            TokenKind::End => "the end of the template".to_string(),
        };
        Fault::new(format!("{expected} is expected, not {found}")).at(self.line())
    }

    /// One level deeper.
    pub fn nested<T>(&mut self, read: impl FnOnce(&mut Self) -> Made<T>) -> Made<T> {
        if self.depth >= DEPTH_MAX {
            let reason = format!("tags and brackets stand more than {DEPTH_MAX} deep");
            return Err(Fault::new(reason).at(self.line()));
        }
        self.depth += 1;
        let result = read(self);
        self.depth -= 1;
        result
    }

    /// Notes the use of a name that macros have without declaring it.
    pub fn speaks_of(&mut self, name: &str) {
        if let Some(takes) = self.takes.last_mut() {
            takes.varargs |= name == "varargs";
            takes.kwargs |= name == "kwargs";
            takes.caller |= name == "caller";
        }
    }

    /// Reads up to a tag of one of these names, and past the name.
    fn body(&mut self, ends: &[&str]) -> Made<Body> {
        let mut body = Body::new();
        loop {
            let line = self.line();
            let kind = match self.next() {
                TokenKind::End if ends.is_empty() => return Ok(body),
                TokenKind::End => {
                    let tag = ends[ends.len() - 1];
                    return Err(Fault::new(format!("the tag '{tag}' is missing")).at(line));
                }
                TokenKind::Text(text) => StatementKind::Text(text),
                TokenKind::VariableBegin => {
                    let value = self.tuple(true)?;
                    match self.next() {
                        TokenKind::VariableEnd => StatementKind::Print(value),
                        _ => {
                            self.at -= 1;
                            return Err(self.unexpected("'}}'"));
                        }
                    }
                }
                TokenKind::BlockBegin => {
                    if let TokenKind::Name(name) = self.peek()
                        && ends.contains(&name.as_str())
                    {
                        return Ok(body);
                    }
                    let kind = self.nested(Self::tag)?;
                    if self.next() != TokenKind::BlockEnd {
                        self.at -= 1;
                        return Err(self.unexpected("'%}'"));
                    }
                    kind
                }
                _ => return Err(self.unexpected("text or a tag")),
            };
            body.push(Statement { line, kind });
        }
    }

    /// Reads the end of this tag, then a body up to one of these tags, and past that one's name.
    fn block(&mut self, ends: &[&str]) -> Made<(Body, String)> {
        if *self.peek() != TokenKind::BlockEnd {
            return Err(self.unexpected("'%}'"));
        }
        self.next();
        let body = self.body(ends)?;
        Ok((body, self.expect_name()?))
    }

    fn tag(&mut self) -> Made<StatementKind> {
        let line = self.line();
        let name = self.expect_name()?;
        match name.as_str() {
            "for" => self.for_tag(),
            "if" => self.if_tag(),
            "set" => self.set_tag(),
            "macro" => self.macro_tag(),
            "call" => self.call_tag(line),
            "filter" => {
                let filters = self.filters()?;
                Ok(StatementKind::FilterBlock(
                    filters,
                    self.block(&["endfilter"])?.0,
                ))
            }
            "with" => self.with_tag(),
            "generation" => Ok(StatementKind::Generation(self.block(&["endgeneration"])?.0)),
            "print" => Ok(StatementKind::Print(self.tuple(true)?)),
            "break" | "continue" if self.loops == 0 => {
                Err(Fault::new(format!("'{name}' stands outside of a loop")).at(line))
            }
            "break" => Ok(StatementKind::Break),
            "continue" => Ok(StatementKind::Continue),
            "block" | "extends" | "include" | "import" | "from" | "autoescape" => {
                let reason = format!("the tag '{name}' is not supported in chat templates");
                Err(Fault::new(reason).at(line))
            }
            _ => Err(Fault::new(format!("unknown tag '{name}'")).at(line)),
        }
    }

    fn for_tag(&mut self) -> Made<StatementKind> {
        let target = self.target_tuple(&["in"])?;
        if !self.skip_name("in") {
            return Err(self.unexpected("'in'"));
        }
        let over = self.tuple_until(false, &["recursive"])?;
        let condition = match self.skip_name("if") {
            true => Some(self.expression()?),
            false => None,
        };
        let is_recursive = self.skip_name("recursive");
        self.loops += 1;
        let body = self.block(&["endfor", "else"]);
        self.loops -= 1;
        let (body, end) = body?;
        let otherwise = match end.as_str() {
            "else" => self.block(&["endfor"])?.0,
            _ => Body::new(),
        };
        Ok(StatementKind::For(Arc::new(For {
            target,
            over,
            condition,
            is_recursive,
            body,
            otherwise,
        })))
    }

    fn if_tag(&mut self) -> Made<StatementKind> {
        let mut branches = Vec::new();
        loop {
            let condition = self.tuple(false)?;
            let (body, end) = self.block(&["elif", "else", "endif"])?;
            branches.push((condition, body));
            let otherwise = match end.as_str() {
                "elif" => continue,
                "else" => self.block(&["endif"])?.0,
                _ => Body::new(),
            };
            return Ok(StatementKind::If {
                branches,
                otherwise,
            });
        }
    }

    fn set_tag(&mut self) -> Made<StatementKind> {
        let target = self.target_tuple(&[])?;
        if self.skip_operator("=") {
            return Ok(StatementKind::Set(target, self.tuple(true)?));
        }
        let filters = match self.skip_operator("|") {
            true => self.filters()?,
            false => Vec::new(),
        };
        let body = self.block(&["endset"])?.0;
        Ok(StatementKind::SetBlock(target, filters, body))
    }

    fn macro_tag(&mut self) -> Made<StatementKind> {
        let name = self.expect_name()?;
        let parameters = self.parameters()?;
        let syntax = self.macro_rest(name, parameters, "endmacro")?;
        Ok(StatementKind::Macro(Arc::new(syntax)))
    }

    fn call_tag(&mut self, line: u32) -> Made<StatementKind> {
        let parameters = match self.is_operator("(") {
            true => self.parameters()?,
            false => Vec::new(),
        };
        let called = self.expression()?;
        if !matches!(called, Expression::Call(..)) {
            return Err(Fault::new("'call' needs a call of a macro").at(line));
        }
        let syntax = self.macro_rest("caller".to_string(), parameters, "endcall")?;
        Ok(StatementKind::Call(Arc::new(syntax), called))
    }

    fn macro_rest(
        &mut self,
        name: String,
        parameters: Vec<(String, Option<Expression>)>,
        end: &str,
    ) -> Made<MacroSyntax> {
        self.takes.push(Takes::default());
        let loops = std::mem::take(&mut self.loops);
        let body = self.block(&[end]);
        self.loops = loops;
        let takes = self.takes.pop().unwrap_or_default();
        // What a macro uses counts as used in the macros around it.
        if let Some(around) = self.takes.last_mut() {
            around.varargs |= takes.varargs;
            around.kwargs |= takes.kwargs;
            around.caller |= takes.caller;
        }
        Ok(MacroSyntax {
            name,
            parameters,
            body: body?.0,
            takes,
        })
    }

    fn parameters(&mut self) -> Made<Vec<(String, Option<Expression>)>> {
        self.expect_operator("(")?;
        let mut parameters: Vec<(String, Option<Expression>)> = Vec::new();
        while !self.skip_operator(")") {
            if !parameters.is_empty() {
                self.expect_operator(",")?;
                if self.skip_operator(")") {
                    break;
                }
            }
            let name = self.expect_name()?;
            let default = match self.skip_operator("=") {
                true => Some(self.expression()?),
                false if parameters.iter().any(|(_, default)| default.is_some()) => {
                    let reason = format!("the argument '{name}' stands behind ones with defaults");
                    return Err(Fault::new(reason).at(self.line()));
                }
                false => None,
            };
            parameters.push((name, default));
        }
        Ok(parameters)
    }

    fn with_tag(&mut self) -> Made<StatementKind> {
        let mut values = Vec::new();
        while *self.peek() != TokenKind::BlockEnd {
            if !values.is_empty() {
                self.expect_operator(",")?;
            }
            let target = self.target()?;
            self.expect_operator("=")?;
            values.push((target, self.expression()?));
        }
        Ok(StatementKind::With(values, self.block(&["endwith"])?.0))
    }

    /// `name | name(..)`, the first without a bar.
    fn filters(&mut self) -> Made<Vec<Filter>> {
        let mut filters = vec![self.filter_name()?];
        while self.skip_operator("|") {
            filters.push(self.filter_name()?);
        }
        Ok(filters)
    }

    /// `a, b`, up to a name of these.
    fn target_tuple(&mut self, ends: &[&str]) -> Made<AssignTarget> {
        let first = self.target()?;
        if !self.is_operator(",") {
            return Ok(first);
        }
        let mut targets = vec![first];
        while self.skip_operator(",") {
            let is_end = ends.iter().any(|end| self.is_name(end));
            if is_end || self.is_operator("=") || self.is_operator(")") {
                break;
            }
            targets.push(self.target()?);
        }
        Ok(AssignTarget::Tuple(targets))
    }

    fn target(&mut self) -> Made<AssignTarget> {
        if self.skip_operator("(") {
            let target = self.nested(|parser| parser.target_tuple(&[]))?;
            self.expect_operator(")")?;
            return Ok(target);
        }
        let line = self.line();
        let name = self.expect_name()?;
        if ["true", "false", "none", "True", "False", "None", "loop"].contains(&name.as_str()) {
            return Err(Fault::new(format!("'{name}' cannot be set")).at(line));
        }
        match self.skip_operator(".") {
            true => Ok(AssignTarget::Attribute(name, self.expect_name()?)),
            false => Ok(AssignTarget::Name(name)),
        }
    }
}
