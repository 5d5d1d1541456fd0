//! Errors of this crate. Their messages never contain a URL, a password, a key or a configured value. The code that
//! reports an error names the setting instead.

/// Result of the crate's functions, with [`Error`] as the default error.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Error in a quota, in a Redis URL or in a Redis command.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The text is not a valid quota; the reason completes the message.
    #[error("a quota must look like 10/minute: {0}")]
    Quota(&'static str),
    /// The Redis URL cannot be used; the reason completes the message.
    #[error("the Redis URL cannot be used: {0}")]
    Url(&'static str),
    /// Redis is unavailable, timed out, or rejected the command. The same call may succeed later.
    #[error("Redis did not answer, or rejected the command")]
    Redis(#[source] fred::error::Error),
}
