//! Close frames that the server sends: codes of `graphql-transport-ws` and of RFC 6455, each with a reason text.
//!
//! | code | cause | reaction of the npm client `graphql-ws` |
//! |---|---|---|
//! | 1001 | the server is shutting down | reconnects |
//! | 1002, 1007, 1009 | invalid frames, text that is not UTF-8, a message over the limit | gives up |
//! | 1013 | the client reads too slowly; authentication is temporarily unavailable | reconnects |
//! | 4400 | a message that is not part of the protocol | gives up |
//! | 4401 | the token is invalid or has expired; `subscribe` before `connection_ack` | gives up |
//! | 4403 | the credentials are not a bearer token; the caller lost permissions | reconnects, authenticates again |
//! | 4408 | no `connection_init` in time | reconnects |
//! | 4409 | an operation's id is in use | gives up |
//! | 4429 | a second `connection_init`; too many sockets of the same user or API key | gives up |

use std::borrow::Cow;

use tokio_tungstenite::tungstenite::{
    Utf8Bytes,
    error::{CapacityError, Error},
    protocol::{CloseFrame, frame::coding::CloseCode},
};

/// Maximum length of the reason text of a close frame in bytes, from RFC 6455.
const MAX_REASON_BYTES: usize = 123;

/// Close code and reason text of a close frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Close {
    pub(crate) code: u16,
    reason: Cow<'static, str>,
}

impl Close {
    pub(crate) const GOING_AWAY: Self = Self::new(1001, "The server is shutting down: reconnect");
    pub(crate) const TOO_SLOW: Self =
        Self::new(1013, "Too many unread messages: reconnect and read faster");
    pub(crate) const TOO_LARGE: Self = Self::new(1009, "The message is too large");
    pub(crate) const TOO_EARLY: Self = Self::new(4401, "Unauthorized");
    pub(crate) const INVALID_TOKEN: Self = Self::new(4401, "Unauthorized: sign in again");
    pub(crate) const FORBIDDEN: Self = Self::new(4403, "Forbidden");
    pub(crate) const PERMISSIONS_CHANGED: Self =
        Self::new(4403, "Forbidden: your permissions have changed, reconnect");
    pub(crate) const UNAVAILABLE: Self = Self::new(1013, "Try again later");
    pub(crate) const INIT_TIMEOUT: Self = Self::new(4408, "Connection initialisation timeout");
    pub(crate) const SECOND_INIT: Self = Self::new(4429, "Too many initialisation requests");
    pub(crate) const TOO_MANY: Self = Self::new(4429, "Too many sockets: close one first");

    const fn new(code: u16, reason: &'static str) -> Self {
        Self { code, reason: Cow::Borrowed(reason) }
    }

    /// Returns 4400 with the reason.
    pub(crate) fn invalid(reason: impl Into<Cow<'static, str>>) -> Self {
        Self { code: 4400, reason: reason.into() }
    }

    /// Returns 4409 with the text that the protocol prescribes.
    pub(crate) fn duplicate(id: &str) -> Self {
        Self { code: 4409, reason: format!("Subscriber for {id} already exists").into() }
    }

    /// Returns the close frame for an error of the WebSocket layer; `None` if the client has disconnected.
    pub(crate) const fn of(error: &Error) -> Option<Self> {
        match error {
            Error::Capacity(CapacityError::MessageTooLong { .. }) => Some(Self::TOO_LARGE),
            Error::Protocol(_) => Some(Self::new(1002, "The frames violate RFC 6455")),
            Error::Utf8(_) => Some(Self::new(1007, "The text is not UTF-8")),
            _ => None,
        }
    }

    pub(crate) fn frame(&self) -> CloseFrame {
        let mut length = self.reason.len().min(MAX_REASON_BYTES);
        while !self.reason.is_char_boundary(length) {
            length -= 1;
        }
        let reason = Utf8Bytes::from(self.reason[..length].to_owned());
        CloseFrame { code: CloseCode::from(self.code), reason }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_fits_its_frame_whatever_the_id() {
        let frame = Close::duplicate(&"ä".repeat(200)).frame();
        assert!(frame.reason.len() <= MAX_REASON_BYTES && frame.reason.len() > 100);
        assert_eq!(u16::from(frame.code), 4409);
    }
}
