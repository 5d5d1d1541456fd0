//! Finds the ends of JSON elements. A file is one list of objects, or a sequence of objects (as in NDJSON).
//!
//! The reader matches brackets and skips strings, so an element can span several lines, and a line can contain several
//! elements. Each element is stored on one line. In a list, a mismatched bracket or an unclosed string makes the whole
//! file invalid, because the start of the next element is unknown. In a sequence, a line that begins with `{` starts
//! the next object, so only the malformed element is rejected.
//!
//! Long, because lists and sequences share the parsing of elements, but continue differently after a malformed element.

use serde::de::IgnoredAny;

use super::{ChunkBuilder, FileError, MAX_ROW_BYTES, RowError, SAVE_AS_UTF_8, check_text};

/// Maximum nesting depth of lists and objects in an element.
const MAX_DEPTH: usize = 32;

/// The elements of a JSON file.
#[derive(Debug, Default)]
pub(super) struct Elements {
    state: State,
    element: Element,
    /// Number of elements read or rejected so far.
    ended: i32,
}

/// State of the reader before the next byte.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum State {
    /// Before the first token of the file.
    #[default]
    Start,
    /// After `[`, the start of the list.
    ListStart,
    /// After a comma of the list.
    BeforeElement,
    /// Inside an element of the list.
    InElement,
    /// After an element of the list.
    AfterElement,
    /// After `]`, the end of the list.
    End,
    /// In a sequence, between two objects.
    Between,
    /// Inside an object of a sequence.
    InObject,
    /// In a sequence, after the rejection of a malformed element: the bytes up to the end of the line are skipped.
    Skipping,
}

/// The element that is being read.
#[derive(Debug, Default)]
struct Element {
    /// Bytes without the spaces between tokens; empty if the element is too large or too deeply nested.
    text: Vec<u8>,
    bytes: u64,
    rejection: Option<Rejection>,
    /// Number of open lists and objects.
    depth: usize,
    /// One bit per open list or object, the innermost in the lowest bit: 1 is a list, 0 an object.
    lists: u64,
    inside: Inside,
    gap: Gap,
    /// Last byte that is not a space; 0 at the start.
    last: u8,
}

/// Reason why an element is rejected whatever bytes follow. If several apply, the last in this order is reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Rejection {
    /// The element contains U+0000 as an escape sequence.
    Nul,
    TooLarge,
    TooDeep,
}

/// Space since the last token of an element.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
enum Gap {
    #[default]
    None,
    Space,
    NewLine,
}

/// Position relative to strings and escape sequences.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Inside {
    #[default]
    Tokens,
    String,
    Escape,
    /// Inside an escape sequence `\u` with only zeros so far; the number is that of the missing digits.
    Zeros(u8),
}

/// Effect of a byte on the current element.
enum Step {
    /// The byte belongs to the element.
    Continue,
    /// The byte was the element's last.
    Ended,
    /// The element ended before the byte.
    EndedBefore,
    /// The byte is not allowed here.
    Broken(String),
}

impl Elements {
    pub(super) fn push(
        &mut self,
        bytes: &[u8],
        builder: &mut ChunkBuilder,
    ) -> Result<(), FileError> {
        bytes.iter().try_for_each(|byte| self.read_byte(*byte, builder))
    }

    pub(super) fn finish(&mut self, builder: &mut ChunkBuilder) -> Result<(), FileError> {
        match self.state {
            State::Start => Err(FileError::new("is empty").suggesting(EXPECTED)),
            State::End | State::Between | State::Skipping => Ok(()),
            State::InObject => {
                self.skip_element("is never closed: the file ends inside this object", builder);
                Ok(())
            }
            State::ListStart | State::BeforeElement | State::InElement | State::AfterElement => {
                let message = format!(
                    "ends after {} complete elements, and the list is never closed",
                    self.ended
                );
                Err(FileError::new(message).suggesting("send the whole file again"))
            }
        }
    }

