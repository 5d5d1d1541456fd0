//! Rate limits while Redis does not answer.

use std::time::{Duration, Instant};

use jobs::{Decision, Limiter, Redis};
use metrics_exporter_prometheus::PrometheusBuilder;

use crate::limit::{allowed, key, quota};
use crate::server::{Server, eventually, ready};

/// Starts three limiters, and waits until they have counted each other.
async fn fleet(server: &Server) -> [Limiter; 3] {
    let limiters = [
        Limiter::new(ready(&server.url()).await),
        Limiter::new(ready(&server.url()).await),
        Limiter::new(ready(&server.url()).await),
    ];
    eventually("all limiters count three processes", async || {
        limiters.iter().all(|one| one.process_count().get() == 3)
    })
    .await;
    limiters
}

/// Checks that the first decisions wait for Redis, but not long, and that the later ones do not wait.
async fn decisions_are_quick(limiter: &Limiter) {
    let mut first = Duration::MAX;
    while !limiter.is_degraded() {
        let asked_at = Instant::now();
        let _ = limiter.take(&quota("10/hour"), &[&key("user")]).await;
        first = first.min(asked_at.elapsed());
    }
    assert!(first < Duration::from_millis(300), "{first:?}");

    let mut later = Vec::new();
    for _ in 0..51 {
        let asked_at = Instant::now();
        let _ = limiter.take(&quota("10/hour"), &[&key("user")]).await;
        later.push(asked_at.elapsed());
    }
    later.sort();
    // The median, because other builds may slow this machine down.
    assert!(later[25] < Duration::from_millis(5), "{later:?}");
}

/// Checks that each limiter admits its share of ten, rounded up.
async fn shares_are_granted(limiters: &[Limiter; 3]) {
    let (quota, user) = (quota("10/hour"), key("user"));
    for limiter in limiters {
        assert_eq!(allowed(limiter, &quota, &[&user], 15).await, 4);
    }
}

/// Checks that the limiters admit ten requests together again.
async fn quota_is_shared_again(limiters: &[Limiter; 3]) {
    eventually("Redis is queried again", async || limiters.iter().all(|one| !one.is_degraded()))
        .await;
    let (quota, user, mut sum) = (quota("10/hour"), key("user"), 0);
    for _ in 0..10 {
        for limiter in limiters {
            sum += allowed(limiter, &quota, &[&user], 1).await;
        }
    }
    assert_eq!(sum, 10);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_redis_killed_each_process_grants_its_share_until_it_is_back() {
    let mut server = Server::start();
    let limiters = fleet(&server).await;
    server.kill();
    decisions_are_quick(&limiters[0]).await;
    shares_are_granted(&limiters).await;
    server.start_again();
    quota_is_shared_again(&limiters).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_redis_stopped_each_process_grants_its_share_until_it_goes_on() {
    let server = Server::start();
    let limiters = fleet(&server).await;
    server.stop();
    decisions_are_quick(&limiters[0]).await;
    shares_are_granted(&limiters).await;
    server.resume();
    quota_is_shared_again(&limiters).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_at_once_wait_for_a_stopped_redis_once() {
    let server = Server::start();
    let limiters = fleet(&server).await;
    server.stop();
    let (quota, user, started_at) = (quota("10/hour"), key("user"), Instant::now());
    let takes: Vec<_> = (0..500)
        .map(|_| {
            let (limiter, user) = (limiters[0].clone(), user.clone());
            tokio::spawn(async move { limiter.take(&quota, &[&user]).await })
        })
        .collect();
    let mut allowed = 0;
    for take in takes {
        allowed += usize::from(take.await.unwrap() == Decision::Allowed);
    }
    assert!(started_at.elapsed() < Duration::from_secs(1), "{:?}", started_at.elapsed());
    assert_eq!(allowed, 4);
    server.resume();
    quota_is_shared_again(&limiters).await;
}

#[tokio::test]
async fn a_process_may_start_before_redis() {
    let mut server = Server::not_started("");
    let redis = Redis::open(&server.url()).unwrap();
    let limiter = Limiter::new(redis.clone());
    assert!(redis.ping().await.is_err());
    assert_eq!(allowed(&limiter, &quota("4/hour"), &[&key("user")], 9).await, 4);
    server.start_again();
    redis.ready(Duration::from_secs(20)).await.unwrap();
    eventually("Redis is queried", async || !limiter.is_degraded()).await;
}

#[tokio::test]
async fn a_mute_connection_is_replaced() {
    let server = Server::start();
    let redis = ready(&server.url()).await;
    server.stop();
    // A symbolic link replaces the socket of the stopped server: only a new connection reaches the other server.
    std::fs::rename(server.socket(), format!("{}.stopped", server.socket())).unwrap();
    let other = Server::start();
    ready(&other.url()).await;
    std::os::unix::fs::symlink(other.socket(), server.socket()).unwrap();
    redis.ready(Duration::from_secs(20)).await.unwrap();
}

#[tokio::test]
async fn decisions_without_redis_are_counted() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let metrics = recorder.handle();
    let _recording = metrics::set_default_local_recorder(&recorder);
    let server = Server::not_started("");
    let limiter = Limiter::new(Redis::open(&server.url()).unwrap());
    assert_eq!(allowed(&limiter, &quota("2/hour"), &[&key("user")], 5).await, 2);
    let text = metrics.render();
    // The three refusals come from the local limiter in front of Redis, which also holds only two tokens.
    assert!(text.contains("sentryops_limit_fallback_total{quota=\"test\"} 2"), "{text}");
    assert!(text.contains("sentryops_limit_refused_total{quota=\"test\"} 3"), "{text}");
}
