//! Accepts connections. Limits the open connections per client address, and backs off when `accept` fails.
//!
//! A connection over the limit is closed immediately, because a response would cost the resources that the limit
//! protects. Trusted proxies are exempt, because they carry many clients. IPv6 is counted per /64, because one client
//! owns a whole /64.

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::net::{TcpListener, TcpStream};

use crate::client::TrustedProxies;

/// Pause after the first error of the listening socket, such as EMFILE. Each further error doubles the pause, up to
/// `MAX_PAUSE`; a success resets the pause.
const MIN_PAUSE: Duration = Duration::from_millis(20);
const MAX_PAUSE: Duration = Duration::from_secs(1);

/// TCP listener that limits the open connections per address.
pub(crate) struct Listener {
    inner: TcpListener,
    connections: Arc<ConnectionCounter>,
    failures: u32,
}

impl Listener {
    pub(crate) fn new(inner: TcpListener, exempt: TrustedProxies, max_per_address: usize) -> Self {
        let connections = ConnectionCounter { exempt, max_per_address, counts: Mutex::default() };
        Self { inner, connections: Arc::new(connections), failures: 0 }
    }

    pub(crate) fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }

    /// Waits for the next connection within the limit. Retries after errors, because a caller could do nothing else.
    pub(crate) async fn accept(&mut self) -> (TcpStream, SocketAddr, ConnectionSlot) {
        loop {
            match self.inner.accept().await {
                Ok((stream, peer)) => {
                    self.failures = 0;
                    let Some(slot) = self.connections.acquire(peer.ip()) else {
                        metrics::counter!("sentryops_http_connections_refused_total").increment(1);
                        continue;
                    };
                    // Fails only if the client has disconnected, which the first read reports.
                    let _ = stream.set_nodelay(true);
                    return (stream, peer, slot);
                }
                Err(error) if is_connection_error(&error) => {}
                Err(error) => {
                    if self.failures == 0 {
                        tracing::error!(%error, "cannot accept connections; retrying after 20 ms to 1 s");
                    }
                    let pause = MIN_PAUSE * 2_u32.pow(self.failures.min(8));
                    self.failures = self.failures.saturating_add(1);
                    tokio::time::sleep(pause.min(MAX_PAUSE)).await;
                }
            }
        }
    }
}

/// Returns true if the error concerns one connection that was closed before it was accepted. Other connections are not
/// affected.
fn is_connection_error(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
    )
}

/// Number of open connections per address.
struct ConnectionCounter {
    exempt: TrustedProxies,
    max_per_address: usize,
    counts: Mutex<HashMap<IpAddr, usize>>,
}

impl ConnectionCounter {
    fn acquire(self: &Arc<Self>, peer: IpAddr) -> Option<ConnectionSlot> {
        let address = counted_address(peer);
        if self.exempt.contains(peer.to_canonical()) {
            return Some(ConnectionSlot { connections: Arc::clone(self), address: None });
        }
        let mut counts = self.counts();
        let count = counts.entry(address).or_default();
        if *count >= self.max_per_address {
            return None;
        }
        *count += 1;
        Some(ConnectionSlot { connections: Arc::clone(self), address: Some(address) })
    }

    fn counts(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        // A poisoned lock is safe to use, because a panic cannot leave plain counters half-written.
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns the address that stands for the client in limits: that of the /64 for IPv6.
pub(crate) fn counted_address(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
    }
}

/// An open connection's slot in the limit; released when dropped.
pub(crate) struct ConnectionSlot {
    connections: Arc<ConnectionCounter>,
    /// Address whose count includes this connection; `None` for a trusted proxy.
    address: Option<IpAddr>,
}

impl Drop for ConnectionSlot {
    fn drop(&mut self) {
        let Some(address) = self.address else { return };
        let mut counts = self.connections.counts();
        if let Some(count) = counts.get_mut(&address) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_given_back_and_proxies_need_none() {
        let connections = Arc::new(ConnectionCounter {
            exempt: TrustedProxies(vec!["10.0.0.0/8".parse().unwrap()]),
            max_per_address: 1,
            counts: Mutex::default(),
        });
        let acquire = |address: &str| connections.acquire(address.parse().unwrap());
        let first = acquire("2001:db8::1").unwrap();
        assert!(acquire("2001:db8::2").is_none());
        let _other = acquire("2001:db8:0:1::1").unwrap();
        drop(first);
        assert!(acquire("2001:db8::2").is_some());
        let _proxy = acquire("10.0.0.1").unwrap();
        assert!(acquire("10.0.0.1").is_some());
        assert_eq!(connections.counts().len(), 1);
    }
}
