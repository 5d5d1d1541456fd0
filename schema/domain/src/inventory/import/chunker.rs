//! A file in whatever pieces it comes, cut into chunks of whole rows. (`cut/csv`, `cut/json`: where a row ends.)
//!
//! However the bytes are split, the chunks are the same, and memory is bounded by one row and one chunk. A row that cannot
//! be read is a fault of that row: its bytes are skipped, the rest goes on. A file that is not what it should be is
//! refused as a whole. What a row says is not asked here but by the job, which reads the chunks again one by one.
//!
//! Our own cutting, because the parsers at hand own their reader, or stop at the first fault, or keep a row whatever its
//! size. Given up: their speed. Choose again when cutting shows in a profile beside the inserts that follow it.

use crate::{
    base::{
        error::{Error, FieldError},
        text::beginning,
    },
    inventory::import::{Chunk, ImportFormat, RowError},
};

mod csv;
mod json;

/// The largest file.
pub const MAX_FILE_BYTES: u64 = 512 * 1024 * 1024;
/// The largest row; what is larger is skipped, and said.
pub const MAX_ROW_BYTES: usize = 256 * 1024;
/// Rows of a chunk at most, faulty ones included.
pub const CHUNK_ROWS: i32 = 1_000;
/// Bytes of a chunk's rows at most.
pub const CHUNK_BYTES: usize = 1024 * 1024;

/// What was meant by a file in another encoding.
const SAVE_AS_UTF_8: &str = "save the file as UTF-8 (in Excel: CSV UTF-8)";

impl RowError {
    fn new(row: i32, message: impl Into<String>) -> Self {
        Self { row, column: None, message: message.into(), suggestion: None }
    }

    fn in_column(self, column: Option<String>) -> Self {
        Self { column: column.map(|name| beginning(&name).into_owned()), ..self }
    }

    fn suggesting(self, suggestion: impl Into<String>) -> Self {
        Self { suggestion: Some(suggestion.into()), ..self }
    }
}

/// What sort of fault a file has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileErrorKind {
    /// It is larger than we take.
    TooLarge,
    /// It is something else: compressed, a workbook, in another encoding.
    OtherMedia,
    /// It breaks the rules of its format.
    Malformed,
}

/// Why a file cannot be read, or not any further.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileError {
    /// What sort of fault it is.
    pub kind: FileErrorKind,
    /// What is wrong, as a sentence without a full stop.
    pub message: String,
    /// What to do instead.
    pub suggestion: Option<String>,
}

impl FileError {
    fn new(message: impl Into<String>) -> Self {
        Self { kind: FileErrorKind::Malformed, message: message.into(), suggestion: None }
    }

    fn of_other_media(message: impl Into<String>) -> Self {
        Self { kind: FileErrorKind::OtherMedia, ..Self::new(message) }
    }

    fn suggesting(self, suggestion: impl Into<String>) -> Self {
        Self { suggestion: Some(suggestion.into()), ..self }
    }

    /// The file is larger than we take.
    pub fn too_large() -> Self {
        let mebibytes = MAX_FILE_BYTES / 1024 / 1024;
        let fault = Self::new(format!("is larger than {mebibytes} MiB"));
        Self { kind: FileErrorKind::TooLarge, ..fault }
            .suggesting("send it in several files, each with the header")
    }
}

impl From<FileError> for Error {
    fn from(FileError { message, suggestion, .. }: FileError) -> Self {
        Self::Invalid(vec![FieldError { path: "file".to_owned(), message, suggestion }])
    }
}

/// Cuts one file.
#[derive(Debug)]
pub struct Chunker {
    format: Format,
    /// The first bytes, until there are enough of them to tell what the file is.
    head: Vec<u8>,
    is_begun: bool,
    bytes: u64,
    builder: ChunkBuilder,
}

#[derive(Debug)]
enum Format {
    Csv(csv::Rows),
    Json(json::Elements),
}

impl Chunker {
    /// For a file of that format.
    pub fn new(format: ImportFormat) -> Self {
        let format = match format {
            ImportFormat::Csv => Format::Csv(csv::Rows::default()),
            ImportFormat::Json => Format::Json(json::Elements::default()),
        };
        Self {
            format,
            head: Vec::new(),
            is_begun: false,
            bytes: 0,
            builder: ChunkBuilder::default(),
        }
    }

    /// The next bytes; the chunks that they complete.
    ///
    /// # Errors
    /// The file is not what it should be; nothing more can be read of it.
    pub fn push(&mut self, bytes: &[u8]) -> Result<Vec<Chunk>, FileError> {
        self.bytes += bytes.len() as u64;
        if self.bytes > MAX_FILE_BYTES {
            return Err(FileError::too_large());
        }
        if self.is_begun {
            self.read(bytes)?;
        } else {
            self.head.extend_from_slice(bytes);
            if self.head.len() >= LONGEST_MARK {
                self.begin()?;
            }
        }
        Ok(std::mem::take(&mut self.builder.full))
    }

