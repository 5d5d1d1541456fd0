//! The playground: GraphiQL's files, embedded in the binary and served with a strict CSP.
//!
//! The files are built at development time into `playground/dist` and committed (never by build.rs, never from a CDN).
//! File names contain no hashes, so a browser may cache a file but must revalidate its copy before each use.

use http::{
    HeaderMap, HeaderValue, Method, StatusCode,
    header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, IF_NONE_MATCH},
};
use poem::{Request, Response};
use rust_embed::{Embed, EmbeddedFile};

use crate::request_error::RequestError;

const CSP: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self' data:; \
     connect-src 'self'; worker-src 'self' blob:; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
);

#[derive(Embed)]
#[folder = "playground/dist"]
#[allow_missing = true]
struct Files;

/// Handler of `/playground` and the files below it.
pub(crate) struct Playground;

impl poem::Endpoint for Playground {
    type Output = Response;

    async fn call(&self, request: Request) -> poem::Result<Response> {
        if request.method() != Method::GET && request.method() != Method::HEAD {
            return Err(RequestError::method_not_allowed("GET, HEAD").into());
        }
        let name = match request.uri().path().strip_prefix("/playground/") {
            None | Some("") => "index.html",
            Some(name) => name,
        };
        let file = Files::get(name).ok_or_else(RequestError::not_found)?;
        Ok(respond(file, request.headers()))
    }
}

/// Builds the response for a file, or 304 if the copy of the client is current. hyper omits the body for HEAD and keeps
/// `Content-Length`.
fn respond(file: EmbeddedFile, request: &HeaderMap) -> Response {
    let etag = etag(&file);
    let mut response = if is_current(&etag, request) {
        Response::builder().status(StatusCode::NOT_MODIFIED).finish()
    } else {
        let content_type = content_type(&file);
        let mut response = Response::builder().body(file.data.into_owned());
        response.headers_mut().insert(CONTENT_TYPE, content_type);
        response
    };
    let headers = response.headers_mut();
    headers.insert(CONTENT_SECURITY_POLICY, CSP);
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    if let Ok(etag) = HeaderValue::from_str(&etag) {
        headers.insert(ETAG, etag);
    }
    response
}

fn etag(file: &EmbeddedFile) -> String {
    let hash = file.metadata.sha256_hash();
    let hex = hash.iter().take(16).fold(0_u128, |number, byte| number << 8 | u128::from(*byte));
    format!("\"{hex:032x}\"")
}

/// Returns true if the copy of the client is current, by `If-None-Match`. The comparison is weak, as RFC 9110 requires:
/// proxies that compress responses prefix tags with `W/`.
fn is_current(etag: &str, request: &HeaderMap) -> bool {
    request
        .get_all(IF_NONE_MATCH)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .any(|candidate| candidate == "*" || candidate.trim_start_matches("W/") == etag)
}

fn content_type(file: &EmbeddedFile) -> HeaderValue {
    let mime = file.metadata.mimetype();
    let value = if mime.starts_with("text/") || mime == "application/json" {
        format!("{mime}; charset=utf-8")
    } else {
        mime.to_owned()
    };
    HeaderValue::from_str(&value).unwrap_or(HeaderValue::from_static("application/octet-stream"))
}
