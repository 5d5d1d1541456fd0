//! Splits a file that arrives in pieces into chunks of complete rows. `chunker/csv` and `chunker/json` find the ends of
//! rows.
//!
//! The chunks do not depend on the sizes of the pieces, and memory is bounded by one row and one chunk. If a row cannot
//! be read, only that row is reported and skipped, and reading continues. A file of another type is rejected as a
//! whole. The values in the rows are not checked here, but by the jobs that import the chunks.
//!
//! Chosen: a splitter written for this purpose. The available parsers read from a reader rather than accept pieces,
//! stop at the first error, or buffer a row of any size. Given up: the speed of these parsers. Revisit when splitting
//! takes a visible share of an import's time beside the inserts.

use crate::{
    base::{
        error::{Error, FieldError},
        text::beginning,
    },
    inventory::import::{Chunk, ImportFormat, RowError},
};

mod csv;
mod json;

/// Maximum size of a file, in bytes.
pub const MAX_FILE_BYTES: u64 = 512 * 1024 * 1024;
/// Maximum size of a row, in bytes. A larger row is skipped and reported as an error.
pub const MAX_ROW_BYTES: usize = 256 * 1024;
/// Maximum number of rows per chunk, including rows with errors.
pub const CHUNK_ROWS: i32 = 1_000;
/// Maximum size of a chunk's rows, in bytes.
pub const CHUNK_BYTES: usize = 1024 * 1024;

/// Suggestion for a file in an encoding other than UTF-8.
const SAVE_AS_UTF_8: &str = "save the file as UTF-8 (in Excel: CSV UTF-8)";

impl RowError {
    fn new(row: i32, message: impl Into<String>) -> Self {
        Self { row, column: None, message: message.into(), suggestion: None }
    }

    fn at_column(self, column: Option<String>) -> Self {
        Self { column: column.map(|name| beginning(&name).into_owned()), ..self }
    }

    fn suggesting(self, suggestion: impl Into<String>) -> Self {
        Self { suggestion: Some(suggestion.into()), ..self }
    }
}

/// Category of a file's error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileErrorKind {
    /// The file is larger than the limit.
    TooLarge,
    /// The file has another media type or encoding: it is compressed, a workbook, or not UTF-8.
    OtherMedia,
    /// The file violates the rules of its format.
    Malformed,
}

/// An error because of which the whole file is rejected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileError {
    /// Category of the error.
    pub kind: FileErrorKind,
    /// Description of the error, without a full stop. The subject, "the file", is omitted.
    pub message: String,
    /// Advice on how to correct the file; `None` if there is none.
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

    /// Returns the error for a file that is larger than the limit.
    pub fn too_large() -> Self {
        let mebibytes = MAX_FILE_BYTES / 1024 / 1024;
        let fault = Self::new(format!("is larger than {mebibytes} MiB"));
        Self { kind: FileErrorKind::TooLarge, ..fault }
            .suggesting("split the file into several files, each with the header")
    }
}

impl From<FileError> for Error {
    fn from(FileError { message, suggestion, .. }: FileError) -> Self {
        Self::Invalid(vec![FieldError { path: "file".to_owned(), message, suggestion }])
    }
}

/// Splits one file into chunks.
#[derive(Debug)]
pub struct Chunker {
    format: Format,
    /// The first bytes of the file, collected until there are enough to detect the file's type.
    head: Vec<u8>,
    is_type_checked: bool,
    bytes: u64,
    builder: ChunkBuilder,
}

#[derive(Debug)]
enum Format {
    Csv(csv::Rows),
    Json(json::Elements),
}

impl Chunker {
    /// Creates a chunker for a file of this format.
    pub fn new(format: ImportFormat) -> Self {
        let format = match format {
            ImportFormat::Csv => Format::Csv(csv::Rows::default()),
            ImportFormat::Json => Format::Json(json::Elements::default()),
        };
        Self {
            format,
            head: Vec::new(),
            is_type_checked: false,
            bytes: 0,
            builder: ChunkBuilder::default(),
        }
    }

    /// Reads the next bytes and returns the chunks that they complete.
    ///
    /// # Errors
    /// Fails if the file is too large, of another type, or malformed. The chunker must not be used afterwards.
    pub fn push(&mut self, bytes: &[u8]) -> Result<Vec<Chunk>, FileError> {
        self.bytes += bytes.len() as u64;
        if self.bytes > MAX_FILE_BYTES {
            return Err(FileError::too_large());
        }
        if self.is_type_checked {
            self.read(bytes)?;
        } else {
            self.head.extend_from_slice(bytes);
            if self.head.len() >= LONGEST_SIGNATURE_BYTES {
                self.begin()?;
            }
        }
        Ok(std::mem::take(&mut self.builder.full))
    }

