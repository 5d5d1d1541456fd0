//! Texts that come in, and states that are text in Postgres.
//!
//! What people type is stored as they typed it, in Unicode's composed form (NFC) so that equal looks are equal bytes.
//! Characters that would break a log line or turn a line of text around are refused, not silently removed.

use std::borrow::Cow;

use unicode_normalization::UnicodeNormalization;

use crate::base::error::FieldError;

/// A state: an enum here and in the API, text with a CHECK in Postgres (database enums are not leakproof, so row
/// security would cost them their indexes).
macro_rules! text_enum {
    ($(#[$meta:meta])* $name:ident in $table:literal . $column:literal {
        $($variants:tt)+
    }) => {
        $crate::base::text::text_enum! { @enum $(#[$meta])* $name { $($variants)+ } }

        impl $name {
            /// What a column of a row holds.
            ///
            /// # Errors
            /// `Corrupt` for a text of a newer version.
            pub fn from_column(text: &str) -> $crate::base::error::Result<Self> {
                Self::parse(text)
                    .ok_or($crate::base::error::Error::Corrupt { table: $table, column: $column })
            }
        }
    };
    // A state that several tables have: which one is said where it is read.
    ($(#[$meta:meta])* $name:ident in table . $column:literal { $($variants:tt)+ }) => {
        $crate::base::text::text_enum! { @enum $(#[$meta])* $name { $($variants)+ } }

        impl $name {
            /// What the column of a row of that table holds.
            ///
            /// # Errors
            /// `Corrupt` for a text of a newer version.
            pub fn from_column(table: &'static str, text: &str) -> $crate::base::error::Result<Self> {
                Self::parse(text)
                    .ok_or($crate::base::error::Error::Corrupt { table, column: $column })
            }
        }
    };
    (@enum $(#[$meta:meta])* $name:ident {
        $($(#[$variant_meta:meta])* $variant:ident = $text:literal,)+
    }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, async_graphql::Enum, serde::Serialize, serde::Deserialize)]
        #[serde(rename_all = "SCREAMING_SNAKE_CASE")]
        pub enum $name { $($(#[$variant_meta])* $variant,)+ }

        impl $name {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The text in Postgres and in the API.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ }
            }

            fn parse(text: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|state| state.as_str() == text)
            }
        }
    };
}
pub(crate) use text_enum;

/// The rules for a text of one kind.
#[derive(Debug, Clone, Copy)]
pub struct Rule {
    /// Characters at most.
    pub max: usize,
    /// Whether line breaks and tabs are allowed.
    pub multiline: bool,
}

/// A name: one line, up to 255 characters.
pub const NAME: Rule = Rule { max: 255, multiline: false };
/// A description: up to 4096 characters.
pub const DESCRIPTION: Rule = Rule { max: 4096, multiline: true };

/// Characters of what was given that an error repeats at most.
const MAX_SHOWN_CHARS: usize = 100;

/// The text trimmed and composed, or what is wrong with it.
pub fn check(path: &str, text: &str, rule: Rule, faults: &mut Vec<FieldError>) -> String {
    let composed: String = text.trim().nfc().collect();
    let length = composed.chars().count();
    if length == 0 {
        faults.push(FieldError::new(path, "must not be empty"));
    } else if length > rule.max {
        faults.push(FieldError::new(
            path,
            format!("has {length} characters, at most {} are allowed", rule.max),
        ));
    }
    if let Some(bad) = composed.chars().find(|character| is_unsafe(*character, rule.multiline)) {
        faults.push(FieldError::new(
            path,
            format!("holds the control character U+{:04X}", bad as u32),
        ));
    }
    composed
}

/// As [`check`], for a text that may be absent; an empty one counts as absent.
pub fn check_optional(
    path: &str,
    text: Option<&str>,
    rule: Rule,
    faults: &mut Vec<FieldError>,
) -> Option<String> {
    text.filter(|text| !text.trim().is_empty()).map(|text| check(path, text, rule, faults))
}

/// The beginning of what was given: enough to find it again, and no more, however long it is.
pub(crate) fn beginning(text: &str) -> Cow<'_, str> {
    match text.char_indices().nth(MAX_SHOWN_CHARS) {
        Some((end, _)) => Cow::Owned(format!("{}…", &text[..end])),
        None => Cow::Borrowed(text),
    }
}

/// Control characters and those that reverse the direction of what follows.
fn is_unsafe(character: char, multiline: bool) -> bool {
    match character {
        '\n' | '\t' | '\r' => !multiline,
        '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => true,
        other => other.is_control(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(text: &str, rule: Rule) -> Vec<String> {
        let mut faults = Vec::new();
        check("name", text, rule, &mut faults);
        faults.into_iter().map(|fault| fault.message).collect()
    }

    #[test]
    fn texts_are_trimmed_and_composed() {
        assert_eq!(check("name", "  Cafe\u{301} ", NAME, &mut Vec::new()), "Café");
    }

    #[test]
    fn what_breaks_a_line_is_refused() {
        assert_eq!(faults("a\nb", NAME), ["holds the control character U+000A"]);
        assert_eq!(faults("a\u{202e}b", DESCRIPTION), ["holds the control character U+202E"]);
        assert_eq!(faults("a\u{0}b", DESCRIPTION), ["holds the control character U+0000"]);
        assert!(faults("a\nb", DESCRIPTION).is_empty());
    }

    #[test]
    fn lengths_are_counted_in_characters() {
        assert!(faults(&"é".repeat(255), NAME).is_empty());
        assert_eq!(faults(&"é".repeat(256), NAME), ["has 256 characters, at most 255 are allowed"]);
        assert_eq!(faults(" ", NAME), ["must not be empty"]);
    }
}
