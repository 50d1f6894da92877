//! Parses the expressions of a template, with Jinja's precedence of operators.

use super::fault::{Fault, Made};
use super::parser::Parser;
use super::syntax::{Arguments, Binary, Comparison, Constant, Expression, Filter};
use super::token::TokenKind;

/// How many operators, filters or indices may follow each other.
const LINKS_MAX: u32 = 200;

impl Parser {
    /// An expression, with `x if y else z`.
    pub fn expression(&mut self) -> Made<Expression> {
        self.nested(Self::conditional)
    }

    /// One expression, or several as a tuple. With `whole`, each may be `x if y else z`.
    pub fn tuple(&mut self, whole: bool) -> Made<Expression> {
        self.tuple_until(whole, &[])
    }

    /// The same up to one of these names.
    pub fn tuple_until(&mut self, whole: bool, ends: &[&str]) -> Made<Expression> {
        let one = |parser: &mut Self| match whole {
            true => parser.expression(),
            false => parser.nested(Self::or),
        };
        let first = one(self)?;
        if !self.is_operator(",") {
            return Ok(first);
        }
        let mut items = vec![first];
        while self.skip_operator(",") {
            let is_over = matches!(self.peek(), TokenKind::VariableEnd | TokenKind::BlockEnd)
                || self.is_operator(")")
                || ends.iter().any(|end| self.is_name(end));
            if is_over {
                break;
            }
            items.push(one(self)?);
        }
        Ok(Expression::Tuple(items))
    }

    /// Counts the links of a chain: each is nested in the next.
    fn link(&self, links: &mut u32) -> Made<()> {
        *links += 1;
        match *links > LINKS_MAX {
            true => Err(
                Fault::new(format!("an expression has more than {LINKS_MAX} links"))
                    .at(self.line()),
            ),
            false => Ok(()),
        }
    }

    fn conditional(&mut self) -> Made<Expression> {
        let mut value = self.or()?;
        let mut links = 0;
        while self.skip_name("if") {
            self.link(&mut links)?;
            let condition = self.or()?;
            let otherwise = match self.skip_name("else") {
                true => Some(Box::new(self.nested(Self::conditional)?)),
                false => None,
            };
            value = Expression::If(Box::new(condition), Box::new(value), otherwise);
        }
        Ok(value)
    }

    fn or(&mut self) -> Made<Expression> {
        let mut left = self.and()?;
        let mut links = 0;
        while self.skip_name("or") {
            self.link(&mut links)?;
            left = Expression::Or(Box::new(left), Box::new(self.and()?));
        }
        Ok(left)
    }

    fn and(&mut self) -> Made<Expression> {
        let mut left = self.not()?;
        let mut links = 0;
        while self.skip_name("and") {
            self.link(&mut links)?;
            left = Expression::And(Box::new(left), Box::new(self.not()?));
        }
        Ok(left)
    }

    fn not(&mut self) -> Made<Expression> {
        match self.skip_name("not") {
            true => Ok(Expression::Not(Box::new(self.nested(Self::not)?))),
            false => self.comparison(),
        }
    }

    fn comparison(&mut self) -> Made<Expression> {
        let first = self.sum()?;
        let mut rest = Vec::new();
        loop {
            let comparison = match self.peek() {
                TokenKind::Operator("==") => Comparison::Equal,
                TokenKind::Operator("!=") => Comparison::NotEqual,
                TokenKind::Operator("<") => Comparison::Less,
                TokenKind::Operator("<=") => Comparison::LessEqual,
                TokenKind::Operator(">") => Comparison::Greater,
                TokenKind::Operator(">=") => Comparison::GreaterEqual,
                TokenKind::Name(name) if name == "in" => Comparison::In,
                TokenKind::Name(name) if name == "not" => match self.peek_second() {
                    TokenKind::Name(second) if second == "in" => {
                        self.next();
                        Comparison::NotIn
                    }
                    _ => break,
                },
                _ => break,
            };
            self.next();
            rest.push((comparison, self.sum()?));
        }
        Ok(match rest.is_empty() {
            true => first,
            false => Expression::Compare(Box::new(first), rest),
        })
    }

    fn sum(&mut self) -> Made<Expression> {
        let mut left = self.concat()?;
        let mut links = 0;
        loop {
            self.link(&mut links)?;
            let operator = match self.peek() {
                TokenKind::Operator("+") => Binary::Add,
                TokenKind::Operator("-") => Binary::Subtract,
                _ => return Ok(left),
            };
            self.next();
            left = Expression::Binary(operator, Box::new(left), Box::new(self.concat()?));
        }
    }

