//! Where a row of CSV ends: RFC 4180, read as widely as the `csv` crate reads it.
//!
//! A quote opens only at the start of a cell and closes at a single quote; what follows it up to the delimiter is taken
//! as it is. Lines end in CRLF, LF or CR. Blank lines are no rows, but are counted, so that a row's number is the one that
//! a spreadsheet shows.
//!
//! Our own state machine and not `csv-core`, which would come out no shorter: it unquotes cells where chunks keep a row's
//! bytes, wants the delimiter before the header, counts only line feeds, and takes an open quote at the end for a row.

use super::{
    BYTE_ORDER_MARK, ChunkBuilder, FileError, MAX_ROW_BYTES, RowError, SAVE_AS_UTF_8, check_text,
};

/// What the first row says.
#[derive(Debug)]
pub(super) struct Header {
    pub(super) columns: Vec<String>,
    pub(super) delimiter: u8,
}

/// What may separate cells, the usual first.
const DELIMITERS: [u8; 3] = [b',', b';', b'\t'];

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum State {
    #[default]
    RowStart,
    CellStart,
    Cell,
    Quoted,
    /// At the end of a quoted cell, or at the first of two quotes that stand for one.
    AfterQuote,
}

impl State {
    /// The state after one more byte of a row.
    const fn after(self, byte: u8, is_delimiter: bool) -> Self {
        match (self, byte) {
            (Self::Quoted, b'"') => Self::AfterQuote,
            (Self::RowStart | Self::CellStart | Self::AfterQuote, b'"') | (Self::Quoted, _) => {
                Self::Quoted
            }
            (_, _) if is_delimiter => Self::CellStart,
            (_, _) => Self::Cell,
        }
    }
}

/// The rows of a file.
#[derive(Debug)]
pub(super) struct Rows {
    header: Option<Header>,
    state: State,
    /// The line feed of a CRLF may be in the next piece.
    is_after_cr: bool,
    /// The row being read, unless it is too large.
    row: Vec<u8>,
    row_bytes: u64,
    number: i32,
    /// The cell being read, and those in which the row became too large and the last quote was opened.
    cell: usize,
    too_large_in: Option<usize>,
    quoted_in: usize,
}

impl Default for Rows {
    fn default() -> Self {
        Self {
            header: None,
            state: State::RowStart,
            is_after_cr: false,
            row: Vec::new(),
            row_bytes: 0,
            number: 1,
            cell: 0,
            too_large_in: None,
            quoted_in: 0,
        }
    }
}

impl Rows {
    pub(super) const fn header(&self) -> Option<&Header> {
        self.header.as_ref()
    }

    #[cfg(test)]
    pub(super) fn kept_bytes(&self) -> usize {
        self.row.capacity()
    }

    pub(super) fn push(
        &mut self,
        mut bytes: &[u8],
        builder: &mut ChunkBuilder,
    ) -> Result<(), FileError> {
        while let [first, rest @ ..] = bytes {
            match self.state {
                State::RowStart => {
                    let ends_crlf = std::mem::take(&mut self.is_after_cr) && *first == b'\n';
                    if is_line_end(*first) {
                        if !ends_crlf {
                            self.number += 1;
                        }
                        self.is_after_cr = *first == b'\r';
                        bytes = rest;
                    } else {
                        self.state = State::CellStart;
                    }
                }
                State::CellStart if *first == b'"' => {
                    (self.state, self.quoted_in) = (State::Quoted, self.cell);
                    self.take(&[*first]);
                    bytes = rest;
                }
                State::AfterQuote if *first == b'"' => {
                    self.state = State::Quoted;
                    self.take(&[*first]);
                    bytes = rest;
                }
                State::Quoted => {
                    let quote = bytes.iter().position(|byte| *byte == b'"');
                    let (taken, left) = bytes.split_at(quote.map_or(bytes.len(), |at| at + 1));
                    if quote.is_some() {
                        self.state = State::AfterQuote;
                    }
                    self.take(taken);
                    bytes = left;
                }
                State::CellStart | State::Cell | State::AfterQuote => {
                    let end = bytes.iter().position(|byte| is_line_end(*byte) || self.parts(*byte));
                    let (taken, left) = bytes.split_at(end.unwrap_or(bytes.len()));
                    if !taken.is_empty() {
                        self.state = State::Cell;
                    }
                    self.take(taken);
                    bytes = left;
                    if let [end, left @ ..] = left {
                        self.end_cell(*end, builder)?;
                        bytes = left;
                    }
                }
            }
        }
        Ok(())
    }

    pub(super) fn finish(&mut self, builder: &mut ChunkBuilder) -> Result<(), FileError> {
        match self.state {
            State::RowStart => {}
            State::Quoted => self.end_in_quotes(builder)?,
            State::CellStart | State::Cell | State::AfterQuote => self.end_row(builder)?,
        }
        if self.header.is_none() {
            return Err(FileError::new("is empty").suggesting(
                "the first row names the columns, such as code,name,asset_type,environment",
            ));
        }
        Ok(())
    }

    /// Whether the byte separates cells. Before the header was read, whatever may.
    fn parts(&self, byte: u8) -> bool {
        match &self.header {
            Some(header) => byte == header.delimiter,
            None => DELIMITERS.contains(&byte),
        }
    }

    fn take(&mut self, bytes: &[u8]) {
        self.row_bytes += bytes.len() as u64;
        if self.too_large_in.is_some() {
            return;
        }
        if self.row.len() + bytes.len() > MAX_ROW_BYTES {
            self.too_large_in = Some(self.cell);
            self.row = Vec::new();
        } else {
            self.row.extend_from_slice(bytes);
        }
    }

