//! Which parts of a conversation a value may hold.

/// Which parts of the conversation a value may be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Holds {
    /// A list of messages.
    pub list: bool,
    /// A message.
    pub message: bool,
}

impl Holds {
    pub const NOTHING: Self = Self {
        list: false,
        message: false,
    };
    pub const LIST: Self = Self {
        list: true,
        message: false,
    };
    pub const MESSAGE: Self = Self {
        list: false,
        message: true,
    };

    pub fn or(self, other: Self) -> Self {
        Self {
            list: self.list || other.list,
            message: self.message || other.message,
        }
    }

    pub fn anything(self) -> bool {
        self != Self::NOTHING
    }

    /// What an item of it is, where it is a list.
    pub fn item(self) -> Self {
        match self.list {
            true => Self::MESSAGE,
            false => Self::NOTHING,
        }
    }
}