    fn concat(&mut self) -> Made<Expression> {
        let first = self.product()?;
        if !self.is_operator("~") {
            return Ok(first);
        }
        let mut parts = vec![first];
        while self.skip_operator("~") {
            parts.push(self.product()?);
        }
        Ok(Expression::Concat(parts))
    }

    fn product(&mut self) -> Made<Expression> {
        let mut left = self.power()?;
        let mut links = 0;
        loop {
            self.link(&mut links)?;
            let operator = match self.peek() {
                TokenKind::Operator("*") => Binary::Multiply,
                TokenKind::Operator("/") => Binary::Divide,
                TokenKind::Operator("//") => Binary::FloorDivide,
                TokenKind::Operator("%") => Binary::Remainder,
                _ => return Ok(left),
            };
            self.next();
            left = Expression::Binary(operator, Box::new(left), Box::new(self.power()?));
        }
    }

    fn power(&mut self) -> Made<Expression> {
        let mut left = self.unary(true)?;
        let mut links = 0;
        while self.skip_operator("**") {
            self.link(&mut links)?;
            let right = self.unary(true)?;
            left = Expression::Binary(Binary::Power, Box::new(left), Box::new(right));
        }
        Ok(left)
    }

    fn unary(&mut self, with_filters: bool) -> Made<Expression> {
        let sign = match self.peek() {
            TokenKind::Operator("-") => Some('-'),
            TokenKind::Operator("+") => Some('+'),
            _ => None,
        };
        let value = match sign {
            Some(sign) => {
                self.next();
                let value = self.nested(|parser| parser.unary(false))?;
                Expression::Sign(sign, Box::new(value))
            }
            None => self.primary()?,
        };
        let value = self.postfix(value)?;
        match with_filters {
            true => self.filtered(value),
            false => Ok(value),
        }
    }

    fn primary(&mut self) -> Made<Expression> {
        let line = self.line();
        let constant = |constant| Ok(Expression::Constant(constant));
        match self.next() {
            TokenKind::Name(name) => match name.as_str() {
                "true" | "True" => constant(Constant::Bool(true)),
                "false" | "False" => constant(Constant::Bool(false)),
                "none" | "None" => constant(Constant::None),
                _ => {
                    self.speaks_of(&name);
                    Ok(Expression::Name(name))
                }
            },
            TokenKind::String(mut text) => {
                while let TokenKind::String(more) = self.peek() {
                    text += more;
                    self.next();
                }
                constant(Constant::Text(text))
            }
            TokenKind::Int(value) => constant(Constant::Int(value)),
            TokenKind::Float(value) => constant(Constant::Float(value)),
            TokenKind::Operator("(") => {
                if self.skip_operator(")") {
                    return Ok(Expression::Tuple(Vec::new()));
                }
                let value = self.tuple(true)?;
                self.expect_operator(")")?;
                Ok(value)
            }
            TokenKind::Operator("[") => Ok(Expression::List(self.items("]")?)),
            TokenKind::Operator("{") => self.dict(),
            _ => {
                self.back();
                Err(self.unexpected("a value").at(line))
            }
        }
    }

    /// Expressions up to a closing bracket.
    fn items(&mut self, end: &str) -> Made<Vec<Expression>> {
        let mut items = Vec::new();
        while !self.skip_operator(end) {
            if !items.is_empty() {
                self.expect_operator(",")?;
                if self.skip_operator(end) {
                    break;
                }
            }
            items.push(self.expression()?);
        }
        Ok(items)
    }

    fn dict(&mut self) -> Made<Expression> {
        let mut entries = Vec::new();
        while !self.skip_operator("}") {
            if !entries.is_empty() {
                self.expect_operator(",")?;
                if self.skip_operator("}") {
                    break;
                }
            }
            let key = self.expression()?;
            self.expect_operator(":")?;
            entries.push((key, self.expression()?));
        }
        Ok(Expression::Dict(entries))
    }

    fn postfix(&mut self, mut value: Expression) -> Made<Expression> {
        let mut links = 0;
        loop {
            self.link(&mut links)?;
            if self.skip_operator(".") {
                value = match self.next() {
                    TokenKind::Name(name) => Expression::Attribute(Box::new(value), name),
                    TokenKind::Int(index) => {
                        let index = Expression::Constant(Constant::Int(index));
                        Expression::Item(Box::new(value), Box::new(index))
                    }
                    _ => {
                        self.back();
                        return Err(self.unexpected("a name behind '.'"));
                    }
                };
            } else if self.skip_operator("[") {
                value = self.subscript(value)?;
            } else if self.is_operator("(") {
                value = self.call(value)?;
            } else {
                return Ok(value);
            }
        }
    }