    fn end_cell(&mut self, end: u8, builder: &mut ChunkBuilder) -> Result<(), FileError> {
        if is_line_end(end) {
            self.is_after_cr = end == b'\r';
            return self.end_row(builder);
        }
        self.take(&[end]);
        self.cell += 1;
        self.state = State::CellStart;
        Ok(())
    }

    fn end_row(&mut self, builder: &mut ChunkBuilder) -> Result<(), FileError> {
        match &self.header {
            None if self.too_large_in.is_some() => return Err(header_too_large()),
            None => self.header = Some(Header::read(&self.row)?),
            Some(header) => match self.fault(header) {
                None => builder.keep(self.number, &self.row),
                Some(fault) => builder.refuse(fault),
            },
        }
        self.next_row();
        Ok(())
    }

    fn next_row(&mut self) {
        self.state = State::RowStart;
        self.row.clear();
        self.row_bytes = 0;
        self.number = self.number.saturating_add(1);
        self.cell = 0;
        self.too_large_in = None;
    }

    fn fault(&self, header: &Header) -> Option<RowError> {
        let column = |cell: usize| header.columns.get(cell).cloned();
        if let Some(cell) = self.too_large_in {
            let message =
                format!("has {} bytes, at most {MAX_ROW_BYTES} are read of a row", self.row_bytes);
            return Some(RowError::new(self.number, message).in_column(column(cell)));
        }
        // Within a file it is no mark but a letter that nobody sees, and the `csv` crate skips it at the start of a chunk.
        if self.row.starts_with(BYTE_ORDER_MARK) {
            let message = "begins with a byte order mark, as if another file began here";
            return Some(RowError::new(self.number, message).suggesting(
                "join files without their marks and headers, or send them one by one",
            ));
        }
        let (at, message) = check_text(&self.row).err()?;
        let cell = cells(&self.row[..at], header.delimiter).len() - 1;
        let fault = RowError::new(self.number, message).in_column(column(cell));
        Some(fault.suggesting(SAVE_AS_UTF_8))
    }

    /// The rows that the quote has swallowed cannot be told from a long cell.
    fn end_in_quotes(&mut self, builder: &mut ChunkBuilder) -> Result<(), FileError> {
        const ADVICE: &str = "close the quote; a quote inside of a quoted cell is written twice";
        let Some(header) = &self.header else {
            let message = "opens a quote in its header that is never closed";
            return Err(FileError::new(message).suggesting(ADVICE));
        };
        let message = format!(
            "opens a quote that is never closed: the rest of the file, {} bytes from the start of this row, could not be read",
            self.row_bytes
        );
        let column = header.columns.get(self.quoted_in).cloned();
        builder.refuse(RowError::new(self.number, message).in_column(column).suggesting(ADVICE));
        self.next_row();
        Ok(())
    }
}

impl Header {
    fn read(row: &[u8]) -> Result<Self, FileError> {
        if row.starts_with(b"{") || row.starts_with(b"[") {
            return Err(
                FileError::new("looks like JSON, and should be CSV").suggesting("format=json")
            );
        }
        if row.len() > MAX_ROW_BYTES {
            return Err(header_too_large());
        }
        if let Err((_, message)) = check_text(row) {
            return Err(
                FileError::new(format!("{message}, in its header")).suggesting(SAVE_AS_UTF_8)
            );
        }
        let delimiter = delimiter(row);
        let columns: Vec<String> = cells(row, delimiter).into_iter().map(Cell::name).collect();
        if columns.iter().all(String::is_empty) {
            return Err(FileError::new("has a header without any column").suggesting(
                "the first row names the columns, such as code,name,asset_type,environment",
            ));
        }
        Ok(Self { columns, delimiter })
    }
}

fn header_too_large() -> FileError {
    FileError::new(format!("has a header of more than {MAX_ROW_BYTES} bytes"))
        .suggesting("is this CSV? The first row names the columns")
}

const fn is_line_end(byte: u8) -> bool {
    matches!(byte, b'\n' | b'\r')
}

/// The comma, unless the header has none outside of quotes; then the first of the others that it has.
fn delimiter(header: &[u8]) -> u8 {
    let mut state = State::RowStart;
    let mut seen = [false; DELIMITERS.len()];
    for byte in header {
        let found = DELIMITERS.iter().position(|delimiter| delimiter == byte);
        state = state.after(*byte, found.is_some());
        if let Some(found) = found.filter(|_| state == State::CellStart) {
            seen[found] = true;
        }
    }
    DELIMITERS.iter().zip(seen).find(|(_, seen)| *seen).map_or(b',', |(delimiter, _)| *delimiter)
}

/// A cell without its quotes.
struct Cell {
    text: Vec<u8>,
    is_quoted: bool,
}

impl Cell {
    /// As a column's name: spaces around it mean nothing, unless quotes hold them.
    fn name(self) -> String {
        let text = String::from_utf8_lossy(&self.text);
        if self.is_quoted { text.into_owned() } else { text.trim().to_owned() }
    }
}

/// The cells of a row, or of its beginning.
fn cells(row: &[u8], delimiter: u8) -> Vec<Cell> {
    let mut cells = vec![Cell { text: Vec::new(), is_quoted: false }];
    let mut state = State::RowStart;
    for byte in row {
        let (before, last) = (state, cells.len() - 1);
        state = state.after(*byte, *byte == delimiter);
        match (before, state) {
            (_, State::CellStart) => cells.push(Cell { text: Vec::new(), is_quoted: false }),
            (State::RowStart | State::CellStart, State::Quoted) => cells[last].is_quoted = true,
            (_, State::AfterQuote) => {}
            (_, State::RowStart | State::Cell | State::Quoted) => cells[last].text.push(*byte),
        }
    }
    cells
}
