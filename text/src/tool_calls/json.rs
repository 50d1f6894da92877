//! Where a JSON value ends, found character by character.

/// Follows one value. What stands within it is not checked but for its strings and brackets.
#[derive(Clone, Debug, Default)]
pub struct ValueEnd {
    depth: usize,
    in_string: bool,
    is_escaped: bool,
    has_begun: bool,
}

/// What a character is to the value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ValuePlace {
    /// White space in front of it.
    Before,
    /// Part of it.
    Inside,
    /// The last of it.
    Last,
    /// Behind it: numbers and words have no end of their own.
    Behind,
}

impl ValueEnd {
    /// Takes the next character.
    pub fn push(&mut self, character: char) -> ValuePlace {
        if self.in_string {
            let ends = character == '"' && !self.is_escaped;
            self.is_escaped = character == '\\' && !self.is_escaped;
            self.in_string = !ends;
            return self.place(ends);
        }
        let is_bare = self.has_begun && self.depth == 0;
        match character {
            '"' | '{' | '[' if is_bare => return ValuePlace::Behind,
            '"' => self.in_string = true,
            '{' | '[' => self.depth += 1,
            '}' | ']' | ',' if self.depth == 0 => return ValuePlace::Behind,
            '}' | ']' => {
                self.depth -= 1;
                return self.place(true);
            }
            space if space.is_whitespace() && is_bare => return ValuePlace::Behind,
            space if space.is_whitespace() && !self.has_begun => return ValuePlace::Before,
            _ => {}
        }
        self.has_begun = true;
        ValuePlace::Inside
    }

    /// Whether more than white space in front of it has come.
    pub fn has_begun(&self) -> bool {
        self.has_begun
    }

    fn place(&self, ends: bool) -> ValuePlace {
        match ends && self.depth == 0 {
            true => ValuePlace::Last,
            false => ValuePlace::Inside,
        }
    }
}
