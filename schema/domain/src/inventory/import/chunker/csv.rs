//! Finds the ends of CSV rows. The format is RFC 4180, with the same leniency as the `csv` crate.
//!
//! A quote at the start of a cell opens a quoted section, which ends at the next quote that is not doubled. Bytes
//! between the closing quote and the delimiter are kept unchanged. Lines end in CRLF, LF or CR. Blank lines are not
//! rows, but they are counted, so that a row has the number that a spreadsheet shows.
//!
//! Chosen: a state machine rather than `csv-core`, which would not make this file shorter. `csv-core` removes the
//! quotes of cells, but chunks keep the bytes of a row unchanged. `csv-core` also must know the delimiter before the
//! header, counts only line feeds, and accepts a row whose quote is still open at the end of the file.

use super::{
    BYTE_ORDER_MARK, ChunkBuilder, FileError, MAX_ROW_BYTES, RowError, SAVE_AS_UTF_8, check_text,
};

/// Column names and delimiter, from the first row.
#[derive(Debug)]
pub(super) struct Header {
    pub(super) columns: Vec<String>,
    pub(super) delimiter: u8,
}

/// Possible delimiters, the most common first.
const DELIMITERS: [u8; 3] = [b',', b';', b'\t'];

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum State {
    #[default]
    RowStart,
    CellStart,
    Cell,
    Quoted,
    /// After a quote within a quoted section: the closing quote, or the first of two that represent one quote.
    AfterQuote,
}

impl State {
    /// Returns the state after the next byte of a row.
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

/// The rows of a CSV file.
#[derive(Debug)]
pub(super) struct Rows {
    header: Option<Header>,
    state: State,
    /// True after a CR: a line feed that follows belongs to the same line end, and may arrive in the next piece.
    is_after_cr: bool,
    /// Bytes of the current row; empty if the row is too large.
    row: Vec<u8>,
    row_bytes: u64,
    number: i32,
    /// Index of the current cell.
    cell: usize,
    /// Index of the cell in which the row exceeded the maximum size; `None` if it did not.
    too_large_cell: Option<usize>,
    /// Index of the cell with the last opening quote.
    quote_cell: usize,
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
            too_large_cell: None,
            quote_cell: 0,
        }
    }
}

impl Rows {
    pub(super) const fn header(&self) -> Option<&Header> {
        self.header.as_ref()
    }

