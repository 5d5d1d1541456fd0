//! Rate limits while Redis answers.

use std::time::{Duration, Instant};

use fred::prelude::{Client, ClientLike, Config, KeysInterface, SortedSetsInterface};
use fred::types::config::ServerConfig;
use jobs::{Decision, Limiter, Quota};
use metrics_exporter_prometheus::PrometheusBuilder;
use uuid::Uuid;

use crate::server::{Server, eventually, ready, shared, shared_url};

pub(crate) fn quota(text: &str) -> Quota {
    Quota::parse("test", text).unwrap()
}

/// Returns a key that only this test uses.
pub(crate) fn key(what: &str) -> String {
    format!("{what}:{}", Uuid::now_v7())
}

/// Sends this number of requests, one after another, and returns the number of allowed ones.
pub(crate) async fn allowed(
    limiter: &Limiter,
    quota: &Quota,
    keys: &[&str],
    takes: usize,
) -> usize {
    let mut allowed = 0;
    for _ in 0..takes {
        allowed += usize::from(limiter.take(quota, keys).await == Decision::Allowed);
    }
    allowed
}

/// Connects to the Redis server of a test directly, without the limiter.
async fn connect(server: &Server) -> Client {
    let server = ServerConfig::Unix { path: server.socket().into() };
    let client = Client::new(Config { server, ..Config::default() }, None, None, None);
    client.init().await.unwrap();
    client
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_a_burst_over_three_processes_exactly_the_quota_is_allowed() {
    let limiters =
        [Limiter::new(shared().await), Limiter::new(shared().await), Limiter::new(shared().await)];
    let (account, quota) = (key("account"), quota("10/hour"));
    let takes: Vec<_> = (0..200)
        .map(|n: usize| {
            let (limiter, account) = (limiters[n % 3].clone(), account.clone());
            tokio::spawn(async move { limiter.take(&quota, &[&account]).await })
        })
        .collect();
    let mut allowed = 0;
    for take in takes {
        match take.await.unwrap() {
            Decision::Allowed => allowed += 1,
            Decision::Refused { retry_after } => {
                let refill = Duration::from_mins(6);
                assert!(retry_after > Duration::ZERO && retry_after <= refill, "{retry_after:?}");
            }
        }
    }
    assert_eq!(allowed, 10);
    assert!(limiters.iter().all(|limiter| !limiter.is_degraded()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_burst_over_two_keys_takes_from_both_or_from_none() {
    let limiters =
        [Limiter::new(shared().await), Limiter::new(shared().await), Limiter::new(shared().await)];
    let (account, quota) = (key("account"), quota("10/hour"));
    let addresses = [key("address"), key("address"), key("address"), key("address")];
    let takes: Vec<_> = (0..200)
        .map(|n: usize| {
            let (limiter, account) = (limiters[n % 3].clone(), account.clone());
            let address = addresses[n % 4].clone();
            tokio::spawn(async move { limiter.take(&quota, &[&account, &address]).await })
        })
        .collect();
    let mut by_address = [0; 4];
    for (n, take) in takes.into_iter().enumerate() {
        by_address[n % 4] += usize::from(take.await.unwrap() == Decision::Allowed);
    }
    assert_eq!(by_address.iter().sum::<usize>(), 10, "the account's bucket");

    // A new process has no local state: only Redis decides.
    let new_process = Limiter::new(shared().await);
    for (address, taken) in addresses.iter().zip(by_address) {
        assert_eq!(allowed(&new_process, &quota, &[address], 15).await, 10 - taken);
    }
}

#[tokio::test]
async fn a_refused_second_key_leaves_the_first_untouched() {
    let (account, address, quota) = (key("account"), key("address"), quota("4/hour"));
    assert_eq!(allowed(&Limiter::new(shared().await), &quota, &[&address], 9).await, 4);
    for _ in 0..5 {
        // Each limiter is new and queries Redis.
        let limiter = Limiter::new(shared().await);
        assert_eq!(allowed(&limiter, &quota, &[&account, &address], 2).await, 0);
    }
    assert_eq!(allowed(&Limiter::new(shared().await), &quota, &[&account], 9).await, 4);
}

#[tokio::test]
async fn whoever_is_refused_elsewhere_is_not_punished_here() {
    let (here, there) = (Limiter::new(shared().await), Limiter::new(shared().await));
    let (account, address, quota) = (key("account"), key("address"), quota("4/hour"));
    assert_eq!(allowed(&there, &quota, &[&address], 4).await, 4);
    assert_eq!(allowed(&here, &quota, &[&account, &address], 100).await, 0);
    // One token was lost before the limiter knew that the address is refused.
    assert_eq!(allowed(&here, &quota, &[&account], 9).await, 3);
}

#[tokio::test]
async fn a_bucket_refills_by_redis_clock_and_says_when() {
    let limiter = Limiter::new(shared().await);
    let (user, quota) = (key("user"), quota("5/second"));
    let refused_at = Instant::now();
    let retry_after = loop {
        if let Decision::Refused { retry_after } = limiter.take(&quota, &[&user]).await {
            break retry_after;
        }
        assert!(refused_at.elapsed() < Duration::from_secs(20), "never refused");
    };
    assert!(retry_after <= Duration::from_millis(200), "{retry_after:?}");
    eventually("allowed again", async || limiter.take(&quota, &[&user]).await == Decision::Allowed)
        .await;
    assert!(refused_at.elapsed() >= retry_after);
}

#[tokio::test]
async fn redis_holds_no_key_in_clear_and_none_for_ever() {
    let server = Server::start();
    let limiter = Limiter::new(ready(&server.url()).await);
    let keys = ["account:ada@example.org", "address:203.0.113.7"];
    assert_eq!(limiter.take(&quota("10/minute"), &keys).await, Decision::Allowed);
    eventually("the first heartbeat", async || {
        connect(&server).await.exists::<u32, _>("sentryops:limit:fleet").await.unwrap() == 1
    })
    .await;

    let client = connect(&server).await;
    let (_, names): (String, Vec<String>) =
        client.scan_page("0", "*", Some(100), None).await.unwrap();
    assert_eq!(names.len(), 3, "{names:?}");
    for name in names {
        if let Some(hash) = name.strip_prefix("sentryops:limit:test:") {
            assert!(hash.len() == 32 && hash.bytes().all(|byte| byte.is_ascii_hexdigit()));
        } else {
            assert_eq!(name, "sentryops:limit:fleet");
        }
        let ttl_ms: i64 = client.pttl(&name).await.unwrap();
        assert!((1..=15_000).contains(&ttl_ms), "{name} lives for {ttl_ms} ms");
    }
}

#[tokio::test]
async fn a_forgotten_script_is_loaded_again() {
    let server = Server::start();
    let limiter = Limiter::new(ready(&server.url()).await);
    let (user, quota) = (key("user"), quota("4/hour"));
    assert_eq!(allowed(&limiter, &quota, &[&user], 2).await, 2);
    fred::interfaces::LuaInterface::script_flush(&connect(&server).await, false).await.unwrap();
    let new_process = Limiter::new(ready(&server.url()).await);
    assert_eq!(allowed(&new_process, &quota, &[&user], 9).await, 2);
}

#[tokio::test]
async fn after_flushall_each_process_grants_no_more_than_the_quota() {
    let server = Server::start();
    let limiter = Limiter::new(ready(&server.url()).await);
    let (user, quota) = (key("user"), quota("4/hour"));
    assert_eq!(allowed(&limiter, &quota, &[&user], 9).await, 4);
    let _: () = connect(&server).await.flushall(false).await.unwrap();
    assert_eq!(allowed(&limiter, &quota, &[&user], 9).await, 0, "the local limiter still refuses");
    let new_process = Limiter::new(ready(&server.url()).await);
    assert_eq!(allowed(&new_process, &quota, &[&user], 9).await, 4, "Redis has lost its data");
    assert!(!limiter.is_degraded() && !new_process.is_degraded());
}

#[tokio::test]
async fn a_quota_configured_anew_is_enforced_anew() {
    let limiter = Limiter::new(shared().await);
    let user = key("user");
    assert_eq!(allowed(&limiter, &quota("4/hour"), &[&user], 9).await, 4);
    // The bucket is full again in an hour, which takes 1 of 24.
    assert_eq!(allowed(&limiter, &quota("24/day"), &[&user], 30).await, 23);
    // The stored time is a day ahead, which is beyond this quota. The bucket counts as empty, and its wait is at most
    // one refill interval.
    let Decision::Refused { retry_after } = limiter.take(&quota("4/hour"), &[&user]).await else {
        panic!("allowed");
    };
    assert!(retry_after <= Duration::from_mins(15), "{retry_after:?}");
}

#[tokio::test]
async fn the_fleet_counts_the_living_only() {
    let server = Server::start();
    let client = connect_when_ready(&server).await;
    let now_ms = 1_000.0 * 1_800_000_000.0;
    let marks = vec![(0.0, "long dead"), (now_ms * 10.0, "from before the clock was set back")];
    let _: () =
        client.zadd("sentryops:limit:fleet", None, None, false, false, marks).await.unwrap();
    let first = Limiter::new(ready(&server.url()).await);
    eventually("the first heartbeat", async || {
        client.zcard::<u32, _>("sentryops:limit:fleet").await.unwrap() == 1
    })
    .await;
    let second = Limiter::new(ready(&server.url()).await);
    eventually("both limiters count two processes", async || {
        first.process_count().get() == 2 && second.process_count().get() == 2
    })
    .await;
}

async fn connect_when_ready(server: &Server) -> Client {
    ready(&server.url()).await;
    connect(server).await
}

#[tokio::test]
async fn a_password_is_used_and_never_told() {
    let server = Server::start_with_password("s3cret/word");
    let right = format!("redis+unix://:s3cret%2Fword@local{}", server.socket());
    let redis = ready(&right).await;
    assert!(!format!("{redis:?}").contains("s3cret"));

    let wrong = jobs::Redis::open(&format!("unix://:wr0ng@{}", server.socket())).unwrap();
    let error = wrong.ready(Duration::from_millis(300)).await.unwrap_err();
    assert!(!format!("{error} {error:?} {wrong:?}").contains("wr0ng"));
}

/// Runs on one thread, because the recorder is local to the thread.
#[tokio::test]
async fn refusals_are_counted_by_quota() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let metrics = recorder.handle();
    let _recording = metrics::set_default_local_recorder(&recorder);
    let limiter = Limiter::new(ready(&shared_url()).await);
    assert_eq!(allowed(&limiter, &quota("2/hour"), &[&key("user")], 5).await, 2);
    let text = metrics.render();
    assert!(text.contains("sentryops_limit_refused_total{quota=\"test\"} 3"), "{text}");
    assert!(!text.contains("sentryops_limit_fallback_total"), "{text}");
}
