//! Accepts connections: limits open connections per client address, and backs off when `accept` fails.
//!
//! A connection over the limit is closed immediately, because a response would cost what the limit is meant to save.
//! Trusted proxies are exempt: they carry many clients. IPv6 is counted per /64, because one client owns a whole /64.

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::net::{TcpListener, TcpStream};

use crate::client::Proxies;

/// First pause after an error of the listener itself, such as EMFILE. Each further error doubles it, up to
/// `LONGEST_PAUSE`; a success resets it.
const SHORTEST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// TCP listener that limits the open connections per address.
pub(crate) struct Listener {
    inner: TcpListener,
    connections: Arc<ConnectionCounter>,
    failures: u32,
}

impl Listener {
    pub(crate) fn new(inner: TcpListener, exempt: Proxies, most_per_address: usize) -> Self {
        let connections = ConnectionCounter { exempt, most_per_address, counts: Mutex::default() };
        Self { inner, connections: Arc::new(connections), failures: 0 }
    }

    pub(crate) fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }

    /// Waits for the next connection within the limit. Errors are retried here, because a caller could only retry too.
    pub(crate) async fn accept(&mut self) -> (TcpStream, SocketAddr, Slot) {
        loop {
            match self.inner.accept().await {
                Ok((stream, peer)) => {
                    self.failures = 0;
                    let Some(slot) = self.connections.enter(peer.ip()) else {
                        metrics::counter!("sentryops_http_connections_refused_total").increment(1);
                        continue;
                    };
                    // Fails only if the connection is already gone; its first read reports that.
                    let _ = stream.set_nodelay(true);
                    return (stream, peer, slot);
                }
                Err(error) if is_of_the_connection(&error) => {}
                Err(error) => {
                    if self.failures == 0 {
                        tracing::error!(%error, "cannot accept connections; trying again");
                    }
                    let pause = SHORTEST_PAUSE * 2_u32.pow(self.failures.min(8));
                    self.failures = self.failures.saturating_add(1);
                    tokio::time::sleep(pause.min(LONGEST_PAUSE)).await;
                }
            }
        }
    }
}

/// Returns true if the error concerns a single connection that died before it was accepted. The next is not affected.
fn is_of_the_connection(error: &io::Error) -> bool {
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
    exempt: Proxies,
    most_per_address: usize,
    counts: Mutex<HashMap<IpAddr, usize>>,
}

impl ConnectionCounter {
    fn enter(self: &Arc<Self>, peer: IpAddr) -> Option<Slot> {
        let address = counted_address(peer);
        if self.exempt.contains(peer.to_canonical()) {
            return Some(Slot { connections: Arc::clone(self), address: None });
        }
        let mut counts = self.counts();
        let count = counts.entry(address).or_default();
        if *count >= self.most_per_address {
            return None;
        }
        *count += 1;
        Some(Slot { connections: Arc::clone(self), address: Some(address) })
    }

    fn counts(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        // A poisoned lock is safe to use: a panic cannot leave plain counters half-written.
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn counted_address(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
    }
}

/// Slot of one open connection; released when dropped.
pub(crate) struct Slot {
    connections: Arc<ConnectionCounter>,
    /// Address that the connection counts against; `None` for a trusted proxy.
    address: Option<IpAddr>,
}

impl Drop for Slot {
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
            exempt: Proxies(vec!["10.0.0.0/8".parse().unwrap()]),
            most_per_address: 1,
            counts: Mutex::default(),
        });
        let enter = |address: &str| connections.enter(address.parse().unwrap());
        let first = enter("2001:db8::1").unwrap();
        assert!(enter("2001:db8::2").is_none());
        let _other = enter("2001:db8:0:1::1").unwrap();
        drop(first);
        assert!(enter("2001:db8::2").is_some());
        let _proxy = enter("10.0.0.1").unwrap();
        assert!(enter("10.0.0.1").is_some());
        assert_eq!(connections.counts().len(), 1);
    }
}
