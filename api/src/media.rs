//! The two media types of a GraphQL response. `accept` chooses one of them for each request.

use http::HeaderValue;

/// Media type of a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Media {
    /// `application/graphql-response+json`: the status shows whether the request was executed.
    GraphQl,
    /// `application/json`: 200 for every well-formed request.
    Json,
}

impl Media {
    pub(crate) const fn content_type(self) -> HeaderValue {
        match self {
            Self::GraphQl => {
                HeaderValue::from_static("application/graphql-response+json; charset=utf-8")
            }
            Self::Json => HeaderValue::from_static("application/json; charset=utf-8"),
        }
    }

    pub(crate) const fn essence(self) -> &'static str {
        match self {
            Self::GraphQl => "application/graphql-response+json",
            Self::Json => "application/json",
        }
    }
}
