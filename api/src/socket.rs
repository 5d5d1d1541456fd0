//! The handshake that upgrades `GET /graphql` to a WebSocket with the sub-protocol `graphql-transport-ws`.
//!
//! Chosen: our own implementation on the framing of tungstenite. The one of async-graphql closes with wrong codes, lets
//! a second operation with the same id replace the first, and waits for `connection_init` without a timeout. It never
//! pings, and does not notice the end of a login session. An unknown sub-protocol gets HTTP 400 instead of close code
//! 4406, because a browser drops a socket with an unconfirmed sub-protocol before it reads a close code. A socket runs
//! in the task of its connection, so connection limits, shutdown and deadlines apply to sockets too.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
};

use graphql::Client;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, StatusCode,
    header::{
        CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL,
        SEC_WEBSOCKET_VERSION, UPGRADE,
    },
};
use poem::{Request, Response};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_util::sync::CancellationToken;

use crate::{
    bearer,
    config::Config,
    cors::Cors,
    gateway::Gateway,
    request_error::{Code, RequestError},
};
use session::{Handshake, Session};
use slots::Slots;

mod close;
mod message;
mod outbox;
mod session;
pub(crate) mod slots;
mod wire;

const PROTOCOL: &str = "graphql-transport-ws";

/// Handler of WebSocket handshakes on `/graphql`.
pub(crate) struct Sockets<G> {
    gateway: Arc<G>,
    cors: Cors,
    config: Arc<crate::config::Limits>,
    slots: Slots,
    shutdown: CancellationToken,
}

/// Session of a socket, which the task of the connection runs after the response `101`. The handler stores it as an
/// extension of the response, and `server` takes it from there.
#[derive(Clone)]
pub(crate) struct Continuation(Arc<Mutex<Option<Work>>>);

type Work = Pin<Box<dyn Future<Output = ()> + Send>>;

impl Continuation {
    fn new(work: impl Future<Output = ()> + Send + 'static) -> Self {
        Self(Arc::new(Mutex::new(Some(Box::pin(work)))))
    }

    /// Returns the work; `None` on every call after the first.
    pub(crate) fn take(&self) -> Option<Work> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl<G: Gateway> Sockets<G> {
    pub(crate) fn new(gateway: Arc<G>, config: &Config, shutdown: CancellationToken) -> Self {
        describe_metrics();
        Self {
            gateway,
            cors: Cors(config.cors_origins.clone()),
            config: Arc::new(config.limits.clone()),
            slots: Slots::default(),
            shutdown,
        }
    }

    /// Returns true if the request is a GET with `Upgrade: websocket`.
    pub(crate) fn is_upgrade(request: &Request) -> bool {
        request.method() == Method::GET && has_token(request.headers(), &UPGRADE, "websocket")
    }

    /// Builds the `101` response to the handshake, and prepares the session that runs after the response.
    ///
    /// # Errors
    /// If the request is not a handshake of RFC 6455, if it does not name the sub-protocol, or if the origin of the
    /// page is not allowed.
    pub(crate) fn open(&self, request: &Request) -> Result<Response, RequestError> {
        let headers = request.headers();
        let accept = handshake(headers)?;
        if !self.cors.may_open(headers) {
            return Err(RequestError::new(
                StatusCode::FORBIDDEN,
                Code::Forbidden,
                "Pages of this origin may not open a WebSocket: add the origin to CORS_ORIGINS.",
            ));
        }
        let client =
            request.extensions().get::<Client>().cloned().ok_or_else(RequestError::internal)?;
        let bearer = bearer::token(headers).map(ToOwned::to_owned);
        let upgrade = request.take_upgrade().map_err(|_| RequestError::internal())?;
        let session = Session::new(
            Arc::clone(&self.gateway),
            Arc::clone(&self.config),
            self.slots.clone(),
            Handshake { bearer, client },
        );
        let shutdown = self.shutdown.clone();
        let work = Continuation::new(async move {
            // Fails if the client disconnected before the upgrade finished.
            if let Ok(stream) = upgrade.await {
                session.run(stream, &shutdown).await;
            }
        });
        let mut response = Response::builder().status(StatusCode::SWITCHING_PROTOCOLS).finish();
        let response_headers = response.headers_mut();
        response_headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        response_headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        response_headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
        response_headers.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(PROTOCOL));
        response.extensions_mut().insert(work);
        Ok(response)
    }
}

/// Checks the handshake's headers and returns the value of `Sec-WebSocket-Accept`.
fn handshake(headers: &HeaderMap) -> Result<HeaderValue, RequestError> {
    if !has_token(headers, &CONNECTION, "upgrade") {
        return Err(RequestError::malformed("A WebSocket handshake needs `Connection: upgrade`."));
    }
    if headers.get(SEC_WEBSOCKET_VERSION).is_none_or(|version| version != "13") {
        return Err(RequestError::new(
            StatusCode::UPGRADE_REQUIRED,
            Code::Validation,
            "Only WebSocket version 13 (RFC 6455) is supported.",
        )
        .with_header(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13")));
    }
    let mut keys = headers.get_all(SEC_WEBSOCKET_KEY).iter();
    let key = match (keys.next().map(HeaderValue::as_bytes), keys.next()) {
        // In base64, 16 bytes have 24 characters.
        (Some(key), None) if key.len() == 24 && key.ends_with(b"==") => key,
        _ => {
            return Err(RequestError::malformed("`Sec-WebSocket-Key` must be 16 bytes in base64."));
        }
    };
    if !has_token(headers, &SEC_WEBSOCKET_PROTOCOL, PROTOCOL) {
        return Err(RequestError::malformed(
            "The only supported sub-protocol is graphql-transport-ws (npm graphql-ws): name it in `Sec-WebSocket-Protocol`.",
        ));
    }
    HeaderValue::from_str(&derive_accept_key(key)).map_err(|_| RequestError::internal())
}

/// Returns true if a comma-separated header contains the token. The comparison ignores case.
fn has_token(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|candidate| candidate.trim().eq_ignore_ascii_case(token))
}

/// Registers the descriptions of the metrics for `/metrics`; called once at start.
fn describe_metrics() {
    metrics::describe_gauge!("sentryops_sockets", "Number of open WebSockets.");
    metrics::describe_counter!(
        "sentryops_sockets_closed_total",
        "Closed WebSockets by close code; 1006 means that the client disconnected without a close frame."
    );
}
