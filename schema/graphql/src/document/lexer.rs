//! Limits on a document's source before parsing: size, tokens, nesting.
//!
//! The parser recurses at least once per bracket, so brackets are counted here, in one pass and without recursion. Must
//! stay true: this lexer sees a bracket wherever the parser does. The lexer treats strings, block strings and comments
//! as the parser's grammar does, and rejects input that this grammar can read in two ways (an unterminated `"""`).
//!
//! Chosen: `MAX_NESTING` of 64. The parser limits nested selections to 64, the introspection query has depth 15, and a
//! debug build on a 2 MiB stack parses 317 levels of the worst construct (object literals). Revisit when the parser is
//! replaced.

use async_graphql::{Pos, Value, Variables};

use crate::document::error::{DocumentError, with_separators};

/// Maximum size of a document in bytes.
pub(crate) const MAX_SOURCE_BYTES: usize = 16 * 1024;
/// Maximum number of tokens in a document.
pub(crate) const MAX_TOKENS: usize = 2_000;
/// Maximum number of `{`, `[` and `(` that are open at the same time in a document.
pub(crate) const MAX_NESTING: usize = 64;
/// Maximum size of the variables in bytes, as JSON.
pub(crate) const MAX_VARIABLES_BYTES: usize = 256 * 1024;
/// Maximum number of `{` and `[` that are open at the same time in the variables' JSON.
pub(crate) const MAX_VARIABLES_NESTING: usize = 32;

/// Checks that the source is safe to pass to the parser. The source need not be valid GraphQL.
pub(crate) fn source(source: &str) -> Result<(), DocumentError> {
    if source.len() > MAX_SOURCE_BYTES {
        let (size, limit) =
            (with_separators(source.len() as u64), with_separators(MAX_SOURCE_BYTES as u64));
        return Err(DocumentError::too_complex(
            None,
            format!("this document has {size} bytes, the limit is {limit}"),
        ));
    }
    Lexer { bytes: source.as_bytes(), at: 0 }.run()
}

/// Checks the size and nesting of the variables. serde has already rejected JSON that nests deeper than 128.
pub(crate) fn variables(variables: &Variables) -> Result<(), DocumentError> {
    let size = serde_json::to_vec(variables).map_or(usize::MAX, |json| json.len());
    if size > MAX_VARIABLES_BYTES {
        let (size, limit) =
            (with_separators(size as u64), with_separators(MAX_VARIABLES_BYTES as u64));
        let message = format!("the variables have {size} bytes as JSON, the limit is {limit}");
        return Err(DocumentError::too_complex(None, message));
    }
    let deepest = variables.iter().map(|(name, value)| (depth(value) + 1, name)).max();
    match deepest {
        Some((depth, name)) if depth > MAX_VARIABLES_NESTING => {
            let message = format!(
                "the variable {name} nests {depth} deep, the limit is {MAX_VARIABLES_NESTING}"
            );
            Err(DocumentError::too_complex(None, message))
        }
        Some(_) | None => Ok(()),
    }
}