    fn call(&mut self, called: Expression) -> Made<Expression> {
        let arguments = self.arguments()?;
        Ok(Expression::Call(Box::new(called), Box::new(arguments)))
    }

    fn subscript(&mut self, value: Expression) -> Made<Expression> {
        let mut parts: [Option<Expression>; 3] = [None, None, None];
        let mut place = 0;
        loop {
            if self.skip_operator("]") {
                break;
            }
            if self.skip_operator(":") {
                place += 1;
                if place > 2 {
                    return Err(Fault::new("a slice has too many parts").at(self.line()));
                }
                continue;
            }
            if parts[place].is_some() {
                return Err(self.unexpected("']'"));
            }
            parts[place] = Some(match place {
                0 => self.tuple_in_brackets()?,
                _ => self.expression()?,
            });
        }
        let value = Box::new(value);
        match (place, parts) {
            (0, [Some(index), _, _]) => Ok(Expression::Item(value, Box::new(index))),
            (0, _) => Err(Fault::new("an index is missing").at(self.line())),
            (_, parts) => Ok(Expression::Slice(value, Box::new(parts))),
        }
    }

    fn tuple_in_brackets(&mut self) -> Made<Expression> {
        let first = self.expression()?;
        if !self.is_operator(",") {
            return Ok(first);
        }
        let mut items = vec![first];
        while self.skip_operator(",") {
            items.push(self.expression()?);
        }
        Ok(Expression::Tuple(items))
    }

    /// `(a, b=c, *d, **e)`
    pub fn arguments(&mut self) -> Made<Arguments> {
        self.expect_operator("(")?;
        let mut arguments = Arguments::default();
        let mut is_first = true;
        while !self.skip_operator(")") {
            if !is_first {
                self.expect_operator(",")?;
                if self.skip_operator(")") {
                    break;
                }
            }
            is_first = false;
            let is_named = matches!(self.peek(), TokenKind::Name(_))
                && *self.peek_second() == TokenKind::Operator("=");
            if self.skip_operator("**") {
                arguments.more_named = Some(Box::new(self.expression()?));
            } else if self.skip_operator("*") {
                arguments.more = Some(Box::new(self.expression()?));
            } else if is_named {
                let name = self.expect_name()?;
                self.next();
                arguments.named.push((name, self.expression()?));
            } else if arguments.named.is_empty() && arguments.more_named.is_none() {
                arguments.values.push(self.expression()?);
            } else {
                return Err(self.unexpected("a named argument"));
            }
        }
        Ok(arguments)
    }

    /// Filters, tests and calls behind a value.
    fn filtered(&mut self, mut value: Expression) -> Made<Expression> {
        let mut links = 0;
        loop {
            self.link(&mut links)?;
            if self.skip_operator("|") {
                let filter = self.filter_name()?;
                value = Expression::Filter(Some(Box::new(value)), Box::new(filter));
            } else if self.skip_name("is") {
                value = self.test(value)?;
            } else if self.is_operator("(") {
                value = self.call(value)?;
            } else {
                return Ok(value);
            }
        }
    }

    /// A filter's name and arguments.
    pub fn filter_name(&mut self) -> Made<Filter> {
        let name = self.expect_name()?;
        let arguments = match self.is_operator("(") {
            true => self.arguments()?,
            false => Arguments::default(),
        };
        Ok(Filter { name, arguments })
    }

    fn test(&mut self, value: Expression) -> Made<Expression> {
        let is_not = self.skip_name("not");
        let name = self.expect_name()?;
        let takes_value = match self.peek() {
            TokenKind::Name(name) => !["else", "or", "and", "is"].contains(&name.as_str()),
            TokenKind::String(_) | TokenKind::Int(_) | TokenKind::Float(_) => true,
            TokenKind::Operator(operator) => ["[", "{"].contains(operator),
            _ => false,
        };
        let arguments = if self.is_operator("(") {
            self.arguments()?
        } else if takes_value {
            let primary = self.primary()?;
            Arguments {
                values: vec![self.postfix(primary)?],
                ..Arguments::default()
            }
        } else {
            Arguments::default()
        };
        let test = Expression::Test(Box::new(value), Box::new(Filter { name, arguments }));
        Ok(match is_not {
            true => Expression::Not(Box::new(test)),
            false => test,
        })
    }
}
