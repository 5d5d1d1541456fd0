//! Limits on a source text that are checked before parsing: size, tokens, operators and nesting.
//!
//! The parser and all later steps recurse per bracket and per operator. Brackets and operators are therefore counted
//! here first, in one pass without recursion. Must stay true: every bracket and operator that the parser sees is
//! counted here, and strings and comments are lexed exactly as in the grammar of the parser. A test parses, checks and
//! evaluates the deepest accepted sources in a debug build on a stack of 2 MiB.

/// Maximum size of a source in bytes.
const MAX_SOURCE_BYTES: usize = 4_096;
/// Maximum number of tokens in a source.
const MAX_TOKENS: usize = 1_024;
/// Maximum number of operators and opening brackets. Each of them may add one level of nesting.
const MAX_OPERATORS: usize = 192;
/// Maximum number of brackets that are open at the same time.
const MAX_NESTING: usize = 32;

/// Error: the source exceeds a limit at byte `at`.
pub(super) struct LimitExceeded {
    pub(super) at: usize,
    pub(super) message: String,
}

/// Checks the limits. A source within the limits may still be invalid CEL.
pub(super) fn check_limits(source: &str) -> Result<(), LimitExceeded> {
    if source.len() > MAX_SOURCE_BYTES {
        let message = format!(
            "the expression has {} bytes, at most {MAX_SOURCE_BYTES} are allowed",
            source.len()
        );
        return Err(LimitExceeded { at: 0, message });
    }
    if source.trim().is_empty() {
        return Err(LimitExceeded {
            at: 0,
            message: "the expression is empty: write one, such as attr.disk_encrypted".to_owned(),
        });
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
                        // The word `in` is an operator.
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
                    let message = format!(
                        "brackets are nested {open} deep here, at most {MAX_NESTING} are allowed"
                    );
                    return Err(LimitExceeded { at: start, message });
                }
                at + 1
            }
            // The parser balances chains of && and ||, so these operators add no nesting.
            b'&' | b'|' if bytes.get(at + 1) == Some(&byte) => at + 2,
            _ => {
                operators += 1;
                at + if bytes.get(at + 1) == Some(&b'=') { 2 } else { 1 }
            }
        };
        tokens += 1;
        if tokens > MAX_TOKENS {
            let message = format!(
                "the expression has more than {MAX_TOKENS} tokens: shorten it or split the rule"
            );
            return Err(LimitExceeded { at: start, message });
        }
        if operators > MAX_OPERATORS {
            let message = format!(
                "the expression has more than {MAX_OPERATORS} operators and brackets: shorten it or split the rule"
            );
            return Err(LimitExceeded { at: start, message });
        }
    }
    Ok(())
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80
}

/// Returns the byte after the string literal whose opening quote is at `start`.
fn string(bytes: &[u8], start: usize, is_raw: bool) -> Result<usize, LimitExceeded> {
    let quote = bytes[start];
    let is_triple = bytes[start..].starts_with(&[quote; 3]);
    let mut at = start + if is_triple { 3 } else { 1 };
    let unended = || LimitExceeded {
        at: start,
        message: "the string that begins here is not closed: add the closing quote".to_owned(),
    };
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
