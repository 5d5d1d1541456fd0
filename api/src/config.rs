//! What the edge needs to be told. `cli` reads the environment; nothing here does.
//!
//! Everything is parsed already (`Origin`, `IpNet`, `SocketAddr`): a value that could not work does not get this far.

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use ipnet::IpNet;

use crate::cors::Origin;

/// The edge's configuration; [`Default`] is development on this machine.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where the public port listens (`LISTEN_ADDR`). `cli` binds it and hands the listener to [`crate::Server::run`].
    pub listen: SocketAddr,
    /// Where health and metrics listen (`HEALTH_ADDR`); never a public address.
    pub health_listen: SocketAddr,
    /// Who may read our answers from a browser (`CORS_ORIGINS`), compared exactly.
    pub cors_origins: Vec<Origin>,
    /// Whose `X-Forwarded-For` and `X-Request-Id` we believe (`TRUSTED_PROXIES`).
    pub trusted_proxies: Vec<IpNet>,
    /// For how long browsers shall use HTTPS only; none in development, where it would lock `localhost`.
    pub hsts: Option<Hsts>,
    /// Serves the playground.
    pub playground: bool,
    /// How much and how long.
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

/// For how long browsers shall use HTTPS only, subdomains included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hsts {
    /// Whole seconds of it are sent (`HSTS_MAX_AGE`).
    pub max_age: Duration,
    /// Whether browsers may ship it (`HSTS_PRELOAD`).
    pub preload: bool,
}

/// How much one client may send, and how long anything may take.
#[derive(Debug, Clone)]
pub struct Limits {
    /// The largest request body, in bytes.
    pub body_bytes: usize,
    /// Open connections of one address (IPv6: of one /64). Trusted proxies are not counted: they speak for many.
    pub connections_per_address: usize,
    /// From the first byte of a request (or from connecting) to the end of its head.
    pub head_timeout: Duration,
    /// Without progress between requests, while an answer is read, or on an upgraded connection.
    pub idle_timeout: Duration,
    /// From the head to the answer's head, body included.
    pub request_timeout: Duration,
    /// What an upload must bring in each `idle_timeout` for which we wait for its bytes; there is no deadline for all of it.
    /// Before a run counts as abandoned ([`ImportRun::ABANDONED`]) it must bring a chunk.
    ///
    /// [`ImportRun::ABANDONED`]: domain::inventory::import::ImportRun::ABANDONED
    pub upload_progress_bytes: usize,
    /// Uploads and exports at once of one user or API key, in this process.
    pub transfers_per_holder: usize,
    /// What is in flight when we are asked to stop may take this long to end.
    pub stop_timeout: Duration,
    /// What stays open: sockets and streams.
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

/// How much one client may keep open, and how long it may be silent.
#[derive(Debug, Clone)]
pub struct Sockets {
    /// Sockets of one user or API key, in this process.
    pub per_holder: usize,
    /// Streams over SSE of one user or API key, in this process.
    pub streams_per_holder: usize,
    /// Operations at once on one socket.
    pub operations: usize,
    /// The largest message to us, in bytes.
    pub message_bytes: usize,
    /// Messages that may wait for a client that reads slowly.
    pub queue_messages: usize,
    /// Their bytes, and so the largest message from us.
    pub queue_bytes: usize,
    /// From the upgrade to `connection_init`.
    pub init_timeout: Duration,
    /// Between two pings; a client that is silent from one to the next is gone.
    pub ping: Duration,
    /// How long a client may take to read the close frame and answer it.
    pub close_timeout: Duration,
    /// Between two comments on a silent SSE stream.
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
    use domain::inventory::import::{ImportRun, cut::CHUNK_BYTES};

    use super::*;

    #[test]
    fn the_slowest_upload_brings_a_chunk_before_it_counts_as_abandoned() {
        let limits = Limits::default();
        let abandoned = ImportRun::ABANDONED.to_std().unwrap().as_secs();
        let turns = usize::try_from(abandoned / limits.idle_timeout.as_secs()).unwrap();
        assert!(turns * limits.upload_progress_bytes >= CHUNK_BYTES);
    }
}
