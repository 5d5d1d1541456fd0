//! Wrapper for values that no log, panic or `{:?}` may show.

use std::fmt;

/// A value that must not be printed. There is no `Display`, and `Debug` prints `[secret]`. Reading the value takes an
/// explicit [`expose`](Self::expose). There is no `PartialEq`, because secrets need a constant-time comparison, which
/// is left to the caller.
#[derive(Clone)]
pub(crate) struct Secret<T>(T);

impl<T> Secret<T> {
    /// Wraps `value` as a secret.
    pub(crate) const fn new(value: T) -> Self {
        Self(value)
    }

    /// Returns the secret value, for the code that uses it.
    pub(crate) const fn expose(&self) -> &T {
        &self.0
    }
}

impl<T> fmt::Debug for Secret<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}
