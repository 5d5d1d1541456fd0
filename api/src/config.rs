//! Configuration of the HTTP edge, i.e. of this crate. `cli` reads the values from the environment; this crate never
//! reads environment variables.
//!
//! All values have parsed types (`Origin`, `IpNet`, `SocketAddr`), so a [`Config`] contains no malformed value.

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use ipnet::IpNet;

use crate::cors::Origin;

/// Configuration of the HTTP edge. [`Default`] suits development on one machine.
#[derive(Debug, Clone)]
pub struct Config {
    /// Address of the public listener (`LISTEN_ADDR`), which `cli` binds and passes to [`crate::Server::run`].
    pub listen: SocketAddr,
    /// Address of the health listener, which serves health and metrics (`HEALTH_ADDR`). Must not be reachable by the
    /// public.
    pub health_listen: SocketAddr,
    /// Origins that may read responses from a browser (`CORS_ORIGINS`), compared exactly.
    pub cors_origins: Vec<Origin>,
    /// Networks of the proxies whose `X-Forwarded-For` and `X-Request-Id` are used (`TRUSTED_PROXIES`).
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
    /// Maximum time without a transferred byte: between two requests, while a response is sent, or on an upgraded
    /// connection.
    pub idle_timeout: Duration,
    /// Maximum time from the head of a request to the head of its response. Includes reading the body of the request.
    pub request_timeout: Duration,
    /// Minimum number of bytes that the client of an upload must send per `idle_timeout` of waiting time. An upload has
    /// no overall deadline. At this minimum rate, a whole chunk of the file must arrive before the import run counts as
    /// abandoned ([`ImportRun::ABANDONED_AFTER`]).
    ///
    /// [`ImportRun::ABANDONED_AFTER`]: domain::inventory::import::ImportRun::ABANDONED_AFTER
    pub upload_progress_bytes: usize,
    /// Maximum concurrent uploads and exports of one user or API key in this process.
    pub transfers_per_holder: usize,
    /// Drain timeout of requests in flight. Connections that are still open after this time are closed.
    pub stop_timeout: Duration,
    /// Limits of sockets and SSE streams.
    pub sockets: SocketLimits,
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
            sockets: SocketLimits::default(),
        }
    }
}

/// Limits of sockets and SSE streams: counts per client, sizes and intervals.
#[derive(Debug, Clone)]
pub struct SocketLimits {
    /// Maximum open sockets of one user or API key in this process; also those without a token from one address.
    pub per_holder: usize,
    /// Maximum open SSE streams of one user or API key in this process; also those without a token from one address.
    pub streams_per_holder: usize,
    /// Maximum open sockets without a token in this process, and the same number of SSE streams.
    pub anonymous: usize,
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
    /// Maximum time that the server waits for the client to answer a close frame.
    pub close_timeout: Duration,
    /// Interval between two comments on an idle SSE stream.
    pub keep_alive: Duration,
}

impl Default for SocketLimits {
    fn default() -> Self {
        Self {
            per_holder: 5,
            streams_per_holder: 20,
            anonymous: 1000,
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
        let abandoned = ImportRun::ABANDONED_AFTER.to_std().unwrap().as_secs();
        let windows = usize::try_from(abandoned / limits.idle_timeout.as_secs()).unwrap();
        assert!(windows * limits.upload_progress_bytes >= CHUNK_BYTES);
    }
}
