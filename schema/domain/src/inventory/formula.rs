//! Cells that a spreadsheet would execute as formulas (CSV injection). An export writes an apostrophe before such a
//! text, so that the spreadsheet shows the cell as text. An import removes the apostrophe.
//!
//! An export followed by an import changes no text: a text that already begins with an apostrophe before a formula gets
//! one more apostrophe. Given up: if another program writes a cell `'=x` that means exactly this text, the import
//! removes the apostrophe.

use std::borrow::Cow;

/// Returns the cell for a text: with an apostrophe in front if a spreadsheet would execute the text as a formula.
pub(crate) fn neutralise(text: &str) -> Cow<'_, str> {
    if is_formula(text.trim_start_matches('\'')) {
        Cow::Owned(format!("'{text}"))
    } else {
        Cow::Borrowed(text)
    }
}

/// Returns the text of a cell, without the apostrophe that [`neutralise`] writes.
pub(crate) fn restore(cell: &str) -> &str {
    match cell.strip_prefix('\'') {
        Some(text) if is_formula(text.trim_start_matches('\'')) => text,
        _ => cell,
    }
}

fn is_formula(text: &str) -> bool {
    text.starts_with(['=', '+', '-', '@', '\t', '\r', '\n'])
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
        ] {
            assert_eq!(neutralise(text), cell);
        }
    }

    proptest! {
        #[test]
        fn nothing_is_lost_and_nothing_runs(text in "['=+@a\t\n-]{0,6}") {
            let cell = neutralise(&text);
            prop_assert!(!is_formula(&cell));
            prop_assert_eq!(restore(&cell), &text);
        }
    }
}
