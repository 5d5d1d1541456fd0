//! What the values of a condition are: the types that the checker knows.

use std::fmt;

/// The type of one value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `true` or `false`.
    Bool,
    /// A whole number.
    Int,
    /// A number with a fraction.
    Double,
    /// A text.
    Text,
    /// An instant.
    Time,
    /// A length of time.
    Span,
    /// The items of a list without items.
    Nothing,
}

/// The type of a value or of a list of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Type {
    /// One value.
    One(Kind),
    /// A list of them.
    List(Kind),
}

impl Type {
    /// Whether a value of either may stand where one of the other is meant.
    pub(super) fn agrees(self, other: Self) -> bool {
        match (self, other) {
            (Self::List(Kind::Nothing), Self::List(_))
            | (Self::List(_), Self::List(Kind::Nothing)) => true,
            (one, other) => one == other,
        }
    }
}

impl Kind {
    const fn name(self) -> &'static str {
        match self {
            Self::Bool => "bool",
            Self::Int => "int",
            Self::Double => "double",
            Self::Text => "string",
            Self::Time => "timestamp",
            Self::Span => "duration",
            Self::Nothing => "nothing",
        }
    }
}

/// As CEL calls it.
impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::One(kind) => f.write_str(kind.name()),
            Self::List(kind) => write!(f, "list of {}", kind.name()),
        }
    }
}
