//! Cells that a spreadsheet would execute as formulas (CSV injection). An export writes an apostrophe before such a
//! text, so that the spreadsheet shows the cell as text. An import removes the apostrophe.
//!
//! A spreadsheet whose separator is the semicolon or the tab splits our cells at these, because a quote protects only a
//! cell that begins with it; and it takes a line end within such a cell for the end of the row. So a formula gets its
//! apostrophe there too.
//!
//! An export followed by an import changes no text: a text that already begins with an apostrophe before a formula gets
//! one more apostrophe. Given up: if another program writes a cell `'=x` that means exactly this text, the import
//! removes the apostrophe.

use std::borrow::Cow;

/// Characters within a cell behind which a spreadsheet may begin another cell.
const SEPARATORS: [char; 4] = [';', '\t', '\r', '\n'];
/// Characters that begin a formula; spreadsheets of East Asia take the full-width forms too.
const SIGNS: [char; 8] = ['=', '+', '-', '@', '＝', '＋', '－', '＠'];
/// Characters before a sign that spreadsheets remove, or that [`neutralise`] has written.
const IGNORED: [char; 6] = ['\'', '"', ' ', '\t', '\r', '\n'];

/// Returns the cell for a text: with an apostrophe wherever a spreadsheet would execute a formula.
pub(crate) fn neutralise(text: &str) -> Cow<'_, str> {
    let mut cell = String::new();
    let mut copied = 0;
    for start in starts(text).filter(|start| is_formula(&text[*start..])) {
        cell.push_str(&text[copied..start]);
        cell.push('\'');
        copied = start;
    }
    with_rest(cell, &text[copied..])
}

/// Returns the text of a cell, without the apostrophes that [`neutralise`] writes.
pub(crate) fn restore(cell: &str) -> Cow<'_, str> {
    let mut text = String::new();
    let mut copied = 0;
    let is_neutralised = |start: &usize| cell[*start..].strip_prefix('\'').is_some_and(is_formula);
    for start in starts(cell).filter(is_neutralised) {
        text.push_str(&cell[copied..start]);
        copied = start + 1;
    }
    with_rest(text, &cell[copied..])
}

fn with_rest(mut begun: String, rest: &str) -> Cow<'_, str> {
    if begun.is_empty() {
        return Cow::Borrowed(rest);
    }
    begun.push_str(rest);
    Cow::Owned(begun)
}

/// Returns the positions at which a spreadsheet may begin a cell: the start, and behind each separator.
fn starts(text: &str) -> impl Iterator<Item = usize> {
    let behind = text.match_indices(SEPARATORS).map(|(at, _)| at + 1);
    let is_within_line_end =
        |at: &usize| text[..*at].ends_with('\r') && text[*at..].starts_with('\n');
    std::iter::once(0).chain(behind.filter(move |at| !is_within_line_end(at)))
}

fn is_formula(text: &str) -> bool {
    text.trim_start_matches(IGNORED).starts_with(SIGNS)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_a_spreadsheet_would_run_is_text() {
        for (text, cell) in [
            ("=1+1", "'=1+1"),
            ("@SUM(A1)", "'@SUM(A1)"),
            ("-3", "'-3"),
            ("'=1", "''=1"),
            ("a=b", "a=b"),
            ("'quoted'", "'quoted'"),
            ("", ""),
            ("foo;=cmd|' /C calc'!A0;bar", "foo;'=cmd|' /C calc'!A0;bar"),
            ("a\t+1", "a\t'+1"),
            ("a\n@x\r\n-y", "a\n'@x\r\n'-y"),
            ("＝1+1", "'＝1+1"),
            ("a; \"=1", "a;' \"=1"),
            ("10.0.0.1; 10.0.0.2", "10.0.0.1; 10.0.0.2"),
            ("Size, -3", "Size, -3"),
        ] {
            assert_eq!(neutralise(text), cell);
            assert_eq!(restore(cell), text);
        }
    }

    /// Returns the cells that a spreadsheet with this separator sees in a line of ours; a quote counts only where a cell
    /// begins.
    fn cells(line: &str, separator: char) -> Vec<String> {
        let mut reader = csv::ReaderBuilder::new();
        reader.delimiter(u8::try_from(separator).unwrap()).has_headers(false).flexible(true);
        let mut reader = reader.from_reader(line.as_bytes());
        let records = reader.records().map(Result::unwrap);
        records.flat_map(|record| record.iter().map(str::to_owned).collect::<Vec<_>>()).collect()
    }

    proptest! {
        #[test]
        fn nothing_is_lost_and_nothing_runs(texts in proptest::collection::vec("['\"=+@＝a ;,\t\r\n-]{0,8}", 1..4)) {
            let mut line = Vec::new();
            super::super::export::put_row(texts.iter().map(String::as_str), &mut line);
            let line = String::from_utf8(line).unwrap();
            for separator in [',', ';', '\t'] {
                for cell in cells(&line, separator) {
                    prop_assert!(!cell.trim_start().starts_with(SIGNS), "{separator:?} {cell:?} {line:?}");
                }
            }
            for text in &texts {
                let cell = neutralise(text);
                prop_assert_eq!(restore(&cell), text.as_str());
            }
        }
    }
}
