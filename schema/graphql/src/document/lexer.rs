//! What a source text must not exceed before it is parsed: size, tokens, nesting.
//!
//! The parser recurses once or more per bracket, so brackets are counted here, in one pass and without recursion.
//! Must stay true: this lexer sees a bracket wherever the parser does. Strings, block strings and comments are lexed
//! as its grammar does; what that grammar reads in two ways (an unterminated `"""`) is refused.
//! `NESTING` 64: the parser itself stops selections at 64, introspection is 15 deep, and a debug build on a 2 MiB stack
//! parses 317 levels of the worst construct (object literals). Choose again with another parser.

use async_graphql::{Pos, Value, Variables};

use crate::document::error::{DocumentError, grouped};

/// Bytes of a document.
pub(crate) const SOURCE: usize = 16 * 1024;
/// Tokens of a document.
pub(crate) const TOKENS: usize = 2_000;
/// Open `{`, `[` and `(` at one place of a document.
pub(crate) const NESTING: usize = 64;
/// Bytes of the variables' JSON.
pub(crate) const VARIABLES: usize = 256 * 1024;
/// Open `{` and `[` at one place of the variables' JSON.
pub(crate) const VARIABLES_NESTING: usize = 32;

/// Whether the source may be handed to the parser. It may still be no GraphQL at all.
pub(crate) fn source(source: &str) -> Result<(), DocumentError> {
    if source.len() > SOURCE {
        let (size, limit) = (grouped(source.len() as u64), grouped(SOURCE as u64));
        return Err(DocumentError::too_complex(
            None,
            format!("this document has {size} bytes, the limit is {limit}"),
        ));
    }
    Lexer { bytes: source.as_bytes(), at: 0 }.run()
}

/// Whether the variables are within bounds; serde has let none in that nest deeper than 128.
pub(crate) fn variables(variables: &Variables) -> Result<(), DocumentError> {
    let size = serde_json::to_vec(variables).map_or(usize::MAX, |json| json.len());
    if size > VARIABLES {
        let (size, limit) = (grouped(size as u64), grouped(VARIABLES as u64));
        let message = format!("the variables have {size} bytes as JSON, the limit is {limit}");
        return Err(DocumentError::too_complex(None, message));
    }
    let deepest = variables.iter().map(|(name, value)| (depth(value) + 1, name)).max();
    match deepest {
        Some((depth, name)) if depth > VARIABLES_NESTING => {
            let message =
                format!("the variable {name} nests {depth} deep, the limit is {VARIABLES_NESTING}");
            Err(DocumentError::too_complex(None, message))
        }
        Some(_) | None => Ok(()),
    }
}

/// Objects and lists within each other.
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
                    if open > NESTING {
                        let position = self.position(start);
                        let message = format!(
                            "this document nests {open} brackets deep at line {}, column {}, the limit is {NESTING}",
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
            if tokens > TOKENS {
                let position = self.position(start);
                let message = format!(
                    "this document has more than {} tokens: number {} is at line {}, column {}",
                    grouped(TOKENS as u64),
                    grouped(tokens as u64),
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
                // What follows must not end the line; whether the escape exists is the parser's to say.
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

    /// Steps over one character, which must not be a control character other than tab and line ends.
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
            "the {what} that begins at line {}, column {} does not end",
            position.line, position.column
        );
        DocumentError::invalid(position, message)
    }

    fn skip_while(&mut self, wanted: impl Fn(u8) -> bool) {
        while self.bytes.get(self.at).is_some_and(|byte| wanted(*byte)) {
            self.at += 1;
        }
    }

    fn peek(&self, ahead: usize) -> Option<&u8> {
        self.bytes.get(self.at + ahead)
    }

    /// Counted only for a refusal, from the start.
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
