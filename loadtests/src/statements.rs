//! Counts of the statements that a server sends to Postgres per request. A proxy on a Unix socket forwards all bytes,
//! and counts the messages of the server. The measured servers do not use the proxy: for the counts, a second server of
//! each kind is started behind the proxy and receives a few requests.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use anyhow::{Context, Result};
use serde::Serialize;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{UnixListener, UnixStream},
    task::JoinHandle,
};

/// File name of a Postgres socket.
const SOCKET: &str = ".s.PGSQL.5432";
const SSL_REQUEST: u32 = 80_877_103;
const GSS_REQUEST: u32 = 80_877_104;

/// Average counts for one request.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Count {
    /// Number of statements, including `BEGIN`, `SET` and `COMMIT`.
    pub(crate) statements: f64,
    /// Number of round trips to Postgres.
    pub(crate) round_trips: f64,
}

/// A counting proxy in front of Postgres; it stops accepting connections when dropped.
pub(crate) struct CountingProxy {
    /// Postgres URL of the proxy.
    pub(crate) database: String,
    tally: Arc<Tally>,
    listening: JoinHandle<()>,
}

#[derive(Default)]
struct Tally {
    statements: AtomicU32,
    round_trips: AtomicU32,
}

impl CountingProxy {
    /// Opens a proxy to the Postgres at `database`, with its socket in `folder`.
    pub(crate) fn open(database: &str, folder: &Path) -> Result<Self> {
        let (proxy_url, upstream) = redirect(database, folder)
            .with_context(|| "the Postgres URL does not name a Unix socket")?;
        let listener = UnixListener::bind(folder.join(SOCKET)).context("bind the socket")?;
        let tally = Arc::new(Tally::default());
        let counting = Arc::clone(&tally);
        let listening = tokio::spawn(async move {
            while let Ok((frontend, _)) = listener.accept().await {
                let (upstream, tally) = (upstream.clone(), Arc::clone(&counting));
                // The error is ignored, because the server reports a broken connection.
                tokio::spawn(async move { forward(frontend, &upstream, &tally).await.ok() });
            }
        });
        Ok(Self { database: proxy_url, tally, listening })
    }

    /// Returns the counts since the last call, divided by `requests`, and resets them.
    pub(crate) fn take(&self, requests: u32) -> Count {
        let each =
            |sum: &AtomicU32| f64::from(sum.swap(0, Ordering::Relaxed)) / f64::from(requests);
        Count {
            statements: each(&self.tally.statements),
            round_trips: each(&self.tally.round_trips),
        }
    }
}

impl Drop for CountingProxy {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

/// Returns the URL with the socket's folder replaced by `folder`, and the path of the original socket. `None` if the
/// URL names no Unix socket.
fn redirect(database: &str, folder: &Path) -> Option<(String, String)> {
    let (login, rest) = database.rsplit_once('@')?;
    let (host, name) = rest.split_once('/')?;
    let upstream = host.replace("%2F", "/");
    let folder = folder.to_str()?.replace('/', "%2F");
    let is_path = upstream.starts_with('/');
    is_path.then(|| (format!("{login}@{folder}/{name}"), format!("{upstream}/{SOCKET}")))
}

async fn forward(frontend: UnixStream, upstream: &str, tally: &Tally) -> Result<()> {
    let backend = UnixStream::connect(upstream).await?;
    let (mut from_frontend, mut to_frontend) = frontend.into_split();
    let (mut from_backend, mut to_backend) = backend.into_split();
    let requests = async {
        let mut messages = Messages::default();
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let count = from_frontend.read(&mut buffer).await?;
            if count == 0 {
                return to_backend.shutdown().await;
            }
            messages.feed(&buffer[..count], tally);
            to_backend.write_all(&buffer[..count]).await?;
        }
    };
    let responses = tokio::io::copy(&mut from_backend, &mut to_frontend);
    tokio::try_join!(requests, responses)?;
    Ok(())
}

/// Parser of the messages that the server sends to Postgres. Messages can span several reads.
#[derive(Default)]
struct Messages {
    pending: Vec<u8>,
    is_started: bool,
}

impl Messages {
    fn feed(&mut self, bytes: &[u8], tally: &Tally) {
        self.pending.extend_from_slice(bytes);
        let mut rest = self.pending.as_slice();
        loop {
            let (tag, after) = match (self.is_started, rest) {
                (false, bytes) => (None, bytes),
                (true, [tag, bytes @ ..]) => (Some(*tag), bytes),
                (true, []) => break,
            };
            // The length field includes its own four bytes.
            let Some(length) = number(after).map(|length| length as usize) else { break };
            let Some(body) = after.get(4..length) else { break };
            match tag {
                None => {
                    let code = number(body).unwrap_or_default();
                    self.is_started = code != SSL_REQUEST && code != GSS_REQUEST;
                }
                Some(tag) => count(tag, body, tally),
            }
            rest = &after[length..];
        }
        let read = self.pending.len() - rest.len();
        self.pending.drain(..read);
    }
}

fn number(bytes: &[u8]) -> Option<u32> {
    bytes.first_chunk().copied().map(u32::from_be_bytes)
}

fn count(tag: u8, body: &[u8], tally: &Tally) {
    let (statements, round_trips) = match tag {
        // A simple query can contain several statements. Neither sentryops nor the peers send a semicolon in a string.
        b'Q' => (body.split(|byte| *byte == b';').filter(|text| has_words(text)).count(), 1),
        b'E' => (1, 0), // Execute
        b'S' => (0, 1), // Sync
        _ => (0, 0),
    };
    let statements = u32::try_from(statements).unwrap_or(u32::MAX);
    tally.statements.fetch_add(statements, Ordering::Relaxed);
    tally.round_trips.fetch_add(round_trips, Ordering::Relaxed);
}

fn has_words(text: &[u8]) -> bool {
    text.iter().any(u8::is_ascii_alphanumeric)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(tag: Option<u8>, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(body.len() + 4).unwrap().to_be_bytes();
        tag.into_iter().chain(length).chain(body.iter().copied()).collect()
    }

    #[test]
    fn statements_are_counted_however_they_arrive() {
        let wire = [
            message(None, &SSL_REQUEST.to_be_bytes()),
            message(None, &[0, 3, 0, 0, b'x', 0]),
            message(Some(b'Q'), b"BEGIN READ ONLY; SET LOCAL ROLE a; SET LOCAL b.c = ''\0"),
            message(Some(b'B'), b"bind E S Q"),
            message(Some(b'E'), b"\0\0\0\0\0"),
            message(Some(b'S'), b""),
            message(Some(b'Q'), b"COMMIT;\0"),
        ]
        .concat();
        for size in [1, 3, 7, wire.len()] {
            let (mut messages, tally) = (Messages::default(), Tally::default());
            wire.chunks(size).for_each(|part| messages.feed(part, &tally));
            assert_eq!(tally.statements.into_inner(), 5, "by {size}");
            assert_eq!(tally.round_trips.into_inner(), 3, "by {size}");
        }
    }

    #[test]
    fn only_the_socket_of_an_address_changes() {
        let address = "postgresql://u:p@%2Frun%2Fx/db";
        let (ours, upstream) = redirect(address, Path::new("/tmp/y")).unwrap();
        assert_eq!(ours, "postgresql://u:p@%2Ftmp%2Fy/db");
        assert_eq!(upstream, "/run/x/.s.PGSQL.5432");
        assert!(redirect("postgresql://u:p@localhost/db", Path::new("/tmp/y")).is_none());
    }
}
