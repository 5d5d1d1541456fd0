//! The server of the public listener: routes, connections, shutdown.
//!
//! Chosen: poem's routing and types, with our own accept loop over hyper's HTTP/1.1. The `Server` of poem 3.1.12 polls
//! a failed connection once more, so a handler outlives its client (measured: a handler ran to completion, 4 s after
//! the client had disconnected). poem's `Server` also has no deadline for request heads, and spins when `accept` fails.
//! Given up: HTTP/2 in clear text, which only a proxy would use. Revisit when poem drops the handler together with its
//! connection.

use std::{
    convert::Infallible,
    io,
    net::SocketAddr,
    pin::pin,
    sync::{Arc, OnceLock},
};

use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use poem::{
    Endpoint as _, Response, Route,
    web::{LocalAddr, RemoteAddr},
};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use crate::{
    client::TrustedProxies,
    config::{Config, Limits},
    connection::{Connection, ConnectionDeadline},
    edge::{self, Edge},
    endpoint::Endpoint,
    export::{self, Export},
    gateway::Gateway,
    headers::ResponseHeaders,
    listener::{ConnectionSlot, Listener},
    playground::Playground,
    report::{self, Report},
    socket::{Continuation, Sockets, slots::Slots},
    sse::Streams,
    upload::{self, Upload},
    welcome::{Favicon, SecurityTxt, Welcome},
};

/// Maximum number of header fields in a request. Typical requests have about 20; proxies add a few.
const MAX_HEADERS: usize = 100;
/// Maximum size of a request head, including the query string of a GET.
const MAX_HEAD_BYTES: usize = 64 * 1024;

/// HTTP server of the public listener of an API process.
pub struct Server {
    endpoint: Edge<Route>,
    config: Config,
    /// Cancelled when a shutdown begins. Ends sockets, streams and uploads, which have no deadline.
    shutdown: CancellationToken,
}

impl Server {
    /// Builds the server with its routes; no address is bound.
    pub fn new(config: Config, gateway: impl Gateway) -> Self {
        edge::describe_metrics();
        let (gateway, shutdown) = (Arc::new(gateway), CancellationToken::new());
        let sockets = Sockets::new(Arc::clone(&gateway), &config, shutdown.clone());
        let streams = Streams::new(Arc::clone(&gateway), &config, shutdown.clone());
        let files = files(&gateway, &config.limits, &shutdown);
        let routes = files
            .at("/graphql", Endpoint::new(gateway, config.limits.body_bytes, sockets))
            .at("/graphql/stream", streams)
            .at("/", Welcome::new(config.playground))
            .at("/favicon.ico", Favicon::new(config.playground))
            .at("/.well-known/security.txt", SecurityTxt);
        let routes = if config.playground {
            routes.at("/playground", Playground).at("/playground/*file", Playground)
        } else {
            routes
        };
        Self { endpoint: Edge::new(routes, &config), config, shutdown }
    }

    /// Serves until `stop` is cancelled. Then the server accepts no more connections, waits up to `limits.stop_timeout`
    /// for requests in flight, and returns. Dropping the future closes every connection immediately.
    ///
    /// # Errors
    /// If the operating system does not return the local address of `listener`. Later errors do not end the server.
    pub async fn run(self, listener: TcpListener, stop: CancellationToken) -> io::Result<()> {
        let Self { endpoint, config, shutdown } = self;
        let proxies = TrustedProxies(config.trusted_proxies);
        let listener = Listener::new(listener, proxies, config.limits.connections_per_address);
        let stop_signal = stop.clone();
        let forward_stop = async move {
            stop_signal.cancelled().await;
            shutdown.cancel();
            std::future::pending().await
        };
        tokio::select! {
            served = serve(endpoint, listener, &config.limits, ResponseHeaders::of(config.hsts), stop) => served,
            never = forward_stop => never,
        }
    }
}

