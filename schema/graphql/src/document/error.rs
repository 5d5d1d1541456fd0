//! Why a document is not executed: one of two codes, a sentence, a place.
//!
//! It is deliberately not `Display`: async-graphql would convert it by itself and drop the code. Sentences name the
//! limit and the measured number, never a driver's or the parser's internals.

use async_graphql::Pos;

/// The code of a refusal before execution.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Code {
    /// The document is not one that we accept, whatever its size.
    Validation,
    /// The document asks for more than one request may.
    QueryTooComplex,
}

/// A document that is not executed, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DocumentError {
    /// What the client's code sees.
    pub(crate) code: Code,
    /// What a person reads: which limit, and the number that was measured.
    pub(crate) message: String,
    /// Where in the source, if at one place.
    pub(crate) position: Option<Pos>,
}

impl DocumentError {
    /// The document is not one that we accept.
    pub(crate) fn invalid(position: impl Into<Option<Pos>>, message: impl Into<String>) -> Self {
        Self { code: Code::Validation, message: message.into(), position: position.into() }
    }

    /// The document asks for too much.
    pub(crate) fn too_complex(
        position: impl Into<Option<Pos>>,
        message: impl Into<String>,
    ) -> Self {
        Self { code: Code::QueryTooComplex, message: message.into(), position: position.into() }
    }
}

/// A number as people read it: `12,400`.
pub(crate) fn grouped(number: u64) -> String {
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
            assert_eq!(grouped(number), text);
        }
    }
}
