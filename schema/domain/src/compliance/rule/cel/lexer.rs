//! What a source must not exceed before it is parsed: size, tokens, nesting.
//!
//! The parser and everything behind it recurse per bracket and per operator, so these are counted here, in one pass and without
//! recursion. Must stay true: a bracket or an operator is typed here wherever the parser sees one; strings and comments are
//! lexed as its grammar does. A debug build on a stack of 2 MiB parses, checks and runs the worst that is let through.

/// Bytes of a source.
const MAX_SOURCE_BYTES: usize = 4_096;
/// Tokens that do not make an expression deeper: names, numbers, texts, commas, closing brackets.
const MAX_TOKENS: usize = 1_024;
/// Operators and brackets, each of which may.
const MAX_OPERATORS: usize = 192;
/// Open brackets at one position.
const MAX_NESTING: usize = 32;

/// What is wrong, and at which byte.
pub(super) struct LimitExceeded {
    pub(super) at: usize,
    pub(super) message: String,
}

/// Whether the source may be handed to the parser. It may still be no CEL at all.
pub(super) fn lexer(source: &str) -> Result<(), LimitExceeded> {
    if source.len() > MAX_SOURCE_BYTES {
        let message = format!("has {} bytes, at most {MAX_SOURCE_BYTES} are allowed", source.len());
        return Err(LimitExceeded { at: 0, message });
    }
    if source.trim().is_empty() {
        return Err(LimitExceeded { at: 0, message: "is empty".to_owned() });
    }
    let bytes = source.as_bytes();
    let (mut at, mut tokens, mut operators, mut open) = (0, 0, 0, 0_usize);
    while let Some(&byte) = bytes.get(at) {
        let start = at;
        at = match byte {
            b' ' | b'\t' | b'\n' | b'\r' | 0x0C => {
                at += 1;
                continue;
            }
            b'/' if bytes.get(at + 1) == Some(&b'/') => {
                at += bytes[at..].iter().take_while(|byte| **byte != b'\n').count();
                continue;
            }
            b'"' | b'\'' => string(bytes, at, false)?,
            _ if is_word(byte) => {
                let end = at + bytes[at..].iter().take_while(|byte| is_word(**byte)).count();
                let is_prefix = matches!(&bytes[at..end], [b'r' | b'R' | b'b' | b'B'] | [_, _])
                    && bytes[at..end].iter().all(|byte| b"rRbB".contains(byte));
                match bytes.get(end) {
                    Some(b'"' | b'\'') if is_prefix => {
                        let is_raw = bytes[at..end].iter().any(|byte| b"rR".contains(byte));
                        string(bytes, end, is_raw)?
                    }
                    _ => {
                        // `in` is an operator, too.
                        operators += usize::from(&bytes[at..end] == b"in");
                        end
                    }
                }
            }
            b',' => at + 1,
            b')' | b']' | b'}' => {
                open = open.saturating_sub(1);
                at + 1
            }
            b'(' | b'[' | b'{' => {
                (open, operators) = (open + 1, operators + 1);
                if open > MAX_NESTING {
                    let message =
                        format!("nests {open} brackets deep, at most {MAX_NESTING} are allowed");
                    return Err(LimitExceeded { at: start, message });
                }
                at + 1
            }
            // Any number of these stand at one depth.
            b'&' | b'|' if bytes.get(at + 1) == Some(&byte) => at + 2,
            _ => {
                operators += 1;
                at + if bytes.get(at + 1) == Some(&b'=') { 2 } else { 1 }
            }
        };
        tokens += 1;
        if tokens > MAX_TOKENS {
            let message = format!("has more than {MAX_TOKENS} tokens");
            return Err(LimitExceeded { at: start, message });
        }
        if operators > MAX_OPERATORS {
            let message = format!("has more than {MAX_OPERATORS} operators and brackets");
            return Err(LimitExceeded { at: start, message });
        }
    }
    Ok(())
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80
}

/// The end of the text that begins at this quote.
fn string(bytes: &[u8], start: usize, is_raw: bool) -> Result<usize, LimitExceeded> {
    let quote = bytes[start];
    let is_triple = bytes[start..].starts_with(&[quote; 3]);
    let mut at = start + if is_triple { 3 } else { 1 };
    let unended =
        || LimitExceeded { at: start, message: "has a text that does not end".to_owned() };
    loop {
        match bytes.get(at) {
            None => return Err(unended()),
            Some(b'\\') if !is_raw => at += 2,
            Some(b'\n' | b'\r') if !is_triple => return Err(unended()),
            Some(byte) if *byte == quote && !is_triple => return Ok(at + 1),
            Some(_) if is_triple && bytes[at..].starts_with(&[quote; 3]) => return Ok(at + 3),
            Some(_) => at += 1,
        }
    }
}
