//! Names of buckets. Redis stores a hash of the caller's key, so the contents of Redis do not show who signed in from
//! where. The hash is not keyed: anyone who can read Redis can test guesses (all IPv4 addresses within minutes), but an
//! entry exists only until its bucket is full again. To hide more, pass in a keyed hash.

use std::fmt::Write;
use std::net::{IpAddr, Ipv6Addr};

use sha2::{Digest, Sha256};

use super::quota::Quota;

/// Hash of a bucket's key. At 128 bits, finding a second key with the same hash is infeasible.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Bucket([u8; 16]);

impl Bucket {
    pub(super) fn new(key: &str) -> Self {
        let digest: [u8; 32] = Sha256::digest(key).into();
        let mut prefix = [0; 16];
        prefix.copy_from_slice(&digest[..16]);
        Self(prefix)
    }

    /// Returns one bucket for each distinct key. Without keys, returns the bucket of the empty key.
    pub(super) fn all(keys: &[&str]) -> Vec<Self> {
        let mut buckets = Vec::with_capacity(keys.len().max(1));
        for key in if keys.is_empty() { &[""] } else { keys } {
            let bucket = Self::new(key);
            if !buckets.contains(&bucket) {
                buckets.push(bucket);
            }
        }
        buckets
    }

    /// Returns the key of the bucket in Redis.
    pub(super) fn redis_key(self, quota: &Quota) -> String {
        let mut key = format!("sentryops:limit:{}:", quota.name);
        for byte in self.0 {
            // Writing to a String cannot fail.
            let _ = write!(key, "{byte:02x}");
        }
        key
    }
}

/// Networks in which an IPv6 address is counted: the length of the prefix, and the number of clients for which the
/// bucket of the network has tokens. One client usually controls a whole /64, and some control a /56 or a /48.
const IPV6_NETWORKS: [(u8, u32); 3] = [(64, 1), (56, 4), (48, 16)];

/// Returns the bucket keys of a client's address, the narrowest network first, each with the factor by which its bucket
/// is larger than that of one client. An IPv4-mapped IPv6 address counts as its IPv4 address. Without the wider
/// networks, a client with a /48 would have 65,536 buckets.
///
/// A key begins with `address:`, so no account name can equal it.
pub(super) fn address_buckets(address: IpAddr) -> impl Iterator<Item = (String, u32)> {
    let canonical = address.to_canonical();
    let networks = if canonical.is_ipv6() { &IPV6_NETWORKS[..] } else { &IPV6_NETWORKS[..1] };
    networks.iter().map(move |(length, factor)| {
        let bucket = match canonical {
            IpAddr::V4(address) => format!("address:{address}"),
            IpAddr::V6(address) => network_bucket(address, *length),
        };
        (bucket, *factor)
    })
}

fn network_bucket(address: Ipv6Addr, length: u8) -> String {
    let network = Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << (128 - length)));
    format!("address:{network}/{length}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ipv6_address_also_counts_in_its_wider_networks() {
        let buckets = |address: &str| address_buckets(address.parse().unwrap()).collect::<Vec<_>>();
        let own = |key: &str, factor| (format!("address:{key}"), factor);
        assert_eq!(buckets("203.0.113.7"), [own("203.0.113.7", 1)]);
        assert_eq!(buckets("::ffff:203.0.113.7"), [own("203.0.113.7", 1)]);
        assert_eq!(
            buckets("2001:db8:1:fedc:3:4:5:6"),
            [
                own("2001:db8:1:fedc::/64", 1),
                own("2001:db8:1:fe00::/56", 4),
                own("2001:db8:1::/48", 16)
            ]
        );
    }

    #[test]
    fn a_key_in_redis_tells_the_quota_and_hides_the_rest() {
        let quota = Quota::parse("auth", "10/minute").unwrap();
        assert_eq!(
            Bucket::new("account:ada@example.org").redis_key(&quota),
            "sentryops:limit:auth:3425d494c3ccb4e6da8aa8ec7da27de9"
        );
    }

    #[test]
    fn a_key_given_twice_counts_once_and_no_key_is_a_key() {
        assert_eq!(Bucket::all(&["a", "b", "a"]), [Bucket::new("a"), Bucket::new("b")]);
        assert_eq!(Bucket::all(&[]), [Bucket::new("")]);
    }
}
