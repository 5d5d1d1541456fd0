//! Who may connect: at most so many at a time from one address, and no spinning when the process is out of sockets.
//!
//! Over the cap a connection is closed at once: an answer would cost what the cap is there to save. Trusted proxies are
//! not counted, they speak for many; one client of IPv6 owns a /64, so that is what is counted there.

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::net::{TcpListener, TcpStream};

use crate::client::Proxies;

/// After an error of the listener itself, such as EMFILE: doubled up to the longest, forgotten at the first success.
const SHORTEST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// A listener that counts.
pub(crate) struct Listener {
    inner: TcpListener,
    crowd: Arc<Crowd>,
    failures: u32,
}

impl Listener {
    pub(crate) fn new(inner: TcpListener, exempt: Proxies, most_per_address: usize) -> Self {
        let crowd = Crowd { exempt, most_per_address, counts: Mutex::default() };
        Self { inner, crowd: Arc::new(crowd), failures: 0 }
    }

    pub(crate) fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }

    /// The next connection within the cap. Never fails: there is nothing a caller could do but try again.
    pub(crate) async fn accept(&mut self) -> (TcpStream, SocketAddr, Slot) {
        loop {
            match self.inner.accept().await {
                Ok((stream, peer)) => {
                    self.failures = 0;
                    let Some(slot) = self.crowd.enter(peer.ip()) else {
                        metrics::counter!("sentryops_http_connections_refused_total").increment(1);
                        continue;
                    };
                    // Fails only on a connection that is gone; its first read will say so.
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

/// It died between the handshake and us; the next one is not affected.
fn is_of_the_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
    )
}

/// How many connections each address has.
struct Crowd {
    exempt: Proxies,
    most_per_address: usize,
    counts: Mutex<HashMap<IpAddr, usize>>,
}

impl Crowd {
    fn enter(self: &Arc<Self>, peer: IpAddr) -> Option<Slot> {
        let address = counted_address(peer);
        if self.exempt.contains(peer.to_canonical()) {
            return Some(Slot { crowd: Arc::clone(self), address: None });
        }
        let mut counts = self.counts();
        let count = counts.entry(address).or_default();
        if *count >= self.most_per_address {
            return None;
        }
        *count += 1;
        Some(Slot { crowd: Arc::clone(self), address: Some(address) })
    }

    fn counts(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        // Plain counters: a panic elsewhere cannot leave them half written.
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn counted_address(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
    }
}

/// One connection's place; given back when dropped.
pub(crate) struct Slot {
    crowd: Arc<Crowd>,
    /// `None`: a trusted proxy's.
    address: Option<IpAddr>,
}

impl Drop for Slot {
    fn drop(&mut self) {
        let Some(address) = self.address else { return };
        let mut counts = self.crowd.counts();
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
        let crowd = Arc::new(Crowd {
            exempt: Proxies(vec!["10.0.0.0/8".parse().unwrap()]),
            most_per_address: 1,
            counts: Mutex::default(),
        });
        let enter = |address: &str| crowd.enter(address.parse().unwrap());
        let first = enter("2001:db8::1").unwrap();
        assert!(enter("2001:db8::2").is_none());
        let _other = enter("2001:db8:0:1::1").unwrap();
        drop(first);
        assert!(enter("2001:db8::2").is_some());
        let _proxy = enter("10.0.0.1").unwrap();
        assert!(enter("10.0.0.1").is_some());
        assert_eq!(crowd.counts().len(), 1);
    }
}