    fn read_byte(&mut self, byte: u8, builder: &mut ChunkBuilder) -> Result<(), FileError> {
        let is_space = is_space(byte);
        self.state = match (self.state, byte) {
            (State::InElement | State::InObject, _) => return self.read_in_element(byte, builder),
            (State::Skipping, b'\n' | b'\r') => State::Between,
            (state, _) if is_space || state == State::Skipping => state,
            (State::Start, b'[') => State::ListStart,
            (State::Start | State::Between, b'{') => {
                return self.begin(State::InObject, byte, builder);
            }
            (State::ListStart | State::AfterElement, b']') => State::End,
            (State::AfterElement, b',') => State::BeforeElement,
            (State::ListStart | State::BeforeElement, b',' | b']' | b'}') => {
                let message =
                    format!("has no element {} before `{}`", self.ended + 1, quoted(byte));
                return Err(FileError::new(message));
            }
            (State::ListStart | State::BeforeElement, _) => {
                return self.begin(State::InElement, byte, builder);
            }
            (State::Start, _) => {
                let message =
                    format!("is not JSON: found `{}` instead of `[` or `{{`", quoted(byte));
                return Err(FileError::new(message).suggesting(EXPECTED));
            }
            (State::AfterElement, _) => {
                let message =
                    format!("has `{}` after element {} of the list", quoted(byte), self.ended);
                return Err(FileError::new(message).suggesting("separate the elements with commas"));
            }
            (State::End, _) => {
                let message =
                    format!("continues with `{}` after the end of the list", quoted(byte));
                return Err(FileError::new(message).suggesting("put all elements into one list"));
            }
            (State::Between, b',') => {
                let message = format!("has a comma after object {}, but no list", self.ended);
                return Err(FileError::new(message)
                    .suggesting("put the objects into a list, [{…}, {…}], or one on each line"));
            }
            (State::Between, _) => {
                let message = format!("is not an object: found `{}` instead of `{{`", quoted(byte));
                self.skip_element(message, builder);
                State::Skipping
            }
            (State::Skipping, _) => State::Skipping,
        };
        Ok(())
    }

    fn begin(
        &mut self,
        state: State,
        byte: u8,
        builder: &mut ChunkBuilder,
    ) -> Result<(), FileError> {
        self.state = state;
        self.read_in_element(byte, builder)
    }

    /// Reads a byte inside an element or directly after an element.
    fn read_in_element(&mut self, byte: u8, builder: &mut ChunkBuilder) -> Result<(), FileError> {
        let is_listed = self.state == State::InElement;
        if !is_listed && self.element.is_left_open_before(byte) {
            self.skip_element("is never closed: the next line begins another object", builder);
            return self.begin(State::InObject, byte, builder);
        }
        match self.element.read_byte(byte) {
            Step::Continue => Ok(()),
            Step::Ended => {
                self.end(is_listed, builder);
                Ok(())
            }
            Step::EndedBefore => {
                self.end(is_listed, builder);
                self.read_byte(byte, builder)
            }
            Step::Broken(message) if is_listed => {
                let message =
                    format!("cannot be read further: element {} {message}", self.ended + 1);
                Err(FileError::new(message))
            }
            Step::Broken(message) => {
                self.skip_element(message, builder);
                self.state = if is_line_end(byte) { State::Between } else { State::Skipping };
                Ok(())
            }
        }
    }

    fn end(&mut self, is_listed: bool, builder: &mut ChunkBuilder) {
        self.state = if is_listed { State::AfterElement } else { State::Between };
        self.ended = self.ended.saturating_add(1);
        match self.element.fault(self.ended) {
            None => builder.add_row(self.ended, &self.element.text),
            Some(fault) => builder.add_error(fault),
        }
        self.element.clear();
    }

    /// Rejects the current element with an error.
    fn skip_element(&mut self, message: impl Into<String>, builder: &mut ChunkBuilder) {
        self.ended = self.ended.saturating_add(1);
        builder.add_error(RowError::new(self.ended, message));
        self.element.clear();
    }
}

const EXPECTED: &str =
    "send a list of objects, [{…}, {…}], or one object on each line; for CSV set format=csv";

impl Element {
    fn read_byte(&mut self, byte: u8) -> Step {
        self.bytes += 1;
        if self.inside != Inside::Tokens {
            return self.read_in_string(byte);
        }
        if self.depth == 0
            && self.last != 0
            && (is_space(byte) || matches!(byte, b',' | b']' | b'}'))
        {
            return Step::EndedBefore;
        }
        if is_space(byte) {
            let gap = if is_line_end(byte) { Gap::NewLine } else { Gap::Space };
            self.gap = self.gap.max(gap);
            return Step::Continue;
        }
        let has_gap = std::mem::take(&mut self.gap) != Gap::None;
        if has_gap && !is_structural(self.last) && !is_structural(byte) {
            self.append(b' '); // So that the invalid `1 2` does not become `12`.
        }
        self.append(byte);
        self.last = byte;
        match byte {
            b'"' => self.inside = Inside::String,
            b'{' | b'[' => self.open(byte == b'['),
            b'}' | b']' => return self.close(byte),
            _ => {}
        }
        Step::Continue
    }

