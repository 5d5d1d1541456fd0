//! Validation of texts from users, and enums that are stored as text in Postgres.
//!
//! Texts are stored as typed, in Unicode's composed form (NFC), so that texts that look equal are equal byte by byte.
//! Characters that would break a log line or reverse the direction of text are rejected, not silently removed.

use std::borrow::Cow;

use unicode_normalization::UnicodeNormalization;

use crate::base::error::FieldError;

/// Defines an enum that is stored as text with a CHECK in Postgres. Database enums are not used: they are not
/// leakproof, so row security could not use their indexes.
macro_rules! text_enum {
    ($(#[$meta:meta])* $name:ident in $table:literal . $column:literal {
        $($variants:tt)+
    }) => {
        $crate::base::text::text_enum! { @enum $(#[$meta])* $name { $($variants)+ } }

        impl $name {
            /// Parses the value of the column.
            ///
            /// # Errors
            /// `Corrupt` if this version does not know the value; a newer version may have written it.
            pub fn from_column(text: &str) -> $crate::base::error::Result<Self> {
                Self::parse(text)
                    .ok_or($crate::base::error::Error::Corrupt { table: $table, column: $column })
            }
        }
    };
    // For an enum that several tables store. The caller of `from_column` passes the name of the table.
    ($(#[$meta:meta])* $name:ident in table . $column:literal { $($variants:tt)+ }) => {
        $crate::base::text::text_enum! { @enum $(#[$meta])* $name { $($variants)+ } }

        impl $name {
            /// Parses the value of the column in `table`.
            ///
            /// # Errors
            /// `Corrupt` if this version does not know the value; a newer version may have written it.
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
            /// The values, in the order of their definition.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// Returns the text used in Postgres and in the API.
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

/// Limits on the length and characters of a text.
#[derive(Debug, Clone, Copy)]
pub struct TextLimits {
    /// Maximum length in Unicode code points, after trimming and composition.
    pub max: usize,
    /// True if line breaks and tabs are allowed.
    pub multiline: bool,
}

/// Limits of a name: one line, up to 255 characters.
pub const NAME: TextLimits = TextLimits { max: 255, multiline: false };
/// Limits of a description: several lines, up to 4096 characters.
pub const DESCRIPTION: TextLimits = TextLimits { max: 4096, multiline: true };

/// Maximum number of characters of an input that an error message quotes.
const MAX_SHOWN_CHARS: usize = 100;

/// Returns the text trimmed and in composed form (NFC), and adds its errors under `path` to `faults`.
pub fn check(path: &str, text: &str, limits: TextLimits, faults: &mut Vec<FieldError>) -> String {
    let composed: String = text.trim().nfc().collect();
    let length = composed.chars().count();
    if length == 0 {
        faults.push(FieldError::new(path, "must not be empty"));
    } else if length > limits.max {
        faults.push(FieldError::new(
            path,
            format!("has {length} characters, at most {} are allowed", limits.max),
        ));
    }
    if let Some(character) =
        composed.chars().find(|character| is_unsafe(*character, limits.multiline))
    {
        faults.push(FieldError::new(
            path,
            format!("contains the control character U+{:04X}", character as u32),
        ));
    }
    composed
}

/// As [`check`], for an optional text. Returns `None` for an empty or blank text.
pub fn check_optional(
    path: &str,
    text: Option<&str>,
    limits: TextLimits,
    faults: &mut Vec<FieldError>,
) -> Option<String> {
    text.filter(|text| !text.trim().is_empty()).map(|text| check(path, text, limits, faults))
}

/// Returns the first [`MAX_SHOWN_CHARS`] characters, followed by `…` if the text is longer.
pub(crate) fn beginning(text: &str) -> Cow<'_, str> {
    match text.char_indices().nth(MAX_SHOWN_CHARS) {
        Some((end, _)) => Cow::Owned(format!("{}…", &text[..end])),
        None => Cow::Borrowed(text),
    }
}

/// Returns true for control characters and for those that change the direction of the text that follows.
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

    fn faults(text: &str, limits: TextLimits) -> Vec<String> {
        let mut faults = Vec::new();
        check("name", text, limits, &mut faults);
        faults.into_iter().map(|fault| fault.message).collect()
    }

    #[test]
    fn texts_are_trimmed_and_composed() {
        assert_eq!(check("name", "  Cafe\u{301} ", NAME, &mut Vec::new()), "Café");
    }

    #[test]
    fn what_breaks_a_line_is_refused() {
        assert_eq!(faults("a\nb", NAME), ["contains the control character U+000A"]);
        assert_eq!(faults("a\u{202e}b", DESCRIPTION), ["contains the control character U+202E"]);
        assert_eq!(faults("a\u{0}b", DESCRIPTION), ["contains the control character U+0000"]);
        assert!(faults("a\nb", DESCRIPTION).is_empty());
    }

    #[test]
    fn lengths_are_counted_in_characters() {
        assert!(faults(&"é".repeat(255), NAME).is_empty());
        assert_eq!(faults(&"é".repeat(256), NAME), ["has 256 characters, at most 255 are allowed"]);
        assert_eq!(faults(" ", NAME), ["must not be empty"]);
    }
}
