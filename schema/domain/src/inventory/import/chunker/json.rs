//! Where an element of JSON ends: in a list, or one object after the other (as in NDJSON).
//!
//! Brackets are matched and strings respected, so an element may stand on many lines or share one; it is written again on
//! one line. In a list, what breaks the brackets or a string breaks the file, because nobody can tell where the next
//! element begins. Without a list a new line that begins with `{` can: there only the broken element is left out.
//!
//! Long, because a list and a sequence share their elements and differ in what follows a broken one.

use serde::de::IgnoredAny;

use super::{ChunkBuilder, FileError, MAX_ROW_BYTES, RowError, SAVE_AS_UTF_8, check_text};

/// Levels of lists and objects in an element at most.
const MAX_DEPTH: usize = 32;

/// The elements of a file.
#[derive(Debug, Default)]
pub(super) struct Elements {
    state: State,
    element: Element,
    /// How many elements were ended.
    ended: i32,
}

/// Where in the file the next byte stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum State {
    /// Before anything.
    #[default]
    Start,
    /// Behind `[`.
    ListStart,
    /// Behind a comma of the list.
    BeforeElement,
    /// In an element of the list.
    InElement,
    /// Behind an element of the list.
    AfterElement,
    /// Behind `]`.
    End,
    /// Between objects that stand one after the other.
    Between,
    /// In one of them.
    InObject,
    /// In what is none, or no longer; it ends with the line.
    Skipping,
}

/// An element being read.
#[derive(Debug, Default)]
struct Element {
    /// Without the spaces between its tokens, unless it is too large.
    text: Vec<u8>,
    bytes: u64,
    rejection: Option<Rejection>,
    /// How many lists and objects are open, and which of them, innermost first, are lists.
    depth: usize,
    lists: u64,
    inside: Inside,
    gap: Gap,
    /// The last byte that is no space.
    last: u8,
}

/// Why an element is left out whatever follows, the worst last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Rejection {
    /// It has U+0000, written as an escape.
    Nul,
    TooLarge,
    TooDeep,
}

/// What stands since the last token.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
enum Gap {
    #[default]
    None,
    Space,
    NewLine,
}

/// Whether a string is being read, and of an escape in it how much.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Inside {
    #[default]
    Tokens,
    String,
    Escape,
    /// So many digits are still to come; all so far were 0.
    Zeros(u8),
}

/// What a byte did to an element.
enum Step {
    /// It belongs to it.
    On,
    /// It was its last.
    Ended,
    /// The element ended before it.
    EndedBefore,
    /// It cannot stand here.
    Broken(String),
}

impl Elements {
    pub(super) fn push(
        &mut self,
        bytes: &[u8],
        builder: &mut ChunkBuilder,
    ) -> Result<(), FileError> {
        bytes.iter().try_for_each(|byte| self.take(*byte, builder))
    }

    pub(super) fn finish(&mut self, builder: &mut ChunkBuilder) -> Result<(), FileError> {
        match self.state {
            State::Start => Err(FileError::new("is empty").suggesting(EXPECTED)),
            State::End | State::Between | State::Skipping => Ok(()),
            State::InObject => {
                self.break_off("is never closed: the file ends inside of it", builder);
                Ok(())
            }
            State::ListStart | State::BeforeElement | State::InElement | State::AfterElement => {
                let message = format!(
                    "breaks off after {} whole elements: its list is never closed",
                    self.ended
                );
                Err(FileError::new(message).suggesting("send it again, whole"))
            }
        }
    }

