//! Error of a document that is rejected before execution: one of two codes, a message and a position.
//!
//! [`DocumentError`] deliberately does not implement `Display`: async-graphql would convert it automatically and drop
//! the code. Messages name the limit and the measured number, never internals of the server.

use async_graphql::Pos;

/// Error code of a document that is rejected before execution.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Code {
    /// The document is invalid, whatever its size.
    Validation,
    /// The document exceeds a limit of one request.
    QueryTooComplex,
}

/// An error that rejects a document before execution.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DocumentError {
    /// Error code, evaluated by programs.
    pub(crate) code: Code,
    /// Message for people: the exceeded limit and the measured number.
    pub(crate) message: String,
    /// Position in the source; `None` if the error has no single position.
    pub(crate) position: Option<Pos>,
}

impl DocumentError {
    /// Creates a `VALIDATION` error: the document is invalid.
    pub(crate) fn invalid(position: impl Into<Option<Pos>>, message: impl Into<String>) -> Self {
        Self { code: Code::Validation, message: message.into(), position: position.into() }
    }

    /// Creates a `QUERY_TOO_COMPLEX` error: the document exceeds a limit.
    pub(crate) fn too_complex(
        position: impl Into<Option<Pos>>,
        message: impl Into<String>,
    ) -> Self {
        Self { code: Code::QueryTooComplex, message: message.into(), position: position.into() }
    }
}

/// Formats a number with thousands separators: `12,400`.
pub(crate) fn with_separators(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_by_thousands() {
        for (number, text) in [
            (0, "0"),
            (999, "999"),
            (1_000, "1,000"),
            (12_400, "12,400"),
            (u64::MAX, "18,446,744,073,709,551,615"),
        ] {
            assert_eq!(with_separators(number), text);
        }
    }
}