    fn read_in_string(&mut self, byte: u8) -> Step {
        if is_line_end(byte) {
            return Step::Broken("has a text that is not closed on its line".to_owned());
        }
        self.append(byte);
        self.inside = match (self.inside, byte) {
            (Inside::Escape, b'u') => Inside::Zeros(4),
            (Inside::Zeros(1), b'0') => {
                self.reject(Rejection::Nul);
                Inside::String
            }
            (Inside::Zeros(left), b'0') => Inside::Zeros(left - 1),
            (Inside::String | Inside::Zeros(_), b'"') => {
                self.last = b'"';
                if self.depth == 0 {
                    return Step::Ended;
                }
                Inside::Tokens
            }
            (Inside::String | Inside::Zeros(_), b'\\') => Inside::Escape,
            (Inside::String | Inside::Escape | Inside::Zeros(_) | Inside::Tokens, _) => {
                Inside::String
            }
        };
        Step::Continue
    }

    fn open(&mut self, is_list: bool) {
        self.depth += 1;
        self.lists = self.lists << 1 | u64::from(is_list);
        if self.depth > MAX_DEPTH {
            self.reject(Rejection::TooDeep);
        }
    }

    fn close(&mut self, byte: u8) -> Step {
        // `lists` can represent 64 levels. Brackets of an element that is too deeply nested are counted but not
        // matched, because the element is rejected anyway.
        let is_matched =
            self.rejection == Some(Rejection::TooDeep) || (self.lists & 1 == 1) == (byte == b']');
        if !is_matched {
            let opened = if byte == b']' { '{' } else { '[' };
            return Step::Broken(format!("closes `{opened}` with `{}`", quoted(byte)));
        }
        self.depth -= 1;
        self.lists >>= 1;
        if self.depth == 0 { Step::Ended } else { Step::Continue }
    }

    fn append(&mut self, byte: u8) {
        if self.rejection > Some(Rejection::Nul) {
            return;
        }
        if self.text.len() == MAX_ROW_BYTES {
            self.reject(Rejection::TooLarge);
        } else {
            self.text.push(byte);
        }
    }

    /// Marks the element as rejected. Drops the element's bytes, except for [`Rejection::Nul`], over which invalid
    /// UTF-8 in the bytes takes precedence.
    fn reject(&mut self, reason: Rejection) {
        self.rejection = self.rejection.max(Some(reason));
        if reason > Rejection::Nul {
            self.text = Vec::new();
        }
    }

    /// Returns true if this byte is a `{` at the start of a line, at a place in the element where JSON allows no value.
    /// The element was then never closed, and the byte begins the next object.
    fn is_left_open_before(&self, byte: u8) -> bool {
        let is_in_list = self.lists & 1 == 1;
        let may_begin = match self.last {
            b':' => true,
            b'[' | b',' => is_in_list,
            _ => false,
        };
        byte == b'{' && self.inside == Inside::Tokens && self.gap == Gap::NewLine && !may_begin
    }

    fn fault(&self, row: i32) -> Option<RowError> {
        let message = match self.rejection {
            Some(Rejection::TooDeep) => Some(format!("is nested deeper than {MAX_DEPTH} levels")),
            Some(Rejection::TooLarge) => Some(format!(
                "has {} bytes, at most {MAX_ROW_BYTES} are allowed in a row",
                self.bytes
            )),
            Some(Rejection::Nul) | None => None,
        };
        if let Some(message) = message {
            return Some(RowError::new(row, message));
        }
        if let Err((_, message)) = check_text(&self.text) {
            return Some(RowError::new(row, message).suggesting(SAVE_AS_UTF_8));
        }
        if self.rejection == Some(Rejection::Nul) {
            return Some(RowError::new(row, "contains the control character U+0000"));
        }
        if let Err(error) = serde_json::from_slice::<IgnoredAny>(&self.text) {
            // Removes the position from the message of serde_json, because it refers to the stored line, not to the
            // file.
            let error = error.to_string();
            let reason = error.split(" at line ").next().unwrap_or_default();
            return Some(RowError::new(row, format!("is not JSON: {reason}")));
        }
        let is_object = self.text.first() == Some(&b'{');
        (!is_object).then(|| RowError::new(row, "is not an object").suggesting(EXPECTED))
    }

    fn clear(&mut self) {
        let mut text = std::mem::take(&mut self.text);
        text.clear();
        *self = Self { text, ..Self::default() };
    }
}

const fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r')
}

const fn is_line_end(byte: u8) -> bool {
    matches!(byte, b'\n' | b'\r')
}

const fn is_structural(byte: u8) -> bool {
    matches!(byte, b'{' | b'}' | b'[' | b']' | b',' | b':')
}

/// Formats a byte for a message.
fn quoted(byte: u8) -> String {
    if byte.is_ascii() {
        char::from(byte).escape_default().to_string()
    } else {
        format!("0x{byte:02X}")
    }
}