    /// The end of the file; the last chunks. A header without a line end is whole only now.
    ///
    /// # Errors
    /// It ended where it must not, or there was nothing in it.
    pub fn finish(&mut self) -> Result<Vec<Chunk>, FileError> {
        if !self.is_begun {
            self.begin()?;
        }
        match &mut self.format {
            Format::Csv(rows) => rows.finish(&mut self.builder)?,
            Format::Json(elements) => elements.finish(&mut self.builder)?,
        }
        self.builder.close();
        Ok(std::mem::take(&mut self.builder.full))
    }

    /// The columns of a CSV file, once its header was whole; of JSON none.
    pub fn header(&self) -> Option<&[String]> {
        match &self.format {
            Format::Csv(rows) => rows.header().map(|header| header.columns.as_slice()),
            Format::Json(_) => None,
        }
    }

    /// What separates the cells of a CSV file, once its header was whole.
    pub fn delimiter(&self) -> Option<u8> {
        match &self.format {
            Format::Csv(rows) => rows.header().map(|header| header.delimiter),
            Format::Json(_) => None,
        }
    }

    /// How many bytes came so far.
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    fn begin(&mut self) -> Result<(), FileError> {
        self.is_begun = true;
        let head = std::mem::take(&mut self.head);
        self.read(text(&head)?)
    }

    fn read(&mut self, bytes: &[u8]) -> Result<(), FileError> {
        match &mut self.format {
            Format::Csv(rows) => rows.push(bytes, &mut self.builder),
            Format::Json(elements) => elements.push(bytes, &mut self.builder),
        }
    }
}

/// The longest of the marks below.
const LONGEST_MARK: usize = 4;

/// What a file in UTF-8 may begin with.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// What a file that is no text begins with.
const SIGNATURES: [(&[u8], &str); 9] = [
    (b"\x1f\x8b", "is compressed (gzip)"),
    (b"BZh", "is compressed (bzip2)"),
    (b"\xfd7zX", "is compressed (xz)"),
    (b"\x28\xb5\x2f\xfd", "is compressed (zstd)"),
    (b"PK\x03\x04", "is a zip archive, or an Excel workbook, which is one"),
    (b"PK\x05\x06", "is an empty zip archive"),
    (b"\xd0\xcf\x11\xe0", "is an Excel workbook of before 2007"),
    (b"\xff\xfe", "is in UTF-16 or UTF-32"),
    (b"\xfe\xff", "is in UTF-16"),
];

/// The text without its byte order mark, or what else it is.
fn text(head: &[u8]) -> Result<&[u8], FileError> {
    if let Some((_, what)) = SIGNATURES.iter().find(|(mark, _)| head.starts_with(mark)) {
        let advice = match *what {
            what if what.contains("UTF") => SAVE_AS_UTF_8,
            what if what.contains("Excel") => "save the sheet as CSV UTF-8 and send that",
            _ => "send the file as it was before it was packed",
        };
        return Err(FileError::of_other_media(*what).suggesting(advice));
    }
    // Without a mark: a letter of Latin in two or four bytes.
    if head.iter().take(LONGEST_MARK).any(|byte| *byte == 0) {
        return Err(FileError::of_other_media("is in UTF-16 or UTF-32, or is no text")
            .suggesting(SAVE_AS_UTF_8));
    }
    Ok(head.strip_prefix(BYTE_ORDER_MARK).unwrap_or(head))
}

/// The chunk that is being filled, and those that are full.
#[derive(Debug, Default)]
struct ChunkBuilder {
    open: Chunk,
    full: Vec<Chunk>,
}

impl ChunkBuilder {
    /// A row that can be read.
    fn keep(&mut self, row: i32, content: &[u8]) {
        if self.open.content.len() + content.len() >= CHUNK_BYTES {
            self.close();
        }
        self.open.content.extend_from_slice(content);
        self.open.content.push(b'\n');
        self.open.numbers.push(row);
        self.count();
    }

    /// A row that is left out.
    fn refuse(&mut self, fault: RowError) {
        self.open.faults.push(fault);
        self.count();
    }

    fn count(&mut self) {
        self.open.rows += 1;
        if self.open.rows == CHUNK_ROWS {
            self.close();
        }
    }

    fn close(&mut self) {
        if self.open.rows > 0 {
            self.full.push(std::mem::take(&mut self.open));
        }
    }
}

/// The row as text, or the first byte at which it is none, and why.
fn check_text(row: &[u8]) -> Result<(), (usize, String)> {
    if let Err(error) = std::str::from_utf8(row) {
        let at = error.valid_up_to();
        return Err((at, format!("holds the byte 0x{:02X}, which is not UTF-8 here", row[at])));
    }
    match row.iter().position(|byte| *byte == 0) {
        Some(at) => Err((at, "holds the control character U+0000".to_owned())),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests;
