//! A value that no log, panic or `{:?}` can show.

use std::fmt;

/// Wraps what must not be printed. It has no `Display`, its `Debug` shows nothing of it, and reading it is a visible
/// [`expose`](Self::expose). No `PartialEq` either: comparing secrets wants constant time, which is the comparer's affair.
#[derive(Clone)]
pub(crate) struct Secret<T>(T);

impl<T> Secret<T> {
    /// Hides `value`.
    pub(crate) const fn new(value: T) -> Self {
        Self(value)
    }

    /// The value itself, for the one place that needs it.
    pub(crate) const fn expose(&self) -> &T {
        &self.0
    }
}

impl<T> fmt::Debug for Secret<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}
