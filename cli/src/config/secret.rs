//! Wrapper for values that no log, panic or `{:?}` may show.

use std::fmt;

/// A value that must not be printed. It has no `Display`, its `Debug` prints `[secret]`, and reading it takes an
/// explicit [`expose`](Self::expose). It has no `PartialEq` because secrets need a constant-time comparison, left to
/// the caller.
#[derive(Clone)]
pub(crate) struct Secret<T>(T);

impl<T> Secret<T> {
    /// Wraps `value` as a secret.
    pub(crate) const fn new(value: T) -> Self {
        Self(value)
    }

    /// Returns the value, for the one place that needs it.
    pub(crate) const fn expose(&self) -> &T {
        &self.0
    }
}

impl<T> fmt::Debug for Secret<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}