    fn take(&mut self, byte: u8, builder: &mut ChunkBuilder) -> Result<(), FileError> {
        let is_space = is_space(byte);
        self.state = match (self.state, byte) {
            (State::InElement | State::InObject, _) => return self.take_into(byte, builder),
            (State::Skipping, b'\n' | b'\r') => State::Between,
            (state, _) if is_space || state == State::Skipping => state,
            (State::Start, b'[') => State::ListStart,
            (State::Start | State::Between, b'{') => {
                return self.begin(State::InObject, byte, builder);
            }
            (State::ListStart | State::AfterElement, b']') => State::End,
            (State::AfterElement, b',') => State::BeforeElement,
            (State::ListStart | State::BeforeElement, b',' | b']' | b'}') => {
                let message = format!("has no element {} before `{}`", self.ended + 1, shown(byte));
                return Err(FileError::new(message));
            }
            (State::ListStart | State::BeforeElement, _) => {
                return self.begin(State::InElement, byte, builder);
            }
            (State::Start, _) => {
                let message = format!("is not JSON: it begins with `{}`", shown(byte));
                return Err(FileError::new(message).suggesting(EXPECTED));
            }
            (State::AfterElement, _) => {
                let message =
                    format!("has `{}` after element {} of its list", shown(byte), self.ended);
                return Err(FileError::new(message).suggesting("elements are parted by commas"));
            }
            (State::End, _) => {
                let message = format!("goes on with `{}` after the end of its list", shown(byte));
                return Err(FileError::new(message).suggesting("put all elements into one list"));
            }
            (State::Between, b',') => {
                let message = format!("has a comma after object {}, but no list", self.ended);
                return Err(FileError::new(message)
                    .suggesting("put the objects into a list, [{…}, {…}], or one on each line"));
            }
            (State::Between, _) => {
                let message = format!("is no object: it begins with `{}`", shown(byte));
                self.break_off(message, builder);
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
        self.take_into(byte, builder)
    }

    /// A byte inside of an element, or right behind it.
    fn take_into(&mut self, byte: u8, builder: &mut ChunkBuilder) -> Result<(), FileError> {
        let is_listed = self.state == State::InElement;
        if !is_listed && self.element.is_left_open_before(byte) {
            self.break_off("is never closed: the next line begins another", builder);
            return self.begin(State::InObject, byte, builder);
        }
        match self.element.take(byte) {
            Step::On => Ok(()),
            Step::Ended => {
                self.end(is_listed, builder);
                Ok(())
            }
            Step::EndedBefore => {
                self.end(is_listed, builder);
                self.take(byte, builder)
            }
            Step::Broken(message) if is_listed => {
                let message = format!("cannot be read on: element {} {message}", self.ended + 1);
                Err(FileError::new(message))
            }
            Step::Broken(message) => {
                self.break_off(message, builder);
                self.state = if is_line_end(byte) { State::Between } else { State::Skipping };
                Ok(())
            }
        }
    }

    fn end(&mut self, is_listed: bool, builder: &mut ChunkBuilder) {
        self.state = if is_listed { State::AfterElement } else { State::Between };
        self.ended = self.ended.saturating_add(1);
        match self.element.fault(self.ended) {
            None => builder.keep(self.ended, &self.element.text),
            Some(fault) => builder.refuse(fault),
        }
        self.element.clear();
    }

    /// Leaves out the element that is being read.
    fn break_off(&mut self, message: impl Into<String>, builder: &mut ChunkBuilder) {
        self.ended = self.ended.saturating_add(1);
        builder.refuse(RowError::new(self.ended, message));
        self.element.clear();
    }
}

const EXPECTED: &str =
    "send a list of objects, [{…}, {…}], or one object on each line; for CSV say format=csv";

impl Element {
    fn take(&mut self, byte: u8) -> Step {
        self.bytes += 1;
        if self.inside != Inside::Tokens {
            return self.take_into_string(byte);
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
            return Step::On;
        }
        let is_apart = std::mem::take(&mut self.gap) != Gap::None;
        if is_apart && !is_structural(self.last) && !is_structural(byte) {
            self.keep(b' '); // `1 2` is broken and must stay so.
        }
        self.keep(byte);
        self.last = byte;
        match byte {
            b'"' => self.inside = Inside::String,
            b'{' | b'[' => self.open(byte == b'['),
            b'}' | b']' => return self.close(byte),
            _ => {}
        }
        Step::On
    }

    fn take_into_string(&mut self, byte: u8) -> Step {
        if is_line_end(byte) {
            return Step::Broken("holds a text that is not closed on its line".to_owned());
        }
        self.keep(byte);
        self.inside = match (self.inside, byte) {
            (Inside::Escape, b'u') => Inside::Zeros(4),
            (Inside::Zeros(1), b'0') => {
                self.leave_out(Rejection::Nul);
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
        Step::On
    }

    fn open(&mut self, is_list: bool) {
        self.depth += 1;
        self.lists = self.lists << 1 | u64::from(is_list);
        if self.depth > MAX_DEPTH {
            self.leave_out(Rejection::TooDeep);
        }
    }

    fn close(&mut self, byte: u8) -> Step {
        // Deeper than `lists` knows they are only counted; the element is refused anyway.
        let is_matched =
            self.rejection == Some(Rejection::TooDeep) || (self.lists & 1 == 1) == (byte == b']');
        if !is_matched {
            let opened = if byte == b']' { '{' } else { '[' };
            return Step::Broken(format!("closes `{opened}` with `{}`", shown(byte)));
        }
        self.depth -= 1;
        self.lists >>= 1;
        if self.depth == 0 { Step::Ended } else { Step::On }
    }

    fn keep(&mut self, byte: u8) {
        if self.rejection > Some(Rejection::Nul) {
            return;
        }
        if self.text.len() == MAX_ROW_BYTES {
            self.leave_out(Rejection::TooLarge);
        } else {
            self.text.push(byte);
        }
    }

    /// What is left out need not be kept; where only a NUL is, other faults may still be found.
    fn leave_out(&mut self, why: Rejection) {
        self.rejection = self.rejection.max(Some(why));
        if why > Rejection::Nul {
            self.text = Vec::new();
        }
    }

    /// Whether an object that stands on lines of its own begins with this byte, where nothing may begin.
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
            Some(Rejection::TooLarge) => {
                Some(format!("has {} bytes, at most {MAX_ROW_BYTES} are read of a row", self.bytes))
            }
            Some(Rejection::Nul) | None => None,
        };
        if let Some(message) = message {
            return Some(RowError::new(row, message));
        }
        if let Err((_, message)) = check_text(&self.text) {
            return Some(RowError::new(row, message).suggesting(SAVE_AS_UTF_8));
        }
        if self.rejection == Some(Rejection::Nul) {
            return Some(RowError::new(row, "holds the control character U+0000"));
        }
        if let Err(error) = serde_json::from_slice::<IgnoredAny>(&self.text) {
            // Where it says is said of our one line, not of the file.
            let error = error.to_string();
            let reason = error.split(" at line ").next().unwrap_or_default();
            return Some(RowError::new(row, format!("is not JSON: {reason}")));
        }
        let is_object = self.text.first() == Some(&b'{');
        (!is_object).then(|| RowError::new(row, "is no object").suggesting(EXPECTED))
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

/// A byte in a sentence.
fn shown(byte: u8) -> String {
    if byte.is_ascii() {
        char::from(byte).escape_default().to_string()
    } else {
        format!("0x{byte:02X}")
    }
}