    /// Ends the file and returns the last chunks. A header that no line end follows is complete only now.
    ///
    /// # Errors
    /// Fails if the file is empty or of another type, or if it ended within its header or list.
    pub fn finish(&mut self) -> Result<Vec<Chunk>, FileError> {
        if !self.is_type_checked {
            self.begin()?;
        }
        match &mut self.format {
            Format::Csv(rows) => rows.finish(&mut self.builder)?,
            Format::Json(elements) => elements.finish(&mut self.builder)?,
        }
        self.builder.close();
        Ok(std::mem::take(&mut self.builder.full))
    }

    /// Returns the columns of a CSV file, once its header is complete; always `None` for JSON.
    pub fn header(&self) -> Option<&[String]> {
        match &self.format {
            Format::Csv(rows) => rows.header().map(|header| header.columns.as_slice()),
            Format::Json(_) => None,
        }
    }

    /// Returns the delimiter of a CSV file, once its header is complete; always `None` for JSON.
    pub fn delimiter(&self) -> Option<u8> {
        match &self.format {
            Format::Csv(rows) => rows.header().map(|header| header.delimiter),
            Format::Json(_) => None,
        }
    }

    /// Returns the number of bytes read so far.
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    fn begin(&mut self) -> Result<(), FileError> {
        self.is_type_checked = true;
        let head = std::mem::take(&mut self.head);
        self.read(without_byte_order_mark(&head)?)
    }

    fn read(&mut self, bytes: &[u8]) -> Result<(), FileError> {
        match &mut self.format {
            Format::Csv(rows) => rows.push(bytes, &mut self.builder),
            Format::Json(elements) => elements.push(bytes, &mut self.builder),
        }
    }
}

/// Length of the longest signature and byte order mark, in bytes.
const LONGEST_SIGNATURE_BYTES: usize = 4;

/// Byte order mark of UTF-8, which is optional at the start of a file.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// First bytes of files of other types, each with the error message.
const SIGNATURES: [(&[u8], &str); 9] = [
    (b"\x1f\x8b", "is compressed (gzip)"),
    (b"BZh", "is compressed (bzip2)"),
    (b"\xfd7zX", "is compressed (xz)"),
    (b"\x28\xb5\x2f\xfd", "is compressed (zstd)"),
    (b"PK\x03\x04", "is a zip archive or an Excel workbook"),
    (b"PK\x05\x06", "is an empty zip archive"),
    (b"\xd0\xcf\x11\xe0", "is an Excel workbook in the format before 2007"),
    (b"\xff\xfe", "is in UTF-16 or UTF-32"),
    (b"\xfe\xff", "is in UTF-16"),
];

/// Returns the beginning of a file without its byte order mark.
///
/// # Errors
/// Fails if the file is compressed, a workbook, or in another encoding.
fn without_byte_order_mark(head: &[u8]) -> Result<&[u8], FileError> {
    if let Some((_, message)) = SIGNATURES.iter().find(|(mark, _)| head.starts_with(mark)) {
        let advice = match *message {
            message if message.contains("UTF") => SAVE_AS_UTF_8,
            message if message.contains("Excel") => "save the sheet as CSV UTF-8 and send that",
            _ => "unpack the file and send its content",
        };
        return Err(FileError::of_other_media(*message).suggesting(advice));
    }
    // UTF-16 or UTF-32 without a byte order mark: Latin letters contain zero bytes in these encodings.
    if head.iter().take(LONGEST_SIGNATURE_BYTES).any(|byte| *byte == 0) {
        return Err(FileError::of_other_media("is in UTF-16 or UTF-32, or is not text")
            .suggesting(SAVE_AS_UTF_8));
    }
    Ok(head.strip_prefix(BYTE_ORDER_MARK).unwrap_or(head))
}

/// Collects rows into chunks: the chunk that is being filled, and the full chunks that `push` has not yet returned.
#[derive(Debug, Default)]
struct ChunkBuilder {
    open: Chunk,
    full: Vec<Chunk>,
}

impl ChunkBuilder {
    /// Adds a row that was read.
    fn add_row(&mut self, row: i32, content: &[u8]) {
        if self.open.content.len() + content.len() >= CHUNK_BYTES {
            self.close();
        }
        self.open.content.extend_from_slice(content);
        self.open.content.push(b'\n');
        self.open.numbers.push(row);
        self.count();
    }

    /// Adds the error of a row that is left out.
    fn add_error(&mut self, fault: RowError) {
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

/// Checks that the row is UTF-8 without U+0000.
///
/// # Errors
/// The index of the first invalid byte, and a message.
fn check_text(row: &[u8]) -> Result<(), (usize, String)> {
    if let Err(error) = std::str::from_utf8(row) {
        let at = error.valid_up_to();
        return Err((
            at,
            format!("contains the byte 0x{:02X}, which is not valid UTF-8 here", row[at]),
        ));
    }
    match row.iter().position(|byte| *byte == 0) {
        Some(at) => Err((at, "contains the control character U+0000".to_owned())),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests;
