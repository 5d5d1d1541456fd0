//! What a source text must not exceed before it is parsed: size, tokens, nesting.
//!
//! The parser recurses once or more per bracket, so brackets are counted here, in one pass and without recursion.
//! Must stay true: this lexer sees a bracket wherever the parser does. Strings, block strings and comments are lexed
//! as its grammar does; what that grammar reads in two ways (an unterminated `"""`) is refused.
//! `NESTING` 64: the parser itself stops selections at 64, introspection is 15 deep, and a debug build on a 2 MiB stack
//! parses 317 levels of the worst construct (object literals). Choose again with another parser.

use async_graphql::Pos;

use crate::refusal::{Refusal, grouped};

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
pub(crate) fn source(source: &str) -> Result<(), Refusal> {
    if source.len() > SOURCE {
        let (size, limit) = (grouped(source.len() as u64), grouped(SOURCE as u64));
        return Err(Refusal::too_complex(
            None,
            format!("this document has {size} bytes, the limit is {limit}"),
        ));
    }
    Lexer { bytes: source.as_bytes(), at: 0 }.run()
}

/// Whether the raw JSON text of the variables may be handed to serde. It may still be no JSON at all.
pub(crate) fn variables(json: &[u8]) -> Result<(), Refusal> {
    if json.len() > VARIABLES {
        let (size, limit) = (grouped(json.len() as u64), grouped(VARIABLES as u64));
        return Err(Refusal::too_complex(
            None,
            format!("the variables have {size} bytes, the limit is {limit}"),
        ));
    }
    let (depth, at) = json_depth(json);
    if depth > VARIABLES_NESTING {
        let message = format!(
            "the variables nest {depth} deep at byte {at}, the limit is {VARIABLES_NESTING}"
        );
        return Err(Refusal::too_complex(None, message));
    }
    Ok(())
}

/// The deepest nesting of objects and arrays in a JSON text, and the byte where it is reached first.
pub(crate) fn json_depth(json: &[u8]) -> (usize, usize) {
    let (mut open, mut deepest, mut deepest_at) = (0_usize, 0, 0);
    let (mut in_string, mut escaped) = (false, false);
    for (at, byte) in json.iter().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'{' | b'[' if !in_string => {
                open += 1;
                if open > deepest {
                    (deepest, deepest_at) = (open, at);
                }
            }
            b'}' | b']' if !in_string => open = open.saturating_sub(1),
            _ => {}
        }
    }
    (deepest, deepest_at)
}

