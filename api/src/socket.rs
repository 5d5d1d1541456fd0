//! `GET /graphql` upgraded to a WebSocket that speaks `graphql-transport-ws`: the handshake.
//!
//! Our own, because the stock one closes with the wrong codes, lets a second operation of the same id replace the first,
//! waits for ever for `connection_init`, never pings and does not know that a session ended. Framing is
//! tungstenite's. Another sub-protocol gets HTTP 400 and not 4406: a browser to which none of its protocols is confirmed
//! drops the socket before it would read a close code. The socket runs in its connection's task, so it is counted,
//! stopped and cut like any request.

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
    refusal::{Code, Refusal},
};
use places::Places;
use session::{Opening, Session};

mod close;
mod message;
mod outbox;
pub(crate) mod places;
mod session;
mod wire;

const PROTOCOL: &str = "graphql-transport-ws";

/// Opens sockets.
pub(crate) struct Sockets<G> {
    gateway: Arc<G>,
    cors: Cors,
    config: Arc<crate::config::Limits>,
    places: Places,
    stopping: CancellationToken,
}

/// What goes on after `101`, in the connection's task. An extension of the response, taken out by the server.
#[derive(Clone)]
pub(crate) struct Continuation(Arc<Mutex<Option<Work>>>);

type Work = Pin<Box<dyn Future<Output = ()> + Send>>;

impl Continuation {
    fn new(work: impl Future<Output = ()> + Send + 'static) -> Self {
        Self(Arc::new(Mutex::new(Some(Box::pin(work)))))
    }

    /// The work; once.
    pub(crate) fn take(&self) -> Option<Work> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl<G: Gateway> Sockets<G> {
    pub(crate) fn new(gateway: Arc<G>, config: &Config, stopping: CancellationToken) -> Self {
        describe_metrics();
        Self {
            gateway,
            cors: Cors(config.cors_origins.clone()),
            config: Arc::new(config.limits.clone()),
            places: Places::default(),
            stopping,
        }
    }

    /// Whether the request asks for another protocol on its connection.
    pub(crate) fn is_upgrade(request: &Request) -> bool {
        request.method() == Method::GET && has_token(request.headers(), &UPGRADE, "websocket")
    }

    /// `101`, and the socket behind it.
    ///
    /// # Errors
    /// What is no handshake of RFC 6455, comes from a foreign page, or speaks another sub-protocol.
    pub(crate) fn open(&self, request: &Request) -> Result<Response, Refusal> {
        let headers = request.headers();
        let accept = handshake(headers)?;
        if !self.cors.may_open(headers) {
            return Err(Refusal::new(
                StatusCode::FORBIDDEN,
                Code::Forbidden,
                "Pages of this origin may not open sockets here: see CORS_ORIGINS.",
            ));
        }
        let client = request.extensions().get::<Client>().cloned().ok_or_else(Refusal::internal)?;
        let bearer = bearer::token(headers).map(ToOwned::to_owned);
        let upgrade = request.take_upgrade().map_err(|_| Refusal::internal())?;
        let session = Session::new(
            Arc::clone(&self.gateway),
            Arc::clone(&self.config),
            self.places.clone(),
            Opening { bearer, client },
        );
        let stopping = self.stopping.clone();
        let work = Continuation::new(async move {
            // Fails where the client left between the two.
            if let Ok(stream) = upgrade.await {
                session.run(stream, &stopping).await;
            }
        });
        let mut response = Response::builder().status(StatusCode::SWITCHING_PROTOCOLS).finish();
        let own = response.headers_mut();
        own.insert(UPGRADE, HeaderValue::from_static("websocket"));
        own.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        own.insert(SEC_WEBSOCKET_ACCEPT, accept);
        own.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(PROTOCOL));
        response.extensions_mut().insert(work);
        Ok(response)
    }
}

/// What proves to the client that we understood it.
fn handshake(headers: &HeaderMap) -> Result<HeaderValue, Refusal> {
    if !has_token(headers, &CONNECTION, "upgrade") {
        return Err(Refusal::malformed("An upgrade says so in `Connection: upgrade` as well."));
    }
    if headers.get(SEC_WEBSOCKET_VERSION).is_none_or(|version| version != "13") {
        return Err(Refusal::new(
            StatusCode::UPGRADE_REQUIRED,
            Code::Validation,
            "Sockets here are of version 13 (RFC 6455).",
        )
        .with_header(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13")));
    }
    let mut keys = headers.get_all(SEC_WEBSOCKET_KEY).iter();
    let key = match (keys.next().map(HeaderValue::as_bytes), keys.next()) {
        // 16 bytes in base64.
        (Some(key), None) if key.len() == 24 && key.ends_with(b"==") => key,
        _ => return Err(Refusal::malformed("`Sec-WebSocket-Key` must be 16 bytes in base64.")),
    };
    if !has_token(headers, &SEC_WEBSOCKET_PROTOCOL, PROTOCOL) {
        return Err(Refusal::malformed(
            "Sockets here speak the sub-protocol graphql-transport-ws (npm graphql-ws): name it in `Sec-WebSocket-Protocol`.",
        ));
    }
    HeaderValue::from_str(&derive_accept_key(key)).map_err(|_| Refusal::internal())
}

/// Whether a list of words names this one.
fn has_token(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|word| word.trim().eq_ignore_ascii_case(token))
}

/// Said once at start, for `/metrics`.
fn describe_metrics() {
    metrics::describe_gauge!("sentryops_sockets", "Sockets that are open.");
    metrics::describe_counter!(
        "sentryops_sockets_closed_total",
        "Sockets by the code they were closed with; 1006 is a client that left without a word."
    );
}
