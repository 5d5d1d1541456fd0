//! Rate limits that are counted in blocks, and limits of a client's address.

use std::net::{IpAddr, Ipv6Addr};

use fred::prelude::{Client, ClientLike, Config};
use fred::types::{InfoKind, config::ServerConfig};
use jobs::{Decision, Limiter, Quota, Redis};

use crate::limit::{key, quota};
use crate::server::{Server, eventually, ready, shared};

/// Sends this number of requests, one after another, and returns the number of allowed ones.
async fn allowed(limiter: &Limiter, quota: &Quota, key: &str, takes: usize) -> usize {
    let mut allowed = 0;
    for _ in 0..takes {
        allowed += usize::from(limiter.take_in_blocks(quota, key).await == Decision::Allowed);
    }
    allowed
}

/// Returns an address in a /48 that only this test uses, with this number of its /64.
fn address(network: u128, subnet: u16) -> IpAddr {
    Ipv6Addr::from_bits(network << 80 | u128::from(subnet) << 64 | 7).into()
}

/// Returns the number of scripts that the server has run.
async fn scripts_run(server: &Server) -> u32 {
    let config = ServerConfig::Unix { path: server.socket().into() };
    let client = Client::new(Config { server: config, ..Config::default() }, None, None, None);
    client.init().await.unwrap();
    let stats: String = client.info(Some(InfoKind::CommandStats)).await.unwrap();
    let calls = |name: &str| {
        let line = stats.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
        let calls = line.strip_prefix(":calls=").and_then(|line| line.split(',').next());
        calls.map_or(0, |calls| calls.parse::<u32>().unwrap())
    };
    calls("cmdstat_evalsha") + calls("cmdstat_eval")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_a_burst_over_three_processes_exactly_the_quota_is_allowed_in_blocks() {
    let limiters =
        [Limiter::new(shared().await), Limiter::new(shared().await), Limiter::new(shared().await)];
    let (user, quota) = (key("user"), quota("600/day"));
    let bursts: Vec<_> = (0..24)
        .map(|n| {
            let (limiter, user) = (limiters[n % 3].clone(), user.clone());
            tokio::spawn(async move { allowed(&limiter, &quota, &user, 50).await })
        })
        .collect();
    let mut sum = 0;
    for burst in bursts {
        sum += burst.await.unwrap();
    }
    assert_eq!(sum, 600);
}

#[tokio::test]
async fn a_process_keeps_at_most_one_block_from_the_others() {
    let (here, there) = (Limiter::new(shared().await), Limiter::new(shared().await));
    let (user, quota) = (key("user"), quota("600/day"));
    assert_eq!(allowed(&there, &quota, &user, 1).await, 1);
    assert_eq!(allowed(&here, &quota, &user, 1000).await, 590);
    assert_eq!(allowed(&there, &quota, &user, 1000).await, 9);
}

#[tokio::test]
async fn a_block_costs_one_query_and_a_refusal_none() {
    let server = Server::start();
    let limiter = Limiter::new(ready(&server.url()).await);
    // The heartbeats of the limiter are scripts too.
    let user = key("user");
    let before = scripts_run(&server).await;
    assert_eq!(allowed(&limiter, &quota("600/day"), &user, 1000).await, 600);
    let queries = scripts_run(&server).await - before;
    assert!((61..=70).contains(&queries), "60 blocks, the refusal and heartbeats: {queries}");
}

#[tokio::test]
async fn a_burst_waits_for_one_query_instead_of_sending_many() {
    let server = Server::start();
    let limiter = Limiter::new(ready(&server.url()).await);
    let (user, quota) = (key("user"), quota("600/day"));
    let takes: Vec<_> = (0..10)
        .map(|_| {
            let (limiter, user) = (limiter.clone(), user.clone());
            tokio::spawn(async move { limiter.take_in_blocks(&quota, &user).await })
        })
        .collect();
    for take in takes {
        assert_eq!(take.await.unwrap(), Decision::Allowed);
    }
    // All other processes together still get what one block leaves.
    let other = Limiter::new(ready(&server.url()).await);
    assert_eq!(allowed(&other, &quota, &user, 1000).await, 590);
}

#[tokio::test]
async fn without_redis_a_process_admits_its_share() {
    let server = Server::not_started("");
    let limiter = Limiter::new(Redis::open(&server.url()).unwrap());
    assert_eq!(allowed(&limiter, &quota("600/day"), &key("user"), 1000).await, 600);
    eventually("degraded", async || limiter.is_degraded()).await;
}

/// Sends one sign-in from each of 25 /64 networks, and returns the number of allowed ones.
async fn of_25_networks(step: u16) -> usize {
    let (limiter, quota) = (Limiter::new(shared().await), quota("1/day"));
    let (action, network) = (key("sign in"), u128::from(step) + 0x2001_0db8_0000);
    let mut allowed = 0;
    for subnet in 0..25 {
        let address = address(network, subnet * step);
        let decision = limiter.take_of_address(&quota, &action, address).await;
        allowed += usize::from(decision == Decision::Allowed);
    }
    allowed
}

#[tokio::test]
async fn a_client_with_a_wide_network_has_few_buckets() {
    assert_eq!(of_25_networks(1).await, 4, "25 networks of one /56");
    assert_eq!(of_25_networks(0x100).await, 16, "25 networks of one /48, each of its own /56");
}

#[tokio::test]
async fn a_network_that_is_used_up_takes_nothing_from_its_neighbours() {
    let (limiter, quota) = (Limiter::new(shared().await), quota("60/day"));
    let network = (uuid::Uuid::now_v7().as_u128() & u128::from(u32::MAX)) << 16;
    let take =
        async |subnet| limiter.take_of_address_in_blocks(&quota, address(network, subnet)).await;
    let mut own = 0;
    for _ in 0..2000 {
        own += usize::from(take(0).await == Decision::Allowed);
    }
    assert_eq!(own, 60);
    for subnet in 1..4 {
        for _ in 0..60 {
            assert_eq!(take(subnet).await, Decision::Allowed, "{subnet}");
        }
    }
    assert_ne!(take(4).await, Decision::Allowed, "the /56 is used up");
    assert_eq!(take(0x100).await, Decision::Allowed, "its neighbour in the /48 is not");
}