/// Builds the upload, export and report routes. They share the slots that limit the concurrent transfers of one user or
/// API key.
fn files<G: Gateway>(gateway: &Arc<G>, limits: &Limits, shutdown: &CancellationToken) -> Route {
    let slots = Slots::default();
    let routes = upload::ROUTES.into_iter().fold(Route::new(), |routes, (path, kind)| {
        let gateway = Arc::clone(gateway);
        routes.at(path, Upload::new(kind, gateway, limits, slots.clone(), shutdown.clone()))
    });
    let routes = export::ROUTES.into_iter().fold(routes, |routes, (path, kind)| {
        routes.at(path, Export::new(kind, Arc::clone(gateway), limits, slots.clone()))
    });
    routes.at(report::ROUTE, Report::new(Arc::clone(gateway), limits, slots))
}

/// Runs the accept loop of the public listener or of the health listener.
pub(crate) async fn serve<E>(
    endpoint: E,
    mut listener: Listener,
    limits: &Limits,
    headers: ResponseHeaders,
    stop: CancellationToken,
) -> io::Result<()>
where
    E: poem::Endpoint<Output = Response> + 'static,
{
    let endpoint = Arc::new(endpoint);
    let local = listener.local_addr()?;
    let mut connections = JoinSet::new();
    loop {
        let (stream, peer, slot) = tokio::select! {
            () = stop.cancelled() => break,
            Some(_) = connections.join_next() => continue,
            accepted = listener.accept() => accepted,
        };
        let accepted = AcceptedConnection { stream, slot, local, peer };
        let (endpoint, limits, stop) = (Arc::clone(&endpoint), limits.clone(), stop.clone());
        let headers = headers.clone();
        connections.spawn(async move { accepted.serve(endpoint, &limits, headers, &stop).await });
    }
    drop(listener);
    let finish = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(limits.stop_timeout, finish).await.is_err() {
        tracing::warn!(
            "{} connections did not end before the shutdown timeout and were closed",
            connections.len()
        );
    }
    Ok(())
}

/// Accepted connection, with its slot in the connection limit and both addresses.
struct AcceptedConnection {
    stream: TcpStream,
    slot: ConnectionSlot,
    local: SocketAddr,
    peer: SocketAddr,
}

impl AcceptedConnection {
    /// Serves the connection until the client disconnects or a deadline passes. After `stop`, the connection ends with
    /// the response to the request in flight. On return the handler is dropped, which cancels its work in the database.
    async fn serve<E>(
        self,
        endpoint: Arc<E>,
        limits: &Limits,
        headers: ResponseHeaders,
        stop: &CancellationToken,
    ) where
        E: poem::Endpoint<Output = Response> + 'static,
    {
        let Self { stream, slot, local, peer } = self;
        let deadline = ConnectionDeadline::new(limits);
        let continuation = Arc::new(OnceLock::<Continuation>::new());
        let shared_continuation = Arc::clone(&continuation);
        let stream = Connection::new(stream, slot, Arc::clone(&deadline), headers);
        let service = service_fn(move |mut request: http::Request<hyper::body::Incoming>| {
            deadline.on_request();
            request.extensions_mut().insert(Arc::clone(&deadline));
            let (endpoint, deadline) = (Arc::clone(&endpoint), Arc::clone(&deadline));
            let shared_continuation = Arc::clone(&shared_continuation);
            async move {
                let (local, remote) = (LocalAddr(local.into()), RemoteAddr(peer.into()));
                let request = (request, local, remote, http::uri::Scheme::HTTP).into();
                let mut response = endpoint.get_response(request).await;
                if let Some(work) = response.extensions_mut().remove::<Continuation>() {
                    // A connection is upgraded at most once, because no HTTP request is read after the upgrade.
                    let _ = shared_continuation.set(work);
                }
                deadline.on_response(response.status());
                Ok::<http::Response<_>, Infallible>(response.into())
            }
        });
        let connection = http1::Builder::new()
            .max_headers(MAX_HEADERS)
            .max_header_size(MAX_HEAD_BYTES)
            .serve_connection(TokioIo::new(stream), service)
            .with_upgrades();
        let mut connection = pin!(connection);
        let result = tokio::select! {
            result = connection.as_mut() => result,
            () = stop.cancelled() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = result {
            tracing::debug!(%error, client.address = %peer.ip(), "a connection ended with an error");
        }
        if let Some(work) = continuation.get().and_then(Continuation::take) {
            work.await;
        }
    }
}
