//! Cells that a spreadsheet would run: an apostrophe in front makes them text there, and is taken off on the way in.
//!
//! Both ways lose nothing: a text that has such an apostrophe of its own is given one more. Given up: a foreign file that
//! means its `'=x` literally loses the apostrophe.

use std::borrow::Cow;

/// The text as it can stand in a cell.
pub(crate) fn neutralise(text: &str) -> Cow<'_, str> {
    if is_formula(text.trim_start_matches('\'')) {
        Cow::Owned(format!("'{text}"))
    } else {
        Cow::Borrowed(text)
    }
}

/// The text that a cell stands for.
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
