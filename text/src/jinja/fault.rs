//! Why a template stopped.

/// What went wrong, and where.
#[derive(Clone, Debug)]
pub struct Fault {
    reason: String,
    /// From 1; 0 where it is not known yet.
    line: u32,
}

/// What a step of a template gives.
pub type Made<T> = Result<T, Fault>;

impl Fault {
    /// A reason, to which the caller adds the line.
    pub fn new(reason: impl Into<String>) -> Self {
        Self {
            reason: reason.into(),
            line: 0,
        }
    }

    /// The same at a line, if it has none.
    pub fn at(mut self, line: u32) -> Self {
        if self.line == 0 {
            self.line = line;
        }
        self
    }
}

impl std::fmt::Display for Fault {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str(&self.reason)?;
        match self.line {
            0 => Ok(()),
            line => write!(out, " (line {line} of the template)"),
        }
    }
}
