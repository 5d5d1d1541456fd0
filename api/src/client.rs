//! The client's address, which limits count by, and the request id, which finds the log lines of a request.
//!
//! Both come from the connection unless its peer is a trusted proxy. poem's `RealIp` is not used: it trusts every peer.

use std::net::IpAddr;

use http::{HeaderMap, HeaderName};
use ipnet::IpNet;
use uuid::Uuid;

/// Request id header, in requests and responses.
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// Networks of the trusted proxies: only their forwarded headers are used.
#[derive(Debug, Clone)]
pub(crate) struct Proxies(pub(crate) Vec<IpNet>);

impl Proxies {
    pub(crate) fn contains(&self, address: IpAddr) -> bool {
        self.0.iter().any(|net| net.contains(&address))
    }

    /// Returns the client's address: the right-most hop that is not a trusted proxy. That hop wrote everything to its
    /// left, so those entries prove nothing. An entry that is not an IP address ends the search at the last valid hop.
    pub(crate) fn client(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        let mut client = peer.to_canonical();
        if !self.contains(client) {
            return client;
        }
        let values: Vec<_> = headers.get_all(X_FORWARDED_FOR).iter().collect();
        let hops =
            values.iter().rev().flat_map(|value| value.as_bytes().rsplit(|byte| *byte == b','));
        for hop in hops {
            let Some(hop) = parse(hop) else { break };
            client = hop;
            if !self.contains(client) {
                break;
            }
        }
        client
    }

    /// Returns the request id that a trusted proxy sent, or a new UUID.
    pub(crate) fn request_id(&self, peer: IpAddr, headers: &HeaderMap) -> String {
        let given = headers.get(REQUEST_ID).and_then(|value| value.to_str().ok());
        match given {
            Some(id) if is_request_id(id) && self.contains(peer.to_canonical()) => id.to_owned(),
            _ => Uuid::now_v7().to_string(),
        }
    }
}

fn parse(hop: &[u8]) -> Option<IpAddr> {
    let address: IpAddr = std::str::from_utf8(hop).ok()?.trim().parse().ok()?;
    Some(address.to_canonical())
}

/// Returns true for a short id without special characters: it goes into logs and headers and must not break a line.
fn is_request_id(id: &str) -> bool {
    (1..=64).contains(&id.len())
        && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxies() -> Proxies {
        Proxies(vec!["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()])
    }

    #[test]
    fn the_client_is_the_right_most_hop_that_is_not_ours() {
        let check = |peer: &str, forwarded: &[&str], expected: &str| {
            let mut headers = HeaderMap::new();
            for value in forwarded {
                headers.append(X_FORWARDED_FOR, value.parse().unwrap());
            }
            let client = proxies().client(peer.parse().unwrap(), &headers);
            assert_eq!(client.to_string(), expected, "{peer} {forwarded:?}");
        };
        check("203.0.113.9", &[], "203.0.113.9");
        check("203.0.113.9", &["198.51.100.1"], "203.0.113.9"); // not a trusted proxy
        check("10.0.0.1", &[], "10.0.0.1");
        check("10.0.0.1", &["198.51.100.1"], "198.51.100.1");
        check("::ffff:10.0.0.1", &["::ffff:198.51.100.1"], "198.51.100.1");
        check("10.0.0.1", &["1.1.1.1, 198.51.100.1"], "198.51.100.1"); // the client wrote 1.1.1.1
        check("10.0.0.1", &["1.1.1.1", "198.51.100.1 , 10.0.0.2"], "198.51.100.1");
        check("10.0.0.1", &["10.0.0.3, 10.0.0.2"], "10.0.0.3");
        check("10.0.0.1", &["198.51.100.1, unknown, 10.0.0.2"], "10.0.0.2");
        check("10.0.0.1", &["198.51.100.1:4711"], "10.0.0.1");
        check("10.0.0.1", &["198.51.100.1,"], "10.0.0.1");
        check("10.0.0.1", &["198.51.100.1, 010.1.1.1"], "10.0.0.1");
        check("fd00::1", &["2001:db8::7"], "2001:db8::7");
    }

    #[test]
    fn a_request_id_is_taken_from_our_proxies_only() {
        let check = |peer: &str, id: &'static str, taken: bool| {
            let headers = HeaderMap::from_iter([(REQUEST_ID, id.parse().unwrap())]);
            assert_eq!(proxies().request_id(peer.parse().unwrap(), &headers) == id, taken, "{id}");
        };
        check("10.0.0.1", "a-B_9.z", true);
        check("203.0.113.9", "a-B_9.z", false);
        check("10.0.0.1", "", false);
        check("10.0.0.1", "a b", false);
        check("10.0.0.1", "{\"x\":1}", false);
        check(
            "10.0.0.1",
            "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
            false,
        );
    }
}