/// Returns the depth of nested objects and lists.
fn depth(value: &Value) -> usize {
    match value {
        Value::List(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Value::Object(fields) => 1 + fields.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

struct Lexer<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Lexer<'_> {
    fn run(mut self) -> Result<(), DocumentError> {
        let (mut tokens, mut open) = (0_usize, 0_usize);
        while let Some(&byte) = self.bytes.get(self.at) {
            let start = self.at;
            match byte {
                b' ' | b',' | b'\t' | b'\n' | b'\r' => {
                    self.at += 1;
                    continue;
                }
                0xEF if self.bytes[start..].starts_with("\u{feff}".as_bytes()) => {
                    self.at += 3;
                    continue;
                }
                b'#' => {
                    self.comment()?;
                    continue;
                }
                b'"' => self.string()?,
                b'{' | b'[' | b'(' => {
                    self.at += 1;
                    open += 1;
                    if open > MAX_NESTING {
                        let position = self.position(start);
                        let message = format!(
                            "this document nests {open} brackets deep at line {}, column {}, the limit is {MAX_NESTING}",
                            position.line, position.column
                        );
                        return Err(DocumentError::too_complex(position, message));
                    }
                }
                b'}' | b']' | b')' => {
                    self.at += 1;
                    open = open.saturating_sub(1);
                }
                b'A'..=b'Z' | b'a'..=b'z' | b'_' => {
                    self.skip_while(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
                }
                b'-' | b'0'..=b'9' => self.number(),
                b'.' if self.bytes[start..].starts_with(b"...") => self.at += 3,
                _ => self.character()?,
            }
            tokens += 1;
            if tokens > MAX_TOKENS {
                let position = self.position(start);
                let message = format!(
                    "this document has more than {} tokens: token {} is at line {}, column {}",
                    with_separators(MAX_TOKENS as u64),
                    with_separators(tokens as u64),
                    position.line,
                    position.column
                );
                return Err(DocumentError::too_complex(position, message));
            }
        }
        Ok(())
    }

    fn comment(&mut self) -> Result<(), DocumentError> {
        while !matches!(self.bytes.get(self.at), None | Some(b'\n' | b'\r')) {
            self.character()?;
        }
        Ok(())
    }

    fn number(&mut self) {
        self.at += 1; // the sign or the first digit
        self.skip_while(|byte| byte.is_ascii_digit());
        let digit = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_digit);
        if self.peek(0) == Some(&b'.') && digit(self.peek(1)) {
            self.at += 1;
            self.skip_while(|byte| byte.is_ascii_digit());
        }
        if matches!(self.peek(0), Some(b'e' | b'E')) {
            let sign = usize::from(matches!(self.peek(1), Some(b'+' | b'-')));
            if digit(self.peek(1 + sign)) {
                self.at += 1 + sign;
                self.skip_while(|byte| byte.is_ascii_digit());
            }
        }
    }

    fn string(&mut self) -> Result<(), DocumentError> {
        let start = self.at;
        if self.bytes[start..].starts_with(b"\"\"\"") {
            self.at += 3;
            while self.at < self.bytes.len() {
                let rest = &self.bytes[self.at..];
                if rest.starts_with(b"\\\"\"\"") {
                    self.at += 4;
                } else if rest.starts_with(b"\"\"\"") {
                    self.at += 3;
                    return Ok(());
                } else {
                    self.character()?;
                }
            }
            return Err(self.unterminated(start, "block string"));
        }
        self.at += 1;
        loop {
            match self.peek(0) {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(());
                }
                // An escape must not end the line; the parser checks whether the escape sequence is valid.
                Some(b'\\') if !matches!(self.peek(1), None | Some(b'\n' | b'\r')) => {
                    self.at += 1;
                    self.character()?;
                }
                None | Some(b'\n' | b'\r' | b'\\') => {
                    return Err(self.unterminated(start, "string"));
                }
                Some(_) => self.character()?,
            }
        }
    }

    /// Advances over one character and rejects control characters other than tab and line ends.
    fn character(&mut self) -> Result<(), DocumentError> {
        let rest = &self.bytes[self.at..];
        let width = rest.iter().skip(1).take_while(|byte| (**byte & 0xC0) == 0x80).count() + 1;
        let is_control = match rest[0] {
            b'\t' | b'\n' | b'\r' => false,
            0x7F | 0..0x20 => true,
            0xC2 => matches!(rest.get(1), Some(0x80..=0x9F)),
            _ => false,
        };
        if is_control {
            let position = self.position(self.at);
            let message = format!(
                "this document has a control character at line {}, column {}",
                position.line, position.column
            );
            return Err(DocumentError::invalid(position, message));
        }
        self.at += width;
        Ok(())
    }

    fn unterminated(&self, start: usize, what: &str) -> DocumentError {
        let position = self.position(start);
        let message = format!(
            "the {what} that begins at line {}, column {} is not closed",
            position.line, position.column
        );
        DocumentError::invalid(position, message)
    }

    fn skip_while(&mut self, matches: impl Fn(u8) -> bool) {
        while self.bytes.get(self.at).is_some_and(|byte| matches(*byte)) {
            self.at += 1;
        }
    }

    fn peek(&self, ahead: usize) -> Option<&u8> {
        self.bytes.get(self.at + ahead)
    }

    /// Returns line and column of a byte offset. Counts from the start, so it is used for errors only.
    fn position(&self, at: usize) -> Pos {
        let (mut line, mut column, mut previous) = (1, 1, 0);
        for &byte in &self.bytes[..at] {
            match byte {
                b'\n' if previous == b'\r' => {}
                b'\n' | b'\r' => (line, column) = (line + 1, 1),
                0x80..=0xBF => {}
                _ => column += 1,
            }
            previous = byte;
        }
        Pos { line, column }
    }
}

#[cfg(test)]
mod tests;
