//! Reads the bearer token from `Authorization`.
//!
//! An unreadable header is not rejected here: it yields the token `UNREADABLE`, which is never valid. Only the engine
//! knows whether the operation uses the token (`login` and `refreshSession` do not use it).

use http::{HeaderMap, header::AUTHORIZATION};

/// Token that represents an unreadable header; a valid token is never empty.
const UNREADABLE: &str = "";

/// Maximum length of a token in bytes: far longer than any issued token, and short enough to be cheap to verify.
const MAX_TOKEN_BYTES: usize = 4096;

/// Returns the token of the request; [`UNREADABLE`] for an invalid or repeated header; `None` without the header.
pub(crate) fn token(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let first = values.next()?;
    if values.next().is_some() {
        return Some(UNREADABLE);
    }
    Some(first.to_str().ok().and_then(parse).unwrap_or(UNREADABLE))
}

/// Parses the value `Bearer <token>` of a header. Returns `None` for any other value, or if the token is too long.
pub(crate) fn parse(value: &str) -> Option<&str> {
    let (scheme, token) = value.split_once(' ')?;
    let token = token.trim_matches(' ');
    let is_token = scheme.eq_ignore_ascii_case("bearer")
        && token.len() <= MAX_TOKEN_BYTES
        && token.bytes().all(|byte| byte.is_ascii_graphic());
    is_token.then_some(token)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn what_is_not_one_bearer_token_is_unreadable() {
        let check = |values: &[&[u8]], expected: Option<&str>| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(AUTHORIZATION, HeaderValue::from_bytes(value).unwrap());
            }
            assert_eq!(token(&headers), expected, "{values:?}");
        };
        check(&[], None);
        check(&[b"Bearer abc.def"], Some("abc.def"));
        check(&[b"bEARER   abc"], Some("abc"));
        check(&[b"Bearer"], Some(""));
        check(&[b"Bearer "], Some(""));
        check(&[b""], Some(""));
        check(&[b"Basic YTpi"], Some(""));
        check(&[b"Bearer a b"], Some(""));
        check(&[b"Bearer \xc3\xa4"], Some(""));
        check(&[b"Bearer a", b"Bearer a"], Some(""));
        check(&[format!("Bearer {}", "a".repeat(4097)).as_bytes()], Some(""));
    }
}
