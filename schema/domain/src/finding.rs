//! A rule that an asset breaks.

pub(crate) mod transition;