    #[cfg(test)]
    pub(super) fn buffered_bytes(&self) -> usize {
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
                    (self.state, self.quote_cell) = (State::Quoted, self.cell);
                    self.append(&[*first]);
                    bytes = rest;
                }
                State::AfterQuote if *first == b'"' => {
                    self.state = State::Quoted;
                    self.append(&[*first]);
                    bytes = rest;
                }
                State::Quoted => {
                    let quote = bytes.iter().position(|byte| *byte == b'"');
                    let (consumed, remaining) =
                        bytes.split_at(quote.map_or(bytes.len(), |at| at + 1));
                    if quote.is_some() {
                        self.state = State::AfterQuote;
                    }
                    self.append(consumed);
                    bytes = remaining;
                }
                State::CellStart | State::Cell | State::AfterQuote => {
                    let end = bytes
                        .iter()
                        .position(|byte| is_line_end(*byte) || self.is_delimiter(*byte));
                    let (consumed, remaining) = bytes.split_at(end.unwrap_or(bytes.len()));
                    if !consumed.is_empty() {
                        self.state = State::Cell;
                    }
                    self.append(consumed);
                    bytes = remaining;
                    if let [end, remaining @ ..] = remaining {
                        self.end_cell(*end, builder)?;
                        bytes = remaining;
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
                "name the columns in the first row, such as code,name,asset_type,environment",
            ));
        }
        Ok(())
    }

    /// Returns true if the byte separates cells. Until the header is complete, every possible delimiter counts.
    fn is_delimiter(&self, byte: u8) -> bool {
        match &self.header {
            Some(header) => byte == header.delimiter,
            None => DELIMITERS.contains(&byte),
        }
    }

    fn append(&mut self, bytes: &[u8]) {
        self.row_bytes += bytes.len() as u64;
        if self.too_large_cell.is_some() {
            return;
        }
        if self.row.len() + bytes.len() > MAX_ROW_BYTES {
            self.too_large_cell = Some(self.cell);
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
        self.append(&[end]);
        self.cell += 1;
        self.state = State::CellStart;
        Ok(())
    }

    fn end_row(&mut self, builder: &mut ChunkBuilder) -> Result<(), FileError> {
        match &self.header {
            None if self.too_large_cell.is_some() => return Err(header_too_large()),
            None => self.header = Some(Header::read(&self.row)?),
            Some(header) => match self.fault(header) {
                None => builder.add_row(self.number, &self.row),
                Some(fault) => builder.add_error(fault),
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
        self.too_large_cell = None;
    }

    fn fault(&self, header: &Header) -> Option<RowError> {
        let column = |cell: usize| header.columns.get(cell).cloned();
        if let Some(cell) = self.too_large_cell {
            let message = format!(
                "has {} bytes, at most {MAX_ROW_BYTES} are allowed in a row",
                self.row_bytes
            );
            return Some(RowError::new(self.number, message).at_column(column(cell)));
        }
        // Inside a file, the mark is an invisible character of the first cell. The `csv` crate would skip the mark at
        // the start of a chunk, but not elsewhere.
        if self.row.starts_with(BYTE_ORDER_MARK) {
            let message =
                "begins with a byte order mark, as if another file had been appended here";
            return Some(RowError::new(self.number, message).suggesting(
                "remove the mark and any repeated header, or send the files separately",
            ));
        }
        let (at, message) = check_text(&self.row).err()?;
        let cell = cells(&self.row[..at], header.delimiter).len() - 1;
        let fault = RowError::new(self.number, message).at_column(column(cell));
        Some(fault.suggesting(SAVE_AS_UTF_8))
    }

    /// Rejects the current row, whose quote is still open at the end of the file. Following rows inside the quote
    /// cannot be distinguished from a long cell, so they are part of the rejected row.
    fn end_in_quotes(&mut self, builder: &mut ChunkBuilder) -> Result<(), FileError> {
        const ADVICE: &str = "close the quote; double each quote inside a quoted cell";
        let Some(header) = &self.header else {
            let message = "has a quote in the header that is never closed";
            return Err(FileError::new(message).suggesting(ADVICE));
        };
        let message = format!(
            "has a quote that is never closed: the {} bytes from the start of this row to the end of the file could not be read",
            self.row_bytes
        );
        let column = header.columns.get(self.quote_cell).cloned();
        builder.add_error(RowError::new(self.number, message).at_column(column).suggesting(ADVICE));
        self.next_row();
        Ok(())
    }
}

impl Header {
    fn read(row: &[u8]) -> Result<Self, FileError> {
        if row.starts_with(b"{") || row.starts_with(b"[") {
            return Err(FileError::new("looks like JSON, but the format is CSV")
                .suggesting("set format=json"));
        }
        if row.len() > MAX_ROW_BYTES {
            return Err(header_too_large());
        }
        if let Err((_, message)) = check_text(row) {
            return Err(
                FileError::new(format!("{message}, in the header")).suggesting(SAVE_AS_UTF_8)
            );
        }
        let delimiter = delimiter(row);
        let columns: Vec<String> = cells(row, delimiter).into_iter().map(Cell::name).collect();
        if columns.iter().all(String::is_empty) {
            return Err(FileError::new("has a header without any column").suggesting(
                "name the columns in the first row, such as code,name,asset_type,environment",
            ));
        }
        Ok(Self { columns, delimiter })
    }
}

fn header_too_large() -> FileError {
    FileError::new(format!("has a header of more than {MAX_ROW_BYTES} bytes"))
        .suggesting("check that the file is CSV: the first row must name the columns")
}

const fn is_line_end(byte: u8) -> bool {
    matches!(byte, b'\n' | b'\r')
}

/// Returns the delimiter of the header: the first of [`DELIMITERS`] that occurs outside of quotes, or the comma if none
/// does.
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

/// A cell, with its quotes removed.
struct Cell {
    text: Vec<u8>,
    is_quoted: bool,
}

impl Cell {
    /// Returns the text of a header cell. Trims the spaces around an unquoted name.
    fn name(self) -> String {
        let text = String::from_utf8_lossy(&self.text);
        if self.is_quoted { text.into_owned() } else { text.trim().to_owned() }
    }
}

/// Returns the cells of a row or of the beginning of a row.
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