struct Lexer<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Lexer<'_> {
    fn run(mut self) -> Result<(), Refusal> {
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
                        return Err(Refusal::too_complex(position, message));
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
                return Err(Refusal::too_complex(position, message));
            }
        }
        Ok(())
    }

    fn comment(&mut self) -> Result<(), Refusal> {
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

    fn string(&mut self) -> Result<(), Refusal> {
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
    fn character(&mut self) -> Result<(), Refusal> {
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
            return Err(Refusal::invalid(position, message));
        }
        self.at += width;
        Ok(())
    }

    fn unterminated(&self, start: usize, what: &str) -> Refusal {
        let position = self.position(start);
        let message = format!(
            "the {what} that begins at line {}, column {} does not end",
            position.line, position.column
        );
        Refusal::invalid(position, message)
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
mod tests {
    use async_graphql::parser::parse_query;

    use super::*;
    use crate::refusal::Code;

    #[track_caller]
    fn refused(text: &str, expected: &str) {
        let refusal = source(text).expect_err("must be refused");
        assert!(refusal.message.contains(expected), "{}", refusal.message);
    }

    fn nested(open: &str, middle: &str, close: &str, depth: usize) -> String {
        format!("{}{middle}{}", open.repeat(depth), close.repeat(depth))
    }

    #[test]
    fn each_limit_holds_at_n_and_not_at_n_plus_1() {
        let sized = |bytes: usize| format!("{{a}}{}", " ".repeat(bytes - 3));
        assert_eq!(source(&sized(SOURCE)), Ok(()));
        refused(&sized(SOURCE + 1), "16,385 bytes, the limit is 16,384");

        let with_tokens = |tokens: usize| format!("{{{}}}", "a,".repeat(tokens - 2));
        assert_eq!(source(&with_tokens(TOKENS)), Ok(()));
        refused(
            &with_tokens(TOKENS + 1),
            "more than 2,000 tokens: number 2,001 is at line 1, column 4000",
        );

        assert_eq!(source(&nested("{a", "", "}", NESTING)), Ok(()));
        refused(
            &nested("{a\n", "", "}", NESTING + 1),
            "65 brackets deep at line 65, column 1, the limit is 64",
        );
        assert_eq!(source(&"{a(b:[1])}".repeat(100)), Ok(()), "closed brackets are not open");
    }

    #[test]
    fn brackets_of_all_kinds_count_together() {
        let text = format!("{{a(b:{})}}", nested("[", "", "]", NESTING - 1));
        refused(&text, "65 brackets deep");
        refused(&format!("query($a:{}){{a}}", nested("[", "I", "]", NESTING)), "65 brackets");
        refused(&nested("{a(b:[{", "", "}])}", 17), "65 brackets");
    }

    #[test]
    fn brackets_in_strings_and_comments_do_not_count() {
        let many = "{[(".repeat(100);
        for text in [
            format!("{{a(b:\"{many}\")}}"),
            format!("{{a(b:\"\\\"{many}\\\\\")}}"),
            format!("{{a(b:\"\"\"{many} \\\"\"\" \" \"\" \\ {many}\"\"\")}}"),
            format!("#{many} \" \"\"\"\n{{a}}"),
            format!("#{many}\r{{a}}"),
        ] {
            assert_eq!(source(&text), Ok(()), "{text}");
            assert!(parse_query(&text).is_ok(), "{text}");
        }
    }

    #[test]
    fn nothing_hides_brackets_from_the_count() {
        let deep = nested("[", "", "]", 100);
        for text in [
            format!("{{a(b:\"\" c:{deep})}}"),
            format!("{{a(b:\"\"\"\"\"\" c:{deep})}}"),
            format!("{{a(b:\"\\\\\" c:{deep} d:\"\")}}"),
            format!("{{a(b:\"\"\"\\\\ \"\"\" c:{deep} d:\"\"\"\"\"\")}}"),
            format!("{{a # \"\n(c:{deep})}}"),
            format!("{{a # \"\"\"\r(c:{deep})}}"),
            format!("\u{feff}{{a(c:{deep})}}"),
            format!("{{a(c:1.5e+3{deep})}}"),
            format!("{{a(c:...{deep})}}"),
        ] {
            refused(&text, "brackets deep");
        }
    }

    #[test]
    fn what_the_grammar_reads_in_two_ways_is_refused() {
        refused("{a(b:\"\"\"[[[[ \")}", "block string that begins at line 1, column 6");
        refused("{a(b:\"\"\" \\\"\"\")}", "block string");
        refused("{a(b:\"x\n\")}", "the string that begins at line 1, column 6 does not end");
        refused("{a(b:\"x\\\n\")}", "the string");
        refused("{a(b:\"x", "the string");
        refused("{a(b:\"x\\", "the string");
        refused("é{a(b:\r\n  \"x", "line 2, column 3");
    }

    #[test]
    fn control_characters_are_refused_everywhere() {
        for control in ["\0", "\u{1}", "\u{8}", "\u{b}", "\u{c}", "\u{1b}", "\u{7f}", "\u{85}"] {
            for text in [
                format!("{{a{control}}}"),
                format!("{{a(b:\"{control}\")}}"),
                format!("{{a(b:\"\\{control}\")}}"),
                format!("{{a(b:\"\"\"{control}\"\"\")}}"),
                format!("#{control}\n{{a}}"),
            ] {
                let refusal = source(&text).expect_err(&text);
                assert_eq!(refusal.code, Code::Validation);
                assert!(refusal.message.contains("a control character at line 1"));
            }
        }
        assert_eq!(source("\t{a(b:\"ä\u{a0}漢🙂\")}\r\n"), Ok(()));
    }

    #[test]
    fn tokens_are_counted_as_the_parser_separates_them() {
        let count = |text: &str, tokens: usize| {
            assert_eq!(source(&text.repeat(TOKENS / tokens)), Ok(()), "{text}");
            refused(&text.repeat(TOKENS / tokens + 1), "tokens");
        };
        count("1-1 ", 2);
        count("-1.5e-3 ", 1);
        count("1.5.5 ", 3);
        count("...a", 2);
        count("\"a b\" ", 1);
        count("\"\"\"a\"\"\" ", 1);
        count("$a:b! ", 5);
        count("?", 1);
    }

    /// Parses on a small stack what the scan lets through, in whatever build this is.
    #[test]
    fn the_deepest_accepted_document_leaves_most_of_a_thread_s_stack() {
        let inside = NESTING - 2;
        let documents = [
            nested("{a", "", "}", NESTING),
            format!("{}{{a}}{}", "{...on A".repeat(NESTING - 1), "}".repeat(NESTING - 1)),
            format!("{{a(b:{})}}", nested("[", "", "]", inside)),
            format!("{{a(b:{})}}", nested("{a:", "1", "}", inside)),
            format!("{{a @b(c:{})}}", nested("[{a:", "1", "}]", inside / 2)),
            format!("query($a:I={}){{a}}", nested("[{a:", "1", "}]", inside / 2)),
            format!("query($a:{}){{a}}", nested("[", "I", "]", NESTING - 1)),
            format!("query($a:{}){{a}}", nested("[", "I!", "]!", NESTING - 1)),
        ];
        for text in documents {
            assert_eq!(source(&text), Ok(()));
            let thread = std::thread::Builder::new().stack_size(1024 * 1024);
            let parsed = thread.spawn(move || parse_query(&text).map(drop)).unwrap().join();
            parsed.unwrap().unwrap();
        }
    }

    #[test]
    fn variables_are_limited_in_size_and_nesting() {
        let deep = |depth: usize| nested("[", "", "]", depth);
        assert_eq!(variables(deep(VARIABLES_NESTING).as_bytes()), Ok(()));
        let refusal = variables(deep(VARIABLES_NESTING + 1).as_bytes()).unwrap_err();
        assert_eq!(refusal.message, "the variables nest 33 deep at byte 32, the limit is 32");

        let sized = |bytes: usize| format!("\"{}\"", "x".repeat(bytes - 2));
        assert_eq!(variables(sized(VARIABLES).as_bytes()), Ok(()));
        assert!(variables(sized(VARIABLES + 1).as_bytes()).is_err());

        for (json, depth) in [
            ("", 0),
            ("{\"a\":\"[[[[\\\"[[\"}", 1),
            ("{\"a\":\"\\\\\",\"b\":[{}]}", 3),
            ("]]]][", 1),
            ("\"unterminated [[[", 0),
            ("[[],[],[[]]]", 3),
        ] {
            assert_eq!(json_depth(json.as_bytes()).0, depth, "{json}");
        }
    }
}
