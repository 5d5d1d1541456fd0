//! The client address, to which all per-address limits apply, and the request id, which links a response to its log
//! lines.
//!
//! The headers `X-Forwarded-For` and `X-Request-Id` are used only if the peer of the connection is a trusted proxy. For
//! any other peer, the client address is the address of the peer, and the request id is a new UUID. poem's `RealIp` is
//! not used, because it trusts every peer.

use std::net::{IpAddr, SocketAddr};

use http::{HeaderMap, HeaderName};
use ipnet::IpNet;
use uuid::Uuid;

/// Request id header, in requests and responses.
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// Networks of the trusted proxies. Forwarded headers from other addresses are ignored.
#[derive(Debug, Clone)]
pub(crate) struct TrustedProxies(pub(crate) Vec<IpNet>);

impl TrustedProxies {
    pub(crate) fn contains(&self, address: IpAddr) -> bool {
        self.0.iter().any(|net| net.contains(&address))
    }

    /// Returns the client address: the right-most hop that is not a trusted proxy. Entries to the left of this hop were
    /// sent by the hop and prove nothing. An entry that is not an IP address ends the search at the last valid hop.
    pub(crate) fn client_address(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
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
        let received_id = headers.get(REQUEST_ID).and_then(|value| value.to_str().ok());
        match received_id {
            Some(id) if is_request_id(id) && self.contains(peer.to_canonical()) => id.to_owned(),
            _ => Uuid::now_v7().to_string(),
        }
    }
}

/// Parses an entry of `X-Forwarded-For`: an address, with a port or in brackets as some proxies write it.
fn parse(hop: &[u8]) -> Option<IpAddr> {
    let hop = std::str::from_utf8(hop).ok()?.trim();
    let bracketed = || hop.strip_prefix('[')?.strip_suffix(']')?.parse().ok().map(IpAddr::V6);
    let address = hop.parse::<IpAddr>().ok();
    let address =
        address.or_else(|| hop.parse::<SocketAddr>().ok().map(|with_port| with_port.ip()));
    Some(address.or_else(bracketed)?.to_canonical())
}

/// Returns true for 1 to 64 ASCII letters, digits, dots, hyphens and underscores. A request id is written to logs and
/// headers, so a line break must be impossible.
fn is_request_id(id: &str) -> bool {
    (1..=64).contains(&id.len())
        && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxies() -> TrustedProxies {
        TrustedProxies(vec!["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()])
    }

    #[test]
    fn the_client_is_the_right_most_hop_that_is_not_ours() {
        let check = |peer: &str, forwarded: &[&str], expected: &str| {
            let mut headers = HeaderMap::new();
            for value in forwarded {
                headers.append(X_FORWARDED_FOR, value.parse().unwrap());
            }
            let client = proxies().client_address(peer.parse().unwrap(), &headers);
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
        check("10.0.0.1", &["198.51.100.1,"], "10.0.0.1");
        check("10.0.0.1", &["198.51.100.1, 010.1.1.1"], "10.0.0.1");
        check("fd00::1", &["2001:db8::7"], "2001:db8::7");
    }

    #[test]
    fn an_entry_is_an_address_with_or_without_a_port() {
        for (entry, expected) in [
            ("203.0.113.7", Some("203.0.113.7")),
            ("203.0.113.7:4711", Some("203.0.113.7")),
            (" 203.0.113.7:1 ", Some("203.0.113.7")),
            ("2001:db8::1", Some("2001:db8::1")),
            ("[2001:db8::1]", Some("2001:db8::1")),
            ("[2001:db8::1]:4711", Some("2001:db8::1")),
            ("[::ffff:203.0.113.7]:4711", Some("203.0.113.7")),
            ("2001:db8::1:4711", Some("2001:db8::1:4711")), // an address without a port
            ("203.0.113.7:", None),
            ("203.0.113.7:x", None),
            ("203.0.113.7:65536", None),
            ("203.0.113.7:1:2", None),
            ("[203.0.113.7]", None),
            ("[203.0.113.7]:80", None),
            ("[2001:db8::1]:", None),
            ("[2001:db8::1", None),
            ("2001:db8::1]:80", None),
            ("[[2001:db8::1]]", None),
            ("[]", None),
            (":80", None),
            ("unknown", None),
            ("_hidden:80", None),
            ("", None),
        ] {
            let address = parse(entry.as_bytes()).map(|address| address.to_string());
            assert_eq!(address.as_deref(), expected, "{entry}");
        }
    }

    #[test]
    fn a_hop_with_a_port_is_a_hop() {
        let client = |forwarded: &'static str| {
            let headers = HeaderMap::from_iter([(X_FORWARDED_FOR, forwarded.parse().unwrap())]);
            proxies().client_address("10.0.0.1".parse().unwrap(), &headers).to_string()
        };
        assert_eq!(client("1.1.1.1, 198.51.100.1:4711, 10.0.0.2:80"), "198.51.100.1");
        assert_eq!(client("198.51.100.1:x, 10.0.0.2:80"), "10.0.0.2", "ends at the last hop");
        assert_eq!(client("[2001:db8::7]:4711, [fd00::1]"), "2001:db8::7");
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
