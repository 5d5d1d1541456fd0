//! Formatting of CSV rows as in RFC 4180. Cells that a spreadsheet would execute as formulas are escaped.

use std::collections::HashMap;

use crate::{
    base::error::{Error, Result},
    inventory::formula,
};

/// The columns of a file, in order.
#[derive(Debug)]
pub(super) struct Table {
    names: Vec<String>,
    indexes: HashMap<String, usize>,
}

impl Table {
    pub(super) fn new(names: impl IntoIterator<Item = String>) -> Self {
        let names: Vec<String> = names.into_iter().collect();
        let indexes = names.iter().cloned().zip(0..).collect();
        Self { names, indexes }
    }

    /// Returns the header line, ended by CRLF.
    pub(super) fn header(&self) -> Vec<u8> {
        let mut line = Vec::new();
        put_row(self.names.iter().map(String::as_str), &mut line);
        line
    }

    /// Appends a row to `content`. `cells` maps column names to texts; columns without a cell stay empty.
    ///
    /// # Errors
    /// `Conflict` if the file has no column for a cell.
    pub(super) fn put(&self, cells: &HashMap<String, String>, content: &mut Vec<u8>) -> Result<()> {
        let mut row = vec![""; self.names.len()];
        for (name, text) in cells {
            let index = self.indexes.get(name).ok_or_else(|| {
                Error::Conflict(format!(
                    "the column {name:?} was added to the inventory during the export: export it again"
                ))
            })?;
            row[*index] = text;
        }
        put_row(row.into_iter(), content);
        Ok(())
    }
}

/// Appends one line to `content`, ended by CRLF. Escapes formulas.
pub(crate) fn put_row<'a>(cells: impl Iterator<Item = &'a str>, content: &mut Vec<u8>) {
    for (index, text) in cells.enumerate() {
        if index > 0 {
            content.push(b',');
        }
        put_cell(&formula::neutralise(text), content);
    }
    content.extend_from_slice(b"\r\n");
}

fn put_cell(text: &str, content: &mut Vec<u8>) {
    // Also quotes semicolons, tabs and outer spaces: other CSV readers take these for delimiters, or trim them.
    let is_quoted = text.contains(['"', ',', ';', '\t', '\r', '\n'])
        || text.starts_with(char::is_whitespace)
        || text.ends_with(char::is_whitespace);
    if is_quoted {
        content.push(b'"');
        content.extend_from_slice(text.replace('"', "\"\"").as_bytes());
        content.push(b'"');
    } else {
        content.extend_from_slice(text.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(cells: &[&str]) -> String {
        let mut content = Vec::new();
        put_row(cells.iter().copied(), &mut content);
        String::from_utf8(content).unwrap()
    }

    #[test]
    fn cells_are_quoted_where_they_must_be_and_formulas_are_texts() {
        for (cells, expected) in [
            (&["a", "", "b"][..], "a,,b\r\n"),
            (&["a,b", "say \"hi\"", "x;y"], "\"a,b\",\"say \"\"hi\"\"\",\"x;y\"\r\n"),
            (&["one\r\ntwo", " padded "], "\"one\r\ntwo\",\" padded \"\r\n"),
            (&["=1+1", "-5", "=a,\"b\""], "'=1+1,'-5,\"'=a,\"\"b\"\"\"\r\n"),
            (&["\t=1", "'=1"], "\"'\t'=1\",''=1\r\n"),
            (&["a;=1", "b\n+1"], "\"a;'=1\",\"b\n'+1\"\r\n"),
        ] {
            assert_eq!(row(cells), expected);
        }
    }

    #[test]
    fn a_cell_without_a_column_is_not_left_out_silently() {
        let table = Table::new(["code".to_owned(), "custom.a".to_owned()]);
        assert_eq!(table.header(), b"code,custom.a\r\n");
        let cells = |names: &[&str]| -> HashMap<String, String> {
            names.iter().map(|name| ((*name).to_owned(), "x".to_owned())).collect()
        };
        let mut content = Vec::new();
        table.put(&cells(&["custom.a"]), &mut content).unwrap();
        assert_eq!(content, b",x\r\n");
        assert!(matches!(
            table.put(&cells(&["code", "custom.b"]), &mut content),
            Err(Error::Conflict(reason)) if reason.contains("custom.b")
        ));
    }
}
