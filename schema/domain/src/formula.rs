//! Cells that a spreadsheet would run: `=HYPERLINK(…)` in an exported file is a text here and a formula there.
//!
//! One `'` in front makes it a text again, and taking one away reads it back. A text that begins with `'` itself before
//! such a sign gets one more, so every text comes back as it was, and what somebody else has escaped is read as meant.

use std::borrow::Cow;

/// What formulas begin with. Tab and line breaks are skipped by some spreadsheets before they look.
const SIGNS: [char; 7] = ['=', '+', '-', '@', '\t', '\r', '\n'];

/// The cell as it is exported.
pub fn neutralise(text: &str) -> Cow<'_, str> {
    if is_formula(text) { format!("'{text}").into() } else { text.into() }
}

/// The text that an imported cell means.
pub fn restore(cell: &str) -> &str {
    cell.strip_prefix('\'').filter(|_| is_formula(cell)).unwrap_or(cell)
}

/// Whether it is one, however often it is escaped.
fn is_formula(text: &str) -> bool {
    text.trim_start_matches('\'').starts_with(SIGNS)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_would_run_is_escaped_and_nothing_else() {
        for (text, cell) in [
            ("=1+1", "'=1+1"),
            ("+1", "'+1"),
            ("-5", "'-5"),
            ("@SUM(A1)", "'@SUM(A1)"),
            ("\t=1", "'\t=1"),
            ("\n", "'\n"),
            ("'=1", "''=1"),
            ("", ""),
            ("'", "'"),
            ("'quoted'", "'quoted'"),
            ("a=1", "a=1"),
            (" =1", " =1"),
        ] {
            assert_eq!(neutralise(text), cell);
            assert_eq!(restore(cell), text);
        }
        // Not escaped by us, and still no formula after it.
        assert_eq!(restore("=1"), "=1");
    }

    proptest! {
        #[test]
        fn every_text_comes_back(text in "['=+@\t\r\na-]{0,6}|\\PC{0,8}") {
            let cell = neutralise(&text);
            prop_assert_eq!(restore(&cell), &text[..]);
            prop_assert!(!cell.starts_with(SIGNS));
        }
    }
}
