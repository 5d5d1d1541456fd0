//! Types of values in a condition, as the type checker uses them.

use std::fmt;

/// The type of one value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Boolean value: CEL's `bool`, `true` or `false`.
    Bool,
    /// Whole number of 64 bits: CEL's `int`.
    Int,
    /// Floating-point number of 64 bits: CEL's `double`.
    Double,
    /// Text of Unicode characters: CEL's `string`.
    Text,
    /// Point in time: CEL's `timestamp`.
    Time,
    /// Length of time: CEL's `duration`.
    Span,
    /// Item type of an empty list, which agrees with every other item type.
    Nothing,
}

/// The type of a value or of a list of values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Type {
    /// A single value of this kind.
    One(Kind),
    /// A list of values of this kind.
    List(Kind),
}

impl Type {
    /// Returns true if the types are equal, or both are lists and one of them is empty.
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

/// Writes the type as CEL names it.
impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::One(kind) => f.write_str(kind.name()),
            Self::List(kind) => write!(f, "list of {}", kind.name()),
        }
    }
}
