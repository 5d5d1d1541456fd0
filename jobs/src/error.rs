//! What can go wrong here. A text never carries a URL, a password, a key or a configured value:
//! whoever reports it names the variable instead.

/// The result of this crate's functions.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What can go wrong in this crate.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The text is no quota; the reason completes the sentence.
    #[error("a quota reads like 10/minute: {0}")]
    Quota(&'static str),
    /// The Redis URL cannot be used; the reason completes the sentence.
    #[error("the Redis URL cannot be used: {0}")]
    Url(&'static str),
    /// Redis is down, too slow, or refused the command. Worth trying again.
    #[error("Redis gave no usable answer")]
    Redis(#[source] fred::error::Error),
}
