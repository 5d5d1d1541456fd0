//! Configuration of the edge. `cli` reads it from the environment; this crate never does.
//!
//! All values are parsed (`Origin`, `IpNet`, `SocketAddr`), so an invalid value cannot get this far.

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use ipnet::IpNet;

use crate::cors::Origin;

/// Configuration of the edge. [`Default`] suits development on one machine.
#[derive(Debug, Clone)]
pub struct Config {
    /// Address of the public port (`LISTEN_ADDR`). `cli` binds it and passes the listener to [`crate::Server::run`].
    pub listen: SocketAddr,
    /// Address of the port for health and metrics (`HEALTH_ADDR`); never a public address.
    pub health_listen: SocketAddr,
    /// Origins that may read responses from a browser (`CORS_ORIGINS`), compared exactly.
    pub cors_origins: Vec<Origin>,
    /// Networks with a trusted `X-Forwarded-For` and `X-Request-Id` (`TRUSTED_PROXIES`).
    pub trusted_proxies: Vec<IpNet>,
    /// HTTP Strict Transport Security; `None` in development, where it would break plain HTTP on `localhost`.
    pub hsts: Option<Hsts>,
    /// True if `/playground` is served.
    pub playground: bool,
    /// Limits on sizes, counts and durations.
    pub limits: Limits,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 8080)),
            health_listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 8092)),
            cors_origins: vec![Origin::local_development()],
            trusted_proxies: Vec::new(),
            hsts: None,
            playground: true,
            limits: Limits::default(),
        }
    }
}

/// HTTP Strict Transport Security (HSTS), always including subdomains.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hsts {
    /// Duration for which browsers use HTTPS only, sent in whole seconds (`HSTS_MAX_AGE`).
    pub max_age: Duration,
    /// True if browsers may add the domain to their preload lists (`HSTS_PRELOAD`).
    pub preload: bool,
}

/// Limits on sizes and counts per client, and deadlines.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Maximum size of a request body in bytes.
    pub body_bytes: usize,
    /// Maximum open connections per client address (IPv6: per /64). Trusted proxies are exempt: they carry many
    /// clients.
    pub connections_per_address: usize,
    /// Maximum time from the first byte of a request (or from connecting) to the end of its head.
    pub head_timeout: Duration,
    /// Maximum time without progress between requests, while a response is read, or on an upgraded connection.
    pub idle_timeout: Duration,
    /// Maximum time from a request's head to the response's head, including the time to read the request's body.
    pub request_timeout: Duration,
    /// Minimum number of bytes that an upload must deliver in each `idle_timeout` spent waiting for the client. An
    /// upload has no overall deadline. The value must be high enough to deliver a whole chunk before the run counts as
    /// abandoned ([`ImportRun::ABANDONED`]).
    ///
    /// [`ImportRun::ABANDONED`]: domain::inventory::import::ImportRun::ABANDONED
    pub upload_progress_bytes: usize,
    /// Maximum concurrent uploads and exports of one user or API key in this process.
    pub transfers_per_holder: usize,
    /// Maximum time for requests in flight to end after a shutdown begins.
    pub stop_timeout: Duration,
    /// Limits of WebSockets and SSE streams.
    pub sockets: Sockets,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body_bytes: 1024 * 1024,
            connections_per_address: 100,
            head_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_mins(1),
            request_timeout: Duration::from_secs(30),
            upload_progress_bytes: 128 * 1024,
            transfers_per_holder: 5,
            stop_timeout: Duration::from_secs(30),
            sockets: Sockets::default(),
        }
    }
}

/// Limits of WebSockets and SSE streams: counts per client, sizes and intervals.
#[derive(Debug, Clone)]
pub struct Sockets {
    /// Maximum open sockets of one user or API key in this process.
    pub per_holder: usize,
    /// Maximum open SSE streams of one user or API key in this process.
    pub streams_per_holder: usize,
    /// Maximum concurrent operations on one socket.
    pub operations: usize,
    /// Maximum size of a message from the client in bytes.
    pub message_bytes: usize,
    /// Maximum number of queued messages for a client that reads slowly.
    pub queue_messages: usize,
    /// Maximum total size of queued messages in bytes, and so the maximum size of one message to the client.
    pub queue_bytes: usize,
    /// Maximum time from the upgrade to `connection_init`.
    pub init_timeout: Duration,
    /// Interval between two pings. A client that sends nothing from one ping to the next is disconnected.
    pub ping: Duration,
    /// Maximum time for a client to read the close frame and answer it.
    pub close_timeout: Duration,
    /// Interval between two comments on an idle SSE stream.
    pub keep_alive: Duration,
}

impl Default for Sockets {
    fn default() -> Self {
        Self {
            per_holder: 5,
            streams_per_holder: 20,
            operations: 20,
            message_bytes: 64 * 1024,
            queue_messages: 256,
            queue_bytes: 1024 * 1024,
            init_timeout: Duration::from_secs(3),
            ping: Duration::from_secs(20),
            close_timeout: Duration::from_secs(2),
            keep_alive: Duration::from_secs(15),
        }
    }
}

#[cfg(test)]
mod tests {
    use domain::inventory::import::{ImportRun, chunker::CHUNK_BYTES};

    use super::*;

    #[test]
    fn the_slowest_upload_brings_a_chunk_before_it_counts_as_abandoned() {
        let limits = Limits::default();
        let abandoned = ImportRun::ABANDONED.to_std().unwrap().as_secs();
        let turns = usize::try_from(abandoned / limits.idle_timeout.as_secs()).unwrap();
        assert!(turns * limits.upload_progress_bytes >= CHUNK_BYTES);
    }
}
